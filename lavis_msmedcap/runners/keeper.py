"""When the state of a training is written, and what is written with it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

import torch
from torch import nn

from lavis_msmedcap.common.distributed import barrier, gather_objects, is_main_process
from lavis_msmedcap.common.errors import Preempted
from lavis_msmedcap.runners.data_summary import DataBook
from lavis_msmedcap.runners.ema import WeightAverage
from lavis_msmedcap.runners.stopping import StopRequest
from lavis_msmedcap.runners.training_loop import CONTINUE, SAVE, STOP
from lavis_msmedcap.runners.training_state import Progress, StateError, StateStore

logger = logging.getLogger(__name__)


class Keeper:
    """Keeps the states of one run; the main process writes, all ranks read.

    A state is written at the end of every epoch, every few minutes, and when somebody asks the
    training to stop.

    Args:
        store: Where the states are.
        model: Model without a DDP wrapper.
        optimizer: Its optimizer.
        identity: What must be the same when a state is taken up, see `StateStore`.
        request: Whether somebody has asked to stop.
        minutes: Time between two states within an epoch; 0 writes none there.
        book: Knows which images were skipped.
        average: The average of the weights, where one is kept.
    """

    def __init__(
        self,
        store: StateStore,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, str],
        request: StopRequest,
        minutes: float,
        book: DataBook,
        average: WeightAverage | None = None,
    ) -> None:
        self._store = store
        self._model = model
        self._optimizer = optimizer
        self._identity = dict(identity)
        self._request = request
        self._book = book
        self._seconds = 60 * minutes
        self._average = average
        self._last = time.monotonic()

    def load(self) -> Progress:
        """Puts the newest readable state into model and optimizer; without one, nothing.

        Raises:
            StateError: On every rank, if there are states but none fits, or not all ranks find the
                same one.
        """
        progress, problem = Progress(), None
        try:
            found = self._store.load(self._model, self._optimizer, self._identity, self._average)
            progress = found or progress
        except StateError as error:
            problem = error
        told = gather_objects([(str(progress), problem)])
        for _, problem in told:
            if problem is not None:
                raise problem
        if len({where for where, _ in told}) > 1:
            where = ", ".join(f"{text} on rank {rank}" for rank, (text, _) in enumerate(told))
            raise StateError(
                f"the processes find different states in {self._store.folder}: {where}; all of "
                "them must see the same folder"
            )
        self._book.restore(progress.skipped_images)
        self._last = time.monotonic()
        return progress

    def wish(self) -> int:
        """Returns what this process wants after a step."""
        if self._request.asked():
            return STOP
        # one clock decides for all ranks
        due = 0 < self._seconds <= time.monotonic() - self._last
        return SAVE if due and is_main_process() else CONTINUE

    def save(self, progress: Progress) -> None:
        """Writes the state.

        Raises:
            StorageError: On the main process, if the disk is full; the states before it are kept.
        """
        progress = replace(progress, skipped_images=self._book.skipped())
        if is_main_process():
            path = self._store.save(
                self._model, self._optimizer, progress, self._identity, self._average
            )
            logger.info("state written: %s, %s", path.name, progress)
        barrier()
        self._last = time.monotonic()

    def stop(self) -> NoReturn:
        """Leaves the training, on the ranks that nobody has asked too.

        Raises:
            KeyboardInterrupt: After Ctrl-C in this process.
            Preempted: Else.
        """
        self._request.leave()
        raise Preempted

    def clear(self) -> None:
        """Removes the states of a run that is finished."""
        if is_main_process():
            for path in self._store.paths():
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else's file, or one of a network drive
                self._store.folder.rmdir()
