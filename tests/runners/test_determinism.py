"""`run.deterministic`: what it switches, that it is switched back, and what CUDA needs before."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.runners.determinism import WORKSPACE, determinism, settle_cublas
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


def switches() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        cudnn.deterministic,
        cudnn.benchmark,
        cudnn.allow_tf32,
    )


STRICT = (True, False, "highest", True, False, False)


class Watching(MixedSemanticPretrainTask):
    """Keeps the switches that it sees in training and in validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[Any, ...]] = set()

    def train_step(self, model: Any, samples: Any) -> Any:
        self.seen.add(switches())
        return super().train_step(model, samples)

    def valid_step(self, model: Any, samples: Any) -> Any:
        self.seen.add(switches())
        return super().valid_step(model, samples)


def test_two_runs_give_the_same_bits_and_leave_torch_as_it_was(
    tiny: ModuleType, tmp_path: Path
) -> None:
    torch.set_float32_matmul_precision("high")
    before = switches()
    assert before != STRICT
    weights = []
    try:
        for name in ("one", "two"):
            task = Watching()
            runner = tiny.make_runner(tmp_path / name, task, deterministic=True, amp="bf16")
            runner.train()
            assert task.seen == {STRICT}
            assert switches() == before
            path = Path(runner.output_dir) / "checkpoint_last.safetensors"
            weights.append(read_checkpoint(path)[0])
            assert ", deterministic" in (Path(runner.output_dir) / "log.txt").read_text()
    finally:
        torch.set_float32_matmul_precision("highest")
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_an_operation_without_a_deterministic_algorithm_is_refused() -> None:
    def scatter() -> None:
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))

    before = switches()
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic"), determinism(True):
        scatter()
    assert switches() == before
    with determinism(False):
        assert switches() == before
        scatter()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with CUDA that has not started yet."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setenv(WORKSPACE, "")  # so that the end of the test removes it
    monkeypatch.delenv(WORKSPACE)
    return monkeypatch


def test_cublas_is_settled_before_cuda_starts(cuda: pytest.MonkeyPatch) -> None:
    settle_cublas()
    assert os.environ[WORKSPACE] == ":4096:8"
    cuda.setattr(torch.cuda, "is_initialized", lambda: True)
    settle_cublas()  # a second run in the process


def test_too_late_or_a_wrong_value_is_told(cuda: pytest.MonkeyPatch) -> None:
    cuda.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match="CUDA has started in this process without CUBLAS"):
        settle_cublas()
    cuda.setenv(WORKSPACE, ":0:0")
    with pytest.raises(ConfigError, match="is ':0:0', which is not deterministic; set CUBLAS"):
        settle_cublas()
    cuda.setenv(WORKSPACE, ":16:8")
    settle_cublas()


def test_nothing_is_set_on_a_machine_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(WORKSPACE, raising=False)
    settle_cublas()
    assert WORKSPACE not in os.environ
