from __future__ import annotations

import csv
import io
import logging
import os
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lavis_msmedcap.runners import progress
from lavis_msmedcap.runners.event_files import EventFiles
from lavis_msmedcap.runners.loss_meter import Sums
from lavis_msmedcap.runners.progress import Bar, Pace, Tracked, clock
from lavis_msmedcap.runners.reporter import COLUMNS, TrainingReporter
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_log import RunLog, backlog
from lavis_msmedcap.runners.trackers import Trackers
from lavis_msmedcap.runners.training_loop import StepReport


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_pace_is_of_the_latest_steps():
    pace = Pace(total=210)
    for _ in range(10):
        pace.add(seconds=9.0, images=1)  # a slow start
    for _ in range(100):
        pace.add(seconds=0.5, images=8)
    assert pace.images_per_second == pytest.approx(16.0)
    assert pace.seconds_left == pytest.approx(50.0)


def test_pace_before_the_first_step():
    pace = Pace(total=3)
    assert (pace.images_per_second, pace.seconds_left) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05")]
)
def test_clock(seconds: float, text: str):
    assert clock(seconds) == text


def test_a_bar_shows_on_a_terminal_only():
    terminal, file = Terminal(), io.StringIO()
    for stream, shown in ((terminal, True), (file, False)):
        bar = Bar(2, "training", visible=True, stream=stream)
        bar.advance("8.0 images/s, 0:05 left, loss 1.5", "epoch 1/2")
        bar.close()
        assert bar.shown == shown
    assert "epoch 1/2:  50%" in terminal.getvalue()
    assert "0:05 left, loss 1.5" in terminal.getvalue()
    assert file.getvalue() == ""
    assert not Bar(2, "training", visible=False, stream=terminal).shown


@pytest.mark.parametrize(("lines", "shown"), [(40, True), (0, False)])
def test_a_terminal_without_rows_gets_lines(
    monkeypatch: pytest.MonkeyPatch, lines: int, shown: bool
):
    class Sized(Terminal):
        def fileno(self) -> int:
            return 2

    monkeypatch.setattr(progress.os, "get_terminal_size", lambda _: os.terminal_size((80, lines)))
    assert progress.can_show_bar(Sized()) == shown


def test_tracked_batches_speak_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    batches = [{"image": torch.zeros(2, 1)}] * 3
    with caplog.at_level(logging.INFO, "lavis_msmedcap"):
        tracked = Tracked(batches, "evaluating val", visible=True)
        assert len(tracked) == 3
        assert list(tracked) == batches
        list(Tracked(batches, "hidden", visible=False))
    assert [r.message.split(",")[0] for r in caplog.records] == [
        f"evaluating val: {i}/3" for i in (1, 2, 3)
    ]


def test_the_log_file_lasts_as_long_as_the_run(tmp_path: Path):
    package = logging.getLogger("lavis_msmedcap")
    before = (list(logging.getLogger().handlers), package.level)
    log = RunLog(tmp_path / "log.txt", visible=True)
    log.file_only("too early")
    with log.attached():
        package.info("inside %d", 1)
        with log.attached():  # evaluate() within train()
            package.info("deeper")
        package.info("still inside")
        log.file_only("for the file")
    package.warning("outside")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split("] ")[-1] for line in lines] == [
        "inside 1",
        "deeper",
        "still inside",
        "for the file",
    ]
    assert (list(logging.getLogger().handlers), package.level) == before


def test_what_is_logged_before_the_run_has_a_directory_is_kept(tmp_path: Path):
    package = logging.getLogger("lavis_msmedcap")
    before = list(logging.getLogger().handlers)
    log = RunLog(tmp_path / "log.txt", visible=True)
    with backlog():
        package.warning("early")
        with log.attached():
            package.warning("inside")
        package.warning("outside")
        with log.attached():
            package.warning("inside again")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split("] ")[-1] for line in lines] == ["early", "inside", "inside again"]
    with backlog():
        package.warning("for nobody")
    assert list(logging.getLogger().handlers) == before


def test_other_ranks_write_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    log = RunLog(tmp_path / "log.txt", visible=False)
    with log.attached():
        logging.getLogger("lavis_msmedcap.runners").info("quiet")
        log.file_only("quiet")
    assert not (tmp_path / "log.txt").exists()
    assert caplog.text == ""
    directory = RunDirectory(tmp_path)
    reporter = TrainingReporter(directory, log, 1, 1, Trackers(), visible=False)
    report = StepReport(0, 1, 0.1, 1.0, 2.0, 4, 0.5)
    reporter.on_step(report)
    reporter.on_log(report, Sums({"loss": (8.0, 4.0)}))
    assert list(tmp_path.iterdir()) == []


def test_another_rank_writes_its_warnings_and_its_traceback(tmp_path: Path):
    package = logging.getLogger("lavis_msmedcap")
    before = (list(logging.getLogger().handlers), package.level)
    path = RunDirectory(tmp_path).log(3)
    log = RunLog(path, visible=False)
    with backlog():
        package.warning("early")
        package.info("quiet")
        with log.attached():
            package.info("quiet")
            log.file_only("quiet")
            logging.getLogger("lavis_msmedcap.imaging").warning("odd image")
            log.file_only("Traceback", logging.ERROR)
    lines = path.read_text().splitlines()
    assert [line.partition(" [")[2] for line in lines] == [
        "WARNING] early",
        "WARNING] odd image",
        "ERROR] Traceback",
    ]
    assert path.name == "log-rank3.txt"
    assert (list(logging.getLogger().handlers), package.level) == before


def test_gauges_are_as_they_are_when_a_row_is_written(tmp_path: Path):
    log = RunLog(tmp_path / "log.txt", visible=True)
    temperature = iter([0.07, 0.06875])
    trackers = Trackers(EventFiles(tmp_path / "tensorboard"))
    reporter = TrainingReporter(
        RunDirectory(tmp_path),
        log,
        total_steps=2,
        max_epoch=1,
        trackers=trackers,
        visible=True,
        gauges=lambda: {"sam/temp": next(temperature)},
    )
    with log.attached():
        for step in (1, 2):
            reporter.on_step(StepReport(0, step, 0.1, 1.0, 2.0, 4, 0.5))
            reporter.on_log(StepReport(0, step, 0.1, 1.0, 2.0, 4, 0.5), Sums({"loss": (8.0, 4.0)}))
    reporter.close()
    trackers.close()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["sam/temp"] for row in csv.DictReader(file)] == ["0.07", "0.06875"]
    assert "loss 2.0000, sam/temp 0.0688, lr 0.1" in (tmp_path / "log.txt").read_text()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/sam/temp")] == [1, 2]


def test_a_row_means_over_its_steps(tmp_path: Path):
    log = RunLog(tmp_path / "log.txt", visible=True)
    reporter = TrainingReporter(RunDirectory(tmp_path), log, 4, 2, Trackers(), visible=True)
    reporter.on_step(StepReport(0, 1, 0.1, 1.0, 2.0, 4, 0.5))
    reporter.on_step(StepReport(0, 2, 0.2, float("inf"), 2.0, 4, 1.5, 0.5))
    with log.attached():
        reporter.on_log(StepReport(0, 2, 0.2, 3.0, 2.0, 4, 1.5), Sums({"loss": (16.0, 8.0)}))
    reporter.close()
    header, row = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header.split(",") == list(COLUMNS)
    cells = row.split(",")
    assert cells[:8] + cells[9:] == ["1", "2", "8", "0.2", "1", "4", "2", "0.25", "2"]
    assert 0.05 < float(cells[8]) < 64  # GiB of the process that runs the tests
    assert (
        "epoch 1/2, step 2/4: loss 2.0000, lr 0.2, 4.0 images/s, 0:02 left"
        in (tmp_path / "log.txt").read_text()
    )
