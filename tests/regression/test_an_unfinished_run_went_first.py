"""A folder of runs gave the newest one, although it had been stopped, before a finished older one.

Stage 2 was then trained, or a captioner evaluated, on a few epochs of a run that had failed.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap import cli
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import find_checkpoint, save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.runners.run_status import RunStatus

OLD, NEW = "20260101-000000-aaaaaa", "20260102-000000-bbbbbb"
LAST = "checkpoint_last.safetensors"


@pytest.fixture
def runs(stage1_settings: dict[str, Any], tmp_path: Path) -> Path:
    """Two runs of stage 1, the newer one stopped."""
    for name in (OLD, NEW):
        model = Blip2DualQformer.from_config(stage1_settings)
        (tmp_path / name).mkdir()
        save_checkpoint(
            tmp_path / name / LAST, model.trainable_state_dict(), model.checkpoint_metadata()
        )
        RunStatus(finished=name == OLD).write(tmp_path / name)
    return tmp_path


def test_a_finished_run_goes_first(runs: Path) -> None:
    told: list[str] = []
    assert find_checkpoint(runs, told.append) == runs / OLD / LAST
    (sentence,) = told
    assert f"{NEW}, is not finished; to take that one, name its directory" in sentence
    told.clear()
    assert find_checkpoint(runs / NEW, told.append) == runs / NEW / LAST
    RunStatus(finished=True).write(runs / NEW)
    assert find_checkpoint(runs, told.append) == runs / NEW / LAST
    assert told == []


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"finished": null}'])
def test_a_run_that_says_nothing_is_taken_as_before(runs: Path, content: str | None) -> None:
    (runs / NEW / "status.json").unlink()
    if content is not None:
        (runs / NEW / "status.json").write_text(content)
    told: list[str] = []
    assert find_checkpoint(runs, told.append) == runs / NEW / LAST
    assert told == []


def test_the_log_names_what_was_taken(
    runs: Path,
    stage2_settings: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.WARNING):
        MSMedCap.from_config({**stage2_settings, "stage1": str(runs)})
    assert f"{runs / OLD / LAST} is taken" in caplog.text
    RunStatus(finished=False).write(runs / OLD)
    MSMedCap.from_config({**stage2_settings, "stage1": str(runs)})
    assert f"{runs / NEW / LAST} is of a run that is not finished, and no other run" in caplog.text
    capsys.readouterr()
    target = runs / "authors.pth"
    words = ["convert-checkpoint", str(runs), str(target), "--to", "authors", "--branch", "sam"]
    assert cli.main(words) == 0
    assert "is of a run that is not finished" in capsys.readouterr().out
