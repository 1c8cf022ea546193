from __future__ import annotations

import math
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lavis_msmedcap.runners.event_files import EventFiles


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_numbers_by_step(tmp_path: Path) -> None:
    files = EventFiles(tmp_path / "tb")
    for step in (1, 2):
        files.write("train", step, {"loss": step / 2, "note": "text", "broken": math.nan})
    files.close()
    assert scalars(tmp_path / "tb", "train/loss") == [(1, 0.5), (2, 1.0)]
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss"]


def test_a_run_that_is_taken_up_writes_its_steps_once(tmp_path: Path) -> None:
    files = EventFiles(tmp_path / "tb")
    for step in (1, 2, 3):
        files.write("train", step, {"loss": 9.0})
    files.close()
    again = EventFiles(tmp_path / "tb", done=1)
    for step in (2, 3, 4):
        again.write("train", step, {"loss": float(step)})
    again.close()
    assert scalars(tmp_path / "tb", "train/loss") == [(1, 9.0), (2, 2.0), (3, 3.0), (4, 4.0)]
