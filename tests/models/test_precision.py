"""Precisions of frozen and trainable parts, alone and together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TEXTS, train_steps
from torch import Tensor

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.models.precision import precision_problem

CPU = torch.device("cpu")


def build(cls: Any, settings: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    return cls.from_config(settings)


def set_encoders(settings: dict[str, Any], precision: str) -> None:
    for branch in settings["branches"].values():
        branch["encoder"]["precision"] = precision


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("qformer", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("stage", ["stage1_settings", "stage2_settings"])
def test_a_step_in_every_combination(
    request: pytest.FixtureRequest,
    packed_images: Tensor,
    stage: str,
    frozen: str,
    qformer: str,
    amp: bool,
) -> None:
    settings = request.getfixturevalue(stage)
    set_encoders(settings, frozen)
    settings["qformer"].update(precision=qformer, dropout=0.0)
    if "llm" in settings:
        settings["llm"]["precision"] = frozen
    model = build(MSMedCap if "llm" in settings else Blip2DualQformer, settings)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        losses = train_steps(model, {"image": packed_images, "text_input": TEXTS}, 5)
    assert min(losses[1:]) < losses[0]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[qformer]
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    kinds = {p.dtype for n, p in trainable.items() if not n.endswith(".temp")}
    assert kinds == {dtype}
    assert all(p.dtype == torch.float32 for n, p in trainable.items() if n.endswith(".temp"))
    if "llm" in settings:
        assert len(model.eval().generate({"image": packed_images}, max_length=4)) == 5


def test_bf16_is_close_to_fp32(stage1_settings: dict[str, Any], packed_images: Tensor) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        stage1_settings["qformer"].update(precision=precision, dropout=0.0)
        model = build(Blip2DualQformer, stage1_settings)
        torch.manual_seed(0)
        losses.append(model({"image": packed_images, "text_input": TEXTS})["loss"].item())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("cls", [Blip2DualQformer, MSMedCap])
def test_fp16_parameters_are_refused_with_the_reason(
    cls: Any, stage1_settings: dict[str, Any], stage2_settings: dict[str, Any]
) -> None:
    settings = stage1_settings if cls is Blip2DualQformer else stage2_settings
    settings["qformer"]["precision"] = "fp16"
    with pytest.raises(ConfigError, match=r"GradScaler refuses to unscale float16 gradients"):
        build(cls, settings)


@pytest.mark.parametrize(("saved", "loaded"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_a_checkpoint_keeps_its_type_and_is_cast_when_loaded(
    stage2_settings: dict[str, Any], tmp_path: Path, saved: str, loaded: str
) -> None:
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    stage2_settings["qformer"]["precision"] = saved
    model = build(MSMedCap, stage2_settings)
    file = tmp_path / "checkpoint.safetensors"
    torch.nn.init.normal_(model.query_tokens)
    save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())
    state, _ = read_checkpoint(file)
    assert {tensor.dtype for tensor in state.values()} == {types[saved]}
    stage2_settings["qformer"]["precision"] = loaded
    settings = {**stage2_settings, "load_finetuned": True, "finetuned": str(file)}
    twin = build(MSMedCap, settings).trainable_state_dict()
    assert {tensor.dtype for tensor in twin.values()} == {types[loaded]}
    assert all(torch.equal(twin[name], state[name].to(types[loaded])) for name in state)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_features_of_a_frozen_encoder_do_not_depend_on_amp(
    stage1_settings: dict[str, Any], packed_images: Tensor, precision: str
) -> None:
    set_encoders(stage1_settings, precision)
    model = build(Blip2DualQformer, stage1_settings)
    plain = model.encode_image(packed_images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.encode_image(packed_images)
    for name in plain:
        assert plain[name].embeds.dtype == torch.float32
        assert torch.equal(plain[name].embeds, mixed[name].embeds)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_this_cpu_computes_in(precision: str) -> None:
    assert precision_problem(precision, CPU) is None


def test_a_precision_that_torch_lacks_is_told_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As torch 2.0, which has no float16 layer norm on a CPU."""
    from lavis_msmedcap import cli

    def lacking(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("\"LayerNormKernelImpl\" not implemented for 'Half'")

    monkeypatch.setattr("lavis_msmedcap.models.precision.F.layer_norm", lacking)
    options = ["--options", "run.device=cpu", "model.branches.sam.encoder.precision=fp16"]
    assert cli.main(["config", "projects/msmedcap/pretrain_mixed.yaml", *options]) == 2
    message = capsys.readouterr().err
    assert "model.branches.sam.encoder.precision is fp16, but torch" in message
    assert "LayerNormKernelImpl" in message
    assert "set model.branches.sam.encoder.precision=fp32" in message
