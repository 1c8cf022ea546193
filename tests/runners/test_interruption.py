"""Ctrl-C in a run: a real SIGINT, and what is said about the run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from torch import nn

from lavis_msmedcap import train
from lavis_msmedcap.runners.interruption import describe_interruption
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


class Interrupted(MixedSemanticPretrainTask):
    """Gets a signal in a training or evaluation step, counted from 1."""

    def __init__(
        self, train_step: int = 0, valid_step: int = 0, number: signal.Signals = signal.SIGINT
    ) -> None:
        super().__init__()
        self.number = number
        self.left = {"train": train_step, "valid": valid_step}

    def _count(self, kind: str) -> None:
        self.left[kind] -= 1
        if self.left[kind] == 0:
            os.kill(os.getpid(), self.number)

    def train_step(self, model: nn.Module, samples: Any) -> Any:
        self._count("train")
        return super().train_step(model, samples)

    def valid_step(self, model: nn.Module, samples: Any) -> Any:
        self._count("valid")
        return super().valid_step(model, samples)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A process that a shell started in the background ignores Ctrl-C, tests included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def make(tiny: ModuleType, tmp_path: Path, task: Any, **run: Any) -> RunnerMSMedCap:
    sections = {
        "model": {"arch": "tiny"},
        "datasets": {"coco": {"domain": "general"}},
        "run": {
            "output_dir": str(tmp_path),
            "max_epoch": 3,
            "batch_size_train": 4,
            "batch_size_eval": 4,
            "init_lr": 0.05,
            "lr_sched": "constant_lr",
            "device": "cpu",
            "valid_splits": ["val"],
            **run,
        },
    }
    whole: Any = OmegaConf.create(sections)
    config = SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )
    data = {split: tiny.TinyDataset("coco", "general", 8, split) for split in ("train", "val")}
    return RunnerMSMedCap(config, task, tiny.TinyModel(), {"coco": data}, "job")


def told(runner: RunnerMSMedCap, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert train.guarded(runner.train) == 130
    lines = capsys.readouterr().err.splitlines()
    return lines[lines.index("interrupted") :]


def test_before_the_first_step(
    tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = make(tiny, tmp_path, Interrupted())
    runner.checkpoints.rehearse = lambda _: os.kill(os.getpid(), signal.SIGINT)  # type: ignore[method-assign]
    assert told(runner, capsys) == [
        "interrupted",
        f"run directory: {runner.output_dir}",
        "Nothing had been saved yet; start it again.",
    ]
    assert "KeyboardInterrupt" in (runner.output_dir / "log.txt").read_text()


def test_a_step_is_finished_first(
    tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = make(tiny, tmp_path, Interrupted(train_step=1))
    assert told(runner, capsys)[1:] == [
        f"run directory: {runner.output_dir}",
        "last good state: resume/step-000000001.safetensors",
        "go on with it: the same command with --options run.resume=auto",
    ]
    assert [path.name for path in runner.directory.states.iterdir()] == [
        "step-000000001.safetensors"
    ]


def test_another_signal_has_a_code_of_its_own(
    tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = make(tiny, tmp_path, Interrupted(train_step=1, number=signal.SIGTERM))
    assert train.guarded(runner.train) == 75
    assert "asked to stop\nrun directory" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("step", [{"train_step": 3}, {"valid_step": 5}])
def test_after_it(
    tiny: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    step: dict[str, int],
) -> None:
    runner = make(tiny, tmp_path, Interrupted(**step))
    root = runner.output_dir
    _, place, state, _, checkpoint, *uses = told(runner, capsys)
    assert place == f"run directory: {root}"
    assert state.startswith("last good state: resume/step-00000000")
    epoch = 1 if "train_step" in step else 3
    assert f"checkpoint_last.safetensors (epoch {epoch}, step {2 * epoch})" in checkpoint
    assert uses == [f"or evaluate it (lavis.evaluate) with model.finetuned={root}"]


def test_in_an_evaluation(
    tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = make(tiny, tmp_path, Interrupted(valid_step=1), evaluate=True)
    assert told(runner, capsys)[1:] == [
        f"run directory: {runner.output_dir}",
        "Splits that had been finished have their results there; start it again.",
    ]


def test_stage_2_starts_from_a_stage_1_run() -> None:
    text = describe_interruption(
        Path("/run"), {"checkpoint_last": "epoch 1, step 4"}, 1, False, "resume/step-4"
    )
    assert "start stage 2 (caption.yaml) from it with model.stage1=/run" in text
    assert "lavis.evaluate" not in text
