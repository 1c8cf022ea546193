"""What a training run tells: the bar or lines, ``metrics.csv`` and ``log.txt``."""

from __future__ import annotations

import logging
import math
import resource
import sys
from collections.abc import Callable, Mapping

import torch

from lavis_msmedcap.runners.loss_meter import TOTAL, Sums
from lavis_msmedcap.runners.progress import Bar, Pace, pace_note
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_log import RunLog
from lavis_msmedcap.runners.tables import CsvTable
from lavis_msmedcap.runners.trackers import Tracker
from lavis_msmedcap.runners.training_loop import StepReport
from lavis_msmedcap.runners.training_state import Progress

logger = logging.getLogger(__name__)

COLUMNS = (
    "epoch",
    "step",
    "images_seen",
    "lr",
    "grad_norm",
    "images_per_second",
    "seconds",
    "data_wait",
    "memory_gib",
    TOTAL,
)


class TrainingReporter:
    """Hears of every step of a training run; only the main process writes.

    Columns of ``metrics.csv``: epoch (from 1), step (optimizer steps so far), images_seen (all
    processes), lr (of the last step), grad_norm (mean before clipping since the last row),
    images_per_second and seconds (since the last row), data_wait (share of the seconds in which the
    device waited for data), memory_gib (peak of this process so far: of the GPU where there is one,
    else of main memory), and the means of all losses since the last
    row: ``loss``, ``<branch>/<objective>`` and ``<dataset>/<branch>/<objective>``; and the gauges,
    as they are when the row is written.

    Args:
        directory: Where ``metrics.csv`` is.
        log: The run's log.
        total_steps: Optimizer steps of the whole training.
        max_epoch: Number of epochs.
        trackers: Get the rows too.
        visible: True on the main process.
        start: Where the training goes on.
        gauges: Returns numbers of the model by name, for example the temperature of each branch.
    """

    def __init__(
        self,
        directory: RunDirectory,
        log: RunLog,
        total_steps: int,
        max_epoch: int,
        trackers: Tracker,
        visible: bool,
        start: Progress | None = None,
        gauges: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._gauges = gauges
        start = Progress() if start is None else start
        self._table = CsvTable(directory.metrics, COLUMNS)
        if visible and start.step:
            self._table.cut(lambda row: int(row["step"]) <= start.step)
        self._trackers = trackers
        self._log = log
        self._max_epoch = max_epoch
        self._visible = visible
        self._pace = Pace(total_steps, start.step)
        self._bar = Bar(total_steps, "training", visible=visible, done=start.step)
        self._images_seen = start.images_seen
        self._seconds = 0.0
        self._waited = 0.0
        self._norms: list[float] = []
        self._parts = ""

    def on_step(self, report: StepReport) -> None:
        """Moves the bar on."""
        self._pace.add(report.seconds, report.images)
        self._seconds += report.seconds
        self._waited += report.waited
        if math.isfinite(report.grad_norm):
            self._norms.append(report.grad_norm)
        self._bar.advance(
            f"{pace_note(self._pace)}, loss {report.loss:.3f}{self._parts}",
            f"epoch {report.epoch + 1}/{self._max_epoch}",
        )

    def on_log(self, report: StepReport, sums: Sums) -> None:
        """Writes a row and a line."""
        means = sums.means()
        self._images_seen += sums.samples
        seconds, waited, norms = self._seconds, self._waited, self._norms
        self._seconds, self._waited, self._norms = 0.0, 0.0, []
        if not self._visible:
            return
        gauges = self._gauges()
        row = {
            "epoch": report.epoch + 1,
            "step": report.step,
            "images_seen": self._images_seen,
            "lr": report.lr,
            "grad_norm": sum(norms) / len(norms) if norms else None,
            "images_per_second": sums.samples / seconds if seconds > 0 else None,
            "seconds": seconds,
            "data_wait": waited / seconds if seconds > 0 else None,
            "memory_gib": memory_gib(),
            **means,
            **gauges,
        }
        self._table.append(row)
        tracked = {name: value for name, value in row.items() if name != "step"}
        self._trackers.write("train", report.step, tracked)
        shown = {name: mean for name, mean in means.items() if name.count("/") < 2}
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in {**shown, **gauges}.items())
        self._parts = "".join(f", {k} {v:.3f}" for k, v in shown.items() if k != TOTAL)
        line = (
            f"epoch {report.epoch + 1}/{self._max_epoch}, step {report.step}/{self._pace.total}: "
            f"{numbers}, lr {report.lr:.3g}, {pace_note(self._pace)}"
        )
        if self._bar.shown:
            self._log.file_only(line)
        else:
            logger.info("%s", line)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def memory_gib() -> float:
    """Returns the peak memory of this process in GiB: of the GPU, or else of main memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_reserved() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
