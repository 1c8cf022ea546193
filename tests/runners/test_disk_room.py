"""Room for checkpoints and states: the sum, what a run really takes, and a disk with too little."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners import disk_room
from lavis_msmedcap.runners.disk_room import disk_bytes
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


def test_the_sum() -> None:
    """A checkpoint holds the trainable values, a state three times as much."""
    # last and the one under way; three states of weights and two moments
    assert disk_bytes(4000, 1000, RunSettings()) == 2 * 4000 + 3 * 12000
    settings = RunSettings(valid_splits=("val",), keep_last=1, keep_best=2, ema_decay=0.999)
    assert disk_bytes(4000, 1000, settings) == 4 * 4000 + 2 * (12000 + 4000)


def limited(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(disk_room.shutil, "disk_usage", lambda _: usage._replace(free=free))


def test_too_little_is_told_before_the_first_step(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 100)
    runner = tiny.make_runner(tmp_path, MixedSemanticPretrainTask())
    with pytest.raises(ConfigError, match=r"run\.output_dir: .* take up to .*run\.keep_last=1"):
        runner.train()
    root = Path(runner.output_dir)
    assert not list(root.rglob("*.safetensors"))
    assert not (root / "metrics.csv").exists()


class Ends(MixedSemanticPretrainTask):
    """Ends in its third epoch, with a tenth of a kilobyte left on the disk."""

    left = 25

    def train_step(self, model: Any, samples: Any) -> Any:
        self.left -= 1
        if not self.left:
            raise RuntimeError("the end")
        return super().train_step(model, samples)


def test_what_a_run_has_written_already_is_part_of_it(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = tiny.make_runner(tmp_path, Ends())
    with pytest.raises(RuntimeError, match="the end"):
        runner.train()
    runner._open.lock.release()
    limited(monkeypatch, 100)
    again = tiny.make_runner(tmp_path, MixedSemanticPretrainTask(), resume="auto")
    again.train()
    assert Path(again.output_dir) == Path(runner.output_dir)
