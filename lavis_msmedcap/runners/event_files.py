"""TensorBoard event files of a run: everything in the CSV tables, for people who like curves."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from lavis_msmedcap.common.whole_files import disk_errors


class EventFiles:
    """Writes numbers for TensorBoard (``tensorboard --logdir output``).

    Names: ``train/<column>`` and ``<split>/<metric>``, the step being the optimizer step.

    Args:
        folder: Folder of the event files.
        done: Optimizer steps of an interrupted run; TensorBoard forgets what that wrote later.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        # the first process of a run has nothing to purge
        purge = done + 1 if folder.is_dir() else None
        self._folder = folder
        with disk_errors(folder):
            self._writer = SummaryWriter(str(folder), purge_step=purge)

    def write(self, group: str, step: int, numbers: Mapping[str, object]) -> None:
        """Writes the finite numbers of a row.

        Raises:
            StorageError: If the disk is full.
        """
        with disk_errors(self._folder):
            for name, value in finite_numbers(numbers).items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
            self._writer.flush()

    def close(self, complete: bool = True) -> None:  # noqa: ARG002 - the files do not tell
        """Closes the files."""
        with contextlib.suppress(OSError):  # each row was flushed; a full disk has been told
            self._writer.close()


def finite_numbers(row: Mapping[str, object]) -> dict[str, float]:
    """Returns what of a row is a finite number."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
