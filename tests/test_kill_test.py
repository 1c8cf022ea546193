"""The comparison of ``tools/kill_test.py`` must see what a kill may have lost."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lavis_msmedcap.models.checkpoints import CHECKPOINT_NAMES, save_checkpoint
from lavis_msmedcap.runners.run_status import RunStatus

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(scope="module")
def files() -> Iterator[ModuleType]:
    """The module that reads what a training has left."""
    sys.path.insert(0, str(TOOLS))
    try:
        yield importlib.import_module("killing.run_files")
    finally:
        sys.path.remove(str(TOOLS))


def finished_run(root: Path, weight: float = 1.0, loss: str = "2.5") -> Path:
    root.mkdir(parents=True)
    for name in CHECKPOINT_NAMES:
        save_checkpoint(root / name, {"w": torch.tensor([weight])}, {"arch": "msmedcap"})
    for name in ("metrics.csv", "validation.csv"):
        (root / name).write_text(f"step,loss,seconds\n1,{loss},{weight}\n")
    RunStatus("1", finished=True).write(root)
    return root


def test_equal_runs(files: ModuleType, tmp_path: Path) -> None:
    whole = finished_run(tmp_path / "whole" / "run")
    finished_run(tmp_path / "killed" / "run")
    assert files.differences(whole, tmp_path / "killed") == []


def test_another_weight(files: ModuleType, tmp_path: Path) -> None:
    whole = finished_run(tmp_path / "whole" / "run")
    finished_run(tmp_path / "killed" / "run", weight=1.0 + 2**-23)  # the next float32
    assert files.differences(whole, tmp_path / "killed") == [
        f"{name} differs" for name in CHECKPOINT_NAMES
    ]


def test_another_loss(files: ModuleType, tmp_path: Path) -> None:
    whole = finished_run(tmp_path / "whole" / "run")
    finished_run(tmp_path / "killed" / "run", loss="2.6")
    found = files.differences(whole, tmp_path / "killed")
    assert found == ["metrics.csv differs", "validation.csv differs"]


def test_a_run_that_was_not_taken_up(files: ModuleType, tmp_path: Path) -> None:
    whole = finished_run(tmp_path / "whole" / "run")
    finished_run(tmp_path / "killed" / "run")
    (tmp_path / "killed" / "other" / "resume").mkdir(parents=True)
    assert files.differences(whole, tmp_path / "killed") == ["other was not taken up"]
    (tmp_path / "killed" / "run" / "status.json").unlink()
    [told] = files.differences(whole, tmp_path / "killed")
    assert told.startswith("0 finished runs")
