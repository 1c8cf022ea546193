"""fp32, bf16 and fp16: the same training within rounding, and fp16's left-out updates."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from infinite_gradient import InfiniteGradient

from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.runners import precision as precision_module
from lavis_msmedcap.runners.optimization import build_optimizer
from lavis_msmedcap.runners.precision import Precision
from lavis_msmedcap.runners.schedule import LRSchedule, SchedulePlan
from lavis_msmedcap.runners.training_loop import TrainingLoop
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

CPU = torch.device("cpu")
SCALED_ON_CPU = hasattr(torch.amp, "GradScaler")
needs_scaler = pytest.mark.skipif(not SCALED_ON_CPU, reason="torch before 2.3 scales on CUDA only")


def losses_of(tiny: ModuleType, amp: str) -> tuple[list[float], TrainingLoop]:
    """Trains 200 steps with clipping."""
    model, listener = tiny.TinyModel(), tiny.Silent()
    optimizer = build_optimizer(model, 0.01, 0.0)
    schedule = LRSchedule(optimizer, "constant_lr", SchedulePlan(init_lr=0.01))
    loop = TrainingLoop(
        model,
        lambda m, s: m(s),
        optimizer,
        schedule,
        Precision(amp, CPU),
        listener,
        clip_grad_norm=1.0,
    )
    data = tiny.TinyDataset("coco", "general", 40)
    batches = [tiny.batch_of(data, list(range(i, i + 8))) for i in range(0, 40, 8)]
    for epoch in range(40):
        loop.run_epoch(batches, epoch)
    return [report.loss for report in listener.steps], loop


@needs_scaler
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_the_losses_of_half_precision_follow_those_of_fp32(tiny: ModuleType, amp: str) -> None:
    expected, _ = losses_of(tiny, "off")
    found, loop = losses_of(tiny, amp)
    assert loop.precision.amp == amp
    assert len(found) == 200
    assert expected[-1] < 0.1 * expected[0]
    apart = [abs(a - b) / expected[0] for a, b in zip(found, expected)]
    # at the start fp16 is behind by the updates that found the scale too large
    assert 0 < max(apart) < 0.2
    assert max(apart[-100:]) < 0.02


class Overflowing(MixedSemanticPretrainTask):
    """Overflows in some steps, counted from 1, and stops after another."""

    def __init__(self, overflow: tuple[int, ...] = (), stop: int = 0) -> None:
        super().__init__()
        self.step = 0
        self.overflow = overflow
        self.stop = stop
        self.rates: list[float] = []

    def train_step(self, model: Any, samples: Any) -> Any:
        self.step += 1
        if self.step == self.stop:
            raise RuntimeError("power cut")
        output = super().train_step(model, samples)
        if self.step in self.overflow:
            return {**output, "loss": InfiniteGradient.apply(output["loss"])}
        return output


def rates_of(runner: Any) -> list[float]:
    rows = (Path(runner.output_dir) / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("lr")
    return [float(row.split(",")[column]) for row in rows[1:]]


def make(tiny: ModuleType, folder: Path, task: Overflowing, **run: Any) -> Any:
    """A run whose loss scale is so small that it overflows only where the task says so."""
    warmup = {"warmup_steps": 4, "warmup_lr": 0.01}
    runner = tiny.make_runner(folder, task, amp="fp16", log_freq=1, **warmup, **run)
    runner.precision.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    return runner


@needs_scaler
def test_a_step_without_an_update_does_not_move_the_schedule(
    tiny: ModuleType, tmp_path: Path
) -> None:
    whole = make(tiny, tmp_path / "whole", Overflowing())
    whole.train()
    gaps = make(tiny, tmp_path / "gaps", Overflowing(overflow=(1, 3, 8)))
    gaps.train()
    plain, held = rates_of(whole), rates_of(gaps)
    # a rate comes again until it was used
    updates = [0, 0, 1, 1, 2, 3, 4, 5, 5, *range(6, 27)]
    assert held == pytest.approx([plain[update] for update in updates])
    assert gaps.state.global_step == whole.state.global_step == 30
    assert gaps.scaler.get_scale() == whole.scaler.get_scale() / 8


OVERFLOWS = (1, 3, 8, 9, 16)


@pytest.fixture(scope="module")
def whole(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    runner = make(tiny, tmp_path_factory.mktemp("whole"), Overflowing(OVERFLOWS))
    runner.train()
    return runner


@needs_scaler
@pytest.mark.parametrize("stop", [2, 9, 17])
def test_taken_up_in_fp16_with_overflows_it_ends_in_the_same_weights(
    tiny: ModuleType, tmp_path: Path, whole: Any, stop: int
) -> None:
    cut = make(tiny, tmp_path / "cut", Overflowing(OVERFLOWS, stop))
    with pytest.raises(RuntimeError, match="power cut"):
        cut.train()
    cut._open.lock.release()  # what the end of the process does
    rest = tuple(step - stop + 1 for step in OVERFLOWS if step >= stop)
    again = make(tiny, tmp_path / "cut", Overflowing(rest), resume="auto")
    again.train()
    assert again.output_dir == cut.output_dir
    assert rates_of(again) == rates_of(whole)
    assert again.scaler.state_dict() == whole.scaler.state_dict()
    expected, _ = read_checkpoint(Path(whole.output_dir) / "checkpoint_last.safetensors")
    found, _ = read_checkpoint(Path(again.output_dir) / "checkpoint_last.safetensors")
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@needs_scaler
def test_clipping_sees_unscaled_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision = Precision("fp16", CPU)
    precision.backward((weight * torch.tensor([3.0, 0.0, 4.0])).sum())
    scaled = copy.deepcopy(weight.grad)
    precision.unscale(optimizer)
    assert scaled is not None
    assert float(scaled.norm()) == 65536 * 5
    assert weight.grad is not None
    assert float(torch.nn.utils.clip_grad_norm_([weight], 0.5)) == pytest.approx(5.0)
    assert precision.step(optimizer)
    assert weight.tolist() == pytest.approx([1 - 0.3, 1.0, 1 - 0.4], rel=1e-5)


def test_fp16_without_a_scaler_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision_module, "make_scaler", lambda _: None)
    precision = Precision("fp16", CPU)
    assert (precision.amp, precision.scaler) == ("off", None)
    assert "this run on cpu uses fp32" in caplog.text


@needs_scaler
def test_fp16_on_a_cpu_without_its_units_is_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for there in (True, False):
        monkeypatch.setattr(precision_module, "has_units", lambda _, there=there: there)
        assert Precision("fp16", CPU).amp == "fp16"
        assert ("expect it to be much slower" in caplog.text) is not there


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_on_a_gpu(amp: str) -> None:
    device = torch.device("cuda")
    precision = Precision(amp, device)
    with precision.autocast():
        product = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert product.dtype == precision_module.DTYPES[amp]
    assert (precision.scaler is not None) == (amp == "fp16")
