"""Checkpoints know the frozen networks that they were trained with."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models import lora
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.models.frozen_marks import marks_of, odd_marks, read_marks
from lavis_msmedcap.models.msmedcap import MSMedCap

Settings = dict[str, Any]


def write_encoders(settings: Settings, folder: Path, seed: int) -> Settings:
    """Writes random encoders to files and returns settings that name them."""
    torch.manual_seed(seed)
    model = Blip2DualQformer.from_config(settings)
    named = copy.deepcopy(settings)
    folder.mkdir()
    for name in ("clip", "sam"):
        state = {k: v.contiguous() for k, v in model.branch(name).encoder.state_dict().items()}
        if name == "sam":
            state = {k.replace("vit.", "image_encoder.", 1): v for k, v in state.items()}
        else:
            state = {k: torch.randn_like(v) if k.startswith("ln.") else v for k, v in state.items()}
        save_file(state, folder / f"{name}.safetensors")
        named["branches"][name]["encoder"]["weights"] = str(folder / f"{name}.safetensors")
    return named


@pytest.fixture
def named(stage1_settings: Settings, tmp_path: Path) -> Settings:
    return write_encoders(stage1_settings, tmp_path / "first", seed=1)


@pytest.fixture
def captioner(named: Settings, stage2_settings: Settings) -> Settings:
    return {**stage2_settings, "branches": named["branches"]}


@pytest.fixture
def checkpoint(named: Settings, tmp_path: Path) -> Path:
    model = Blip2DualQformer.from_config(named)
    file = tmp_path / "stage1.safetensors"
    save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())
    return file


def test_they_are_small_and_of_every_sort(checkpoint: Path) -> None:
    metadata = read_checkpoint(checkpoint)[1]
    marks = json.loads(metadata["frozen"])
    assert {name.split(".")[1] for name in marks} == {"clip", "sam"}
    assert all(len(values) == 4 for values in marks.values())
    assert any("patch_embed" in name for name in marks)
    assert any(name.endswith("blocks.1.attn.qkv.weight") for name in marks)
    assert any(".encoder.ln." in name for name in marks)
    assert not any("pos" in name for name in marks)
    assert len(metadata["frozen"]) < 8000


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_same_weights_fit_in_any_precision_and_under_any_name(
    captioner: Settings, checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    for name, branch in captioner["branches"].items():
        moved = tmp_path / f"renamed_{name}.safetensors"
        weights = load_file(branch["encoder"]["weights"])
        save_file({k: v.half() for k, v in weights.items()}, moved)
        branch["encoder"].update(weights=str(moved), precision=precision)
    model = MSMedCap.from_config({**captioner, "stage1": str(checkpoint)})
    assert torch.equal(model.query_tokens, load_file(checkpoint)["branches.clip.query_tokens"])


def test_the_clip_view_may_grow_for_stage_2(
    named: Settings, captioner: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = Path(named["branches"]["clip"]["encoder"]["weights"])
    vit = {k[4:]: v for k, v in load_file(weights).items() if k.startswith("vit.")}
    save_file(vit, weights)  # with the published names, whose positions are interpolated
    model = Blip2DualQformer.from_config(named)
    file = tmp_path / "stage1.safetensors"
    save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())
    captioner["branches"]["clip"]["encoder"]["image_size"] = 32
    with caplog.at_level(logging.WARNING):
        MSMedCap.from_config({**captioner, "stage1": str(file)})
    assert "encoder.image_size 16, but it is 32 here" in caplog.text
    settings = {**captioner["branches"]["sam"]["encoder"], "image_size": 64}
    captioner["branches"]["sam"]["encoder"] = settings
    (problem,) = MSMedCap.missing_inputs({**captioner, "stage1": str(file)})
    assert "set model.branches.sam.encoder.image_size=32" in problem


def test_other_weights_of_the_same_shape_are_refused(
    captioner: Settings, stage1_settings: Settings, checkpoint: Path, tmp_path: Path
) -> None:
    other = write_encoders(stage1_settings, tmp_path / "second", seed=2)
    first = captioner["branches"]["sam"]["encoder"]["weights"]
    captioner["branches"]["sam"] = other["branches"]["sam"]
    model = MSMedCap.from_config(captioner)
    before = model.query_tokens.clone()
    with pytest.raises(WeightsError) as caught:
        model.load_stage1(str(checkpoint))
    assert "other frozen weights than model.branches.sam.encoder.weights gives" in str(caught.value)
    assert f"(there {first})" in str(caught.value)
    assert "clip" not in str(caught.value)
    assert torch.equal(model.query_tokens, before)


def test_another_layer_norm_is_a_matter_of_init(captioner: Settings, checkpoint: Path) -> None:
    file = captioner["branches"]["clip"]["encoder"]["weights"]
    weights = load_file(file)
    weights["ln.bias"] += 1
    save_file(weights, file)
    with pytest.raises(WeightsError, match=r"than model\.branches\.clip\.init gives here"):
        MSMedCap.from_config({**captioner, "stage1": str(checkpoint)})


def test_another_llm(stage2_settings: Settings, tiny_assets: Path, tmp_path: Path) -> None:
    model = MSMedCap.from_config(stage2_settings)
    file = tmp_path / "captioner.safetensors"
    save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())
    settings = {**stage2_settings, "load_finetuned": True, "finetuned": str(file)}
    for precision in ("fp32", "fp16"):
        MSMedCap.from_config({**settings, "llm": {**settings["llm"], "precision": precision}})
    folder = tmp_path / "opt"
    folder.mkdir()
    for path in (tiny_assets / "opt").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    (name,) = [n for n in weights if n.endswith("layers.1.self_attn.q_proj.weight")]
    weights[name] *= 1.1  # as when LoRA was merged into one sort of layers
    save_file(weights, folder / "model.safetensors")
    other = {**settings, "llm": {"weights": str(folder), "tokenizer": str(folder)}}
    with pytest.raises(WeightsError, match=r"weights than model\.llm\.weights.*q_proj\.weight"):
        MSMedCap.from_config(other)


def test_random_encoders_have_no_marks_but_are_not_named_ones(
    stage1_settings: Settings, captioner: Settings, tmp_path: Path
) -> None:
    model = Blip2DualQformer.from_config(stage1_settings)
    assert json.loads(model.checkpoint_metadata()["frozen"]) == {}
    file = tmp_path / "random.safetensors"
    save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())
    problems = MSMedCap.missing_inputs({**captioner, "stage1": str(file)})
    assert [p.partition("; ")[2] for p in problems] == [
        f"set model.branches.{name}.encoder.weights=null, or train again"
        for name in captioner["branches"]
    ]


@pytest.mark.skipif(lora.package_problem() is not None, reason="no peft that fits transformers")
def test_lora_hides_nothing_and_adds_nothing(stage2_settings: Settings) -> None:
    plain = MSMedCap.from_config(stage2_settings)
    adds = {"rank": 2, "alpha": 4.0, "target_modules": ["q_proj"]}
    with_lora = MSMedCap.from_config(
        {**stage2_settings, "llm": {**stage2_settings["llm"], "lora": adds}}
    )
    assert marks_of(with_lora, ["opt_model."]) == marks_of(plain, ["opt_model."])


class Quantized(nn.Module):
    """A linear layer whose weight is held in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
        self.bias = nn.Parameter(torch.ones(4), requires_grad=False)


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda _: None, []),
        (lambda m: m.a.weight.data.mul_(1.002), []),
        (lambda m: m.a.weight.data.mul_(1.02), ["a.weight"]),
        (lambda m: m.a.bias.data.fill_(2e-8), []),  # below what float16 tells from 0
        (lambda m: m.a.bias.data.fill_(1e-3), ["a.bias"]),
        (lambda m: setattr(m, "b", Quantized()), []),
        (lambda m: delattr(m, "a"), ["a.weight", "a.bias"]),
    ],
)
def test_what_differs(change: Callable[[Any], Any], odd: list[str]) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}).requires_grad_(False)
    model["a"].bias.zero_()
    model["b"].bias.fill_(1)
    marks = marks_of(model, ["a.", "b."])
    change(model)
    assert odd_marks(marks, model, ["a.", "b."]) == odd


@pytest.mark.parametrize(
    "note", [None, "", "yes", "[1]", '{"a": "x"}', '{"a": [1, 2, 3]}', '{"a": [1, 2, 3, "x"]}']
)
def test_a_note_of_others_is_no_marks(note: str | None) -> None:
    assert read_marks(note) is None
    assert read_marks('{"a": [1, 2.5, -3, 0]}') == {"a": [1, 2.5, -3, 0]}
    assert read_marks("{}") == {}
