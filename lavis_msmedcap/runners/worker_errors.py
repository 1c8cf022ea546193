"""A loader whose worker processes tell our own errors as the main process would tell them.

torch sends the traceback of a worker as text and raises the error's class with that text, or
RuntimeError where the class takes other arguments. Here one of our own errors travels to the main
process in the place of its batch, and is raised there as it was. Every other error is a mistake in
code: torch's way, with the traceback, is right for it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, get_worker_info

from lavis_msmedcap.common.errors import MSMedCapError

Batch = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """Stands where a sample or a batch should be.

    Attributes:
        error: What was raised.
        trace: Where in the worker, as text: a traceback does not pass between processes.
    """

    error: MSMedCapError
    trace: str


class WorkerTraceback(Exception):  # noqa: N818 - a place, shown as the cause of an error
    """The traceback of an error that came from a worker process."""

    def __str__(self) -> str:
        """Returns the traceback, which begins on a line of its own."""
        return f"\n{self.args[0]}"


class PlainErrorLoader(DataLoader[Batch]):
    """A ``DataLoader`` that raises our own errors in the main process, whichever process met them.

    Args:
        dataset: Samples by index.
        collate_fn: Samples to a batch.
        options: The other arguments of ``DataLoader``.
    """

    def __init__(
        self, dataset: Dataset[Batch], collate_fn: Callable[[list[Batch]], Batch], **options: Any
    ) -> None:
        super().__init__(
            _Samples(dataset),
            collate_fn=_Collation(collate_fn),
            worker_init_fn=outlive_signals,
            **options,
        )
        if self.num_workers:
            # before the hook of multiprocessing, which waits for the workers without an end
            atexit.unregister(_kill_workers)
            atexit.register(_kill_workers)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yields batches.

        Raises:
            MSMedCapError: What reading or collating a sample raised.
        """
        for batch in super().__iter__():
            if isinstance(batch, Failure):
                raise batch.error from WorkerTraceback(batch.trace)
            yield batch


def outlive_signals(_worker: int) -> None:
    """Lets a worker process go on when all processes are asked to end.

    Ctrl-C, torchrun and Slurm signal workers too. The main process still needs them then, for as
    long as its step takes, and ends them itself; if it dies, torch's workers notice within seconds.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def _kill_workers() -> None:
    """Ends the workers that are left at the end of the main process, busy with a file or not."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would call it a crash
    for process in multiprocessing.active_children():
        if process.daemon:  # as torch makes them
            process.kill()


class Ahead:
    """Batches, of which the next ones can be fetched before they are needed.

    Args:
        batches: What is iterated over, once.

    Attributes:
        error: One of our own errors, which a batch to come has raised.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)
        self._next: deque[Batch] = deque()
        self._ended = False
        self.error: MSMedCapError | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches before the first one that raises one of our own errors."""
        self.look()
        while self._next:
            yield self._next.popleft()
            self.look()

    def look(self, count: int = 1) -> None:
        """Fetches the next batches, as far as that has not been done and there are any."""
        while len(self._next) < count and not self._ended:
            try:
                self._next.append(next(self._batches))
            except StopIteration:
                self._ended = True
            except MSMedCapError as error:
                self.error, self._ended = error, True


class _Samples(Dataset[Any]):
    def __init__(self, dataset: Dataset[Batch]) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Batch | Failure:
        return _caught(self._dataset.__getitem__, index)


class _Collation:
    def __init__(self, collate: Callable[[list[Batch]], Batch]) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[Any]) -> Batch | Failure:
        for sample in samples:
            if isinstance(sample, Failure):
                return sample
        return _caught(self._collate, list(samples))


def _caught(action: Callable[[Any], Batch], argument: Any) -> Batch | Failure:
    """Calls a function; in a worker process, one of our own errors is returned instead."""
    try:
        return action(argument)
    except MSMedCapError as error:
        if get_worker_info() is None:
            raise
        return Failure(error, traceback.format_exc())
