"""Somebody asks to stop while the checkpoint of an epoch is written: before its validation."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import load_module

from lavis_msmedcap.common.errors import Interruption
from lavis_msmedcap.runners.run_status import read_status
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    return load_module(Path(__file__).parents[1] / "runners" / "tiny.py")


class Counting(MixedSemanticPretrainTask):
    validated = 0

    def valid_step(self, model: Any, samples: Any) -> Any:
        Counting.validated += 1
        return super().valid_step(model, samples)


@pytest.mark.parametrize("epochs", [1, 2])
def test_it_is_heeded_before_the_validation(tiny: ModuleType, tmp_path: Path, epochs: int) -> None:
    Counting.validated = 0
    runner = tiny.make_runner(tmp_path, Counting(), max_epoch=epochs)
    save_last = runner.checkpoints.save_last

    def asked(*args: Any) -> None:
        save_last(*args)
        os.kill(os.getpid(), signal.SIGTERM)

    runner.checkpoints.save_last = asked
    with pytest.raises(Interruption) as stopped:
        runner.train()
    assert stopped.value.preempted
    assert Counting.validated == 0
    status = read_status(Path(runner.output_dir))
    assert status is None or not status.finished
