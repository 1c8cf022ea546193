"""`run.compile`: the numbers and names of a run without it, and a clear word where it fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.runners import compilation
from lavis_msmedcap.runners.compilation import INDUCTOR, check_compiler, compile_blocks
from lavis_msmedcap.runners.optimization import build_optimizer
from lavis_msmedcap.runners.run_status import fingerprint
from lavis_msmedcap.runners.training_state import Progress, StateStore
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

CPU = torch.device("cpu")
TRACED = "aot_eager"  # all of the compilation but the making of machine code, which takes minutes
TEXTS = ["axial ct of the chest", "two red circles", "a blue square", "a hand", "a lesion"]

pytestmark = pytest.mark.skipif(
    not hasattr(torch.nn.Module, "compile"), reason="torch before 2.2 does not compile in place"
)


@pytest.fixture(autouse=True)
def forget_what_was_compiled() -> Any:
    yield
    torch._dynamo.reset()


def build(cls: Any, settings: dict[str, Any], backend: str | None = None) -> Any:
    settings["qformer"]["dropout"] = 0.0
    torch.manual_seed(0)
    model = cls.from_config(settings)
    if backend:
        compile_blocks(model, CPU, backend)
    return model


@pytest.fixture
def small(stage1_settings: dict[str, Any]) -> dict[str, Any]:
    """One branch with one block in its Q-Former."""
    stage1_settings["branches"]["sam"] = None
    stage1_settings["qformer"].update(num_layers=1, cross_attention_freq=1)
    return stage1_settings


def step(model: Any, images: torch.Tensor, count: int = 5) -> Any:
    torch.manual_seed(1)  # the negatives of ITM
    output = model({"image": images[:count], "text_input": TEXTS[:count]})
    output["loss"].backward()
    return output


def compare(
    eager: Any, compiled: Any, images: torch.Tensor, counts: tuple[int, ...] = (5, 4)
) -> None:
    for count in counts:  # the second number of samples makes the batch a free dimension
        ours, theirs = step(compiled, images, count), step(eager, images, count)
        for name, value in theirs["logs"].items():
            assert float(ours["logs"][name]) == pytest.approx(float(value), rel=1e-4), name
    gradients = {n: p.grad for n, p in eager.named_parameters() if p.grad is not None}
    assert gradients
    for name, parameter in compiled.named_parameters():
        assert (parameter.grad is None) == (name not in gradients), name
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-3, rtol=1e-3)


def test_one_branch_has_the_losses_and_gradients_of_eager(
    small: dict[str, Any], packed_images: torch.Tensor
) -> None:
    eager = build(Blip2DualQformer, small)
    compiled = build(Blip2DualQformer, small, TRACED)
    torch._dynamo.utils.counters.clear()
    compare(eager.train(), compiled.train(), packed_images, counts=(5,))
    counters = torch._dynamo.utils.counters
    # four passes of the Q-Former, and the encoder
    assert counters["stats"]["unique_graphs"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_stage_1_has_the_losses_and_gradients_of_eager(
    stage1_settings: dict[str, Any], packed_images: torch.Tensor, checkpointing: bool
) -> None:
    stage1_settings["qformer"]["gradient_checkpointing"] = checkpointing
    eager = build(Blip2DualQformer, stage1_settings)
    compiled = build(Blip2DualQformer, stage1_settings, TRACED)
    compare(eager.train(), compiled.train(), packed_images)


@pytest.mark.slow
def test_stage_2_has_the_losses_and_captions_of_eager(
    stage2_settings: dict[str, Any], packed_images: torch.Tensor
) -> None:
    eager = build(MSMedCap, stage2_settings)
    compiled = build(MSMedCap, stage2_settings, TRACED)
    compare(eager.train(), compiled.train(), packed_images)
    samples = {"image": packed_images}
    assert compiled.eval().generate(samples) == eager.eval().generate(samples)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_machine_code_has_the_losses_and_gradients_of_eager(
    small: dict[str, Any], packed_images: torch.Tensor
) -> None:
    check_compiler(CPU)
    eager = build(Blip2DualQformer, small)
    compiled = build(Blip2DualQformer, small, INDUCTOR)
    compare(eager.train(), compiled.train(), packed_images, counts=(5,))


def test_files_have_the_same_names_and_go_on_either_way(
    small: dict[str, Any], packed_images: torch.Tensor, tmp_path: Path
) -> None:
    eager = build(Blip2DualQformer, small)
    compiled = build(Blip2DualQformer, small, "eager")  # names do not depend on the backend
    optimizers = {}
    for name, model in (("eager", eager), ("compiled", compiled)):
        optimizers[name] = build_optimizer(model.train(), 1e-3, 0.0)
        step(model, packed_images)
        optimizers[name].step()
        save_checkpoint(tmp_path / f"{name}.safetensors", model.trainable_state_dict(), {})
        StateStore(tmp_path / name).save(model, optimizers[name], Progress(step=1), {})
    ours, theirs = (
        read_checkpoint(tmp_path / f"{name}.safetensors")[0] for name in ("compiled", "eager")
    )
    assert ours.keys() == theirs.keys() == eager.trainable_state_dict().keys()
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    for source, model, other in (("compiled", eager, "eager"), ("eager", compiled, "compiled")):
        progress = StateStore(tmp_path / source).load(model, optimizers[other], {})
        assert progress == Progress(step=1)
        assert not any("_orig_mod" in name for name, _ in model.named_parameters())


def test_with_it_it_is_another_run() -> None:
    """Compiled blocks draw the numbers of dropout in another order."""
    marks = {fingerprint({"run": {"init_lr": 0.1, **run}}) for run in ({}, {"compile": True})}
    assert len(marks) == 2


def test_a_machine_without_a_compiler_is_told_before_a_run_directory_is_made(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Failed to find C++ compiler.\nand much more")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(ConfigError) as caught:
        tiny.make_runner(tmp_path / "out", MixedSemanticPretrainTask(), compile=True)
    (problem,) = caught.value.problems
    assert problem == (
        "run.compile: this machine cannot compile: inductor needs a C++ compiler (g++) here "
        "(Failed to find C++ compiler.); or set run.compile=false"
    )
    assert not (tmp_path / "out").exists()


def test_the_check_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiler(CPU, TRACED)
    with pytest.raises(ConfigError, match="cannot compile: nowhere needs"):
        check_compiler(CPU, "nowhere")
    monkeypatch.delattr(torch.nn.Module, "compile")
    with pytest.raises(ConfigError, match=r"is too old; 2\.2 has it"):
        check_compiler(CPU, TRACED)


def test_a_model_without_branches_is_refused(tiny: ModuleType) -> None:
    with pytest.raises(ConfigError, match="TinyModel has no Q-Former branch"):
        compile_blocks(tiny.TinyModel(), CPU, TRACED)


def test_16_bit_encoders_stay_eager_on_a_cpu_without_units(
    stage1_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for units in (True, False):
        monkeypatch.setattr(compilation, "has_units", lambda _, units=units: units)
        model = build(Blip2DualQformer, stage1_settings, TRACED)
        blocks = model.branch("sam").encoder.vit.blocks
        assert all((block._compiled_call_impl is not None) is units for block in blocks)
        assert model.branch("sam").qformer.bert.encoder.layer[0]._compiled_call_impl is not None
