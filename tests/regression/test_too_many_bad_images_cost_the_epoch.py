"""The ceiling of unreadable images was checked before the finished epoch was saved."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import load_module

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.models.checkpoints import read_notes
from lavis_msmedcap.runners.training_state import StateStore, read_state
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    return load_module(Path(__file__).parents[1] / "runners" / "tiny.py")


def test_checkpoint_and_state_are_written_first(tiny: ModuleType, tmp_path: Path) -> None:
    runner = tiny.make_runner(tmp_path, MixedSemanticPretrainTask(), save_every_minutes=0)

    def too_many(*_: Any) -> None:
        raise DataError("too many images cannot be read")

    # as if the other processes had met them
    runner._book._skipped.exchange = too_many
    with pytest.raises(DataError, match="too many") as told:
        runner.train()
    root = Path(runner.output_dir)
    assert read_notes(root / "checkpoint_last.safetensors")["epoch"] == "1"
    newest = StateStore(root / "resume").paths()[0]
    assert read_state(newest)[1].epoch == 1
    assert f"last good state: resume/{newest.name}" in told.value.left
