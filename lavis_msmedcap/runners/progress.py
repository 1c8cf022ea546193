"""Progress for people: a bar on a terminal, plain lines elsewhere, nothing on other ranks."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

logger = logging.getLogger(__name__)

BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}{postfix}"
RATE_WINDOW = 100
LINE_EVERY_SECONDS = 30.0


class Pace:
    """Images per second and time left, from the durations of the latest steps.

    Only what is handed in counts, so that validation between two epochs does not slow the
    estimate.

    Args:
        total: Number of steps.
        done: Steps that an earlier process did.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total = total
        self.done = done
        self._latest: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)

    def add(self, seconds: float, images: int) -> None:
        """Counts a step."""
        self.done += 1
        self._latest.append((seconds, images))

    @property
    def images_per_second(self) -> float:
        """Images of all processes per second, over the latest steps."""
        seconds = sum(duration for duration, _ in self._latest)
        return sum(images for _, images in self._latest) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """Estimate for the steps that remain."""
        if not self._latest:
            return 0.0
        mean = sum(duration for duration, _ in self._latest) / len(self._latest)
        return mean * max(self.total - self.done, 0)


def clock(seconds: float) -> str:
    """Writes a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Bar:
    """A progress bar on a terminal; elsewhere it shows nothing and `shown` is False.

    Args:
        total: Number of steps.
        label: What is going on.
        visible: False on ranks that keep quiet.
        stream: Where the bar goes.
        keep: Leave the finished bar on the screen.
        done: Steps that an earlier process did.
    """

    def __init__(
        self,
        total: int,
        label: str,
        *,
        visible: bool,
        stream: TextIO | None = None,
        keep: bool = True,
        done: int = 0,
    ) -> None:
        stream = sys.stderr if stream is None else stream
        self.shown = visible and can_show_bar(stream)
        self._bar: Any = None
        if self.shown:
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=label,
                file=stream,
                leave=keep,
                dynamic_ncols=True,
                bar_format=BAR_FORMAT,
            )

    def advance(self, note: str, label: str | None = None) -> None:
        """Moves on by one step and shows a note behind the bar."""
        if self._bar is None:
            return
        if label is not None:
            self._bar.set_description_str(label, refresh=False)
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


def can_show_bar(stream: TextIO) -> bool:
    """Tells whether a stream is a terminal that a bar fits on.

    A pseudo-terminal without a size (a container that nobody looks at) has 0 rows; a bar would not
    show there, and lines must take its place.
    """
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).lines > 1
    except (OSError, ValueError):
        return True


class Tracked:
    """Batches of an evaluation that report their progress while they are read.

    Args:
        batches: A loader with a length.
        label: For example ``evaluating val``.
        visible: False on ranks that keep quiet.
        size: Returns the number of images of a batch.
    """

    def __init__(
        self,
        batches: Any,
        label: str,
        *,
        visible: bool,
        size: Callable[[Any], int] = lambda samples: len(samples["image"]),
    ) -> None:
        self._batches = batches
        self._label = label
        self._visible = visible
        self._size = size

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        total = len(self)
        pace = Pace(total)
        bar = Bar(total, self._label, visible=self._visible, keep=False)
        started = spoken = time.perf_counter()
        try:
            for samples in self._batches:
                yield samples
                now = time.perf_counter()
                pace.add(now - started, self._size(samples))
                started = now
                bar.advance(pace_note(pace))
                if self._visible and not bar.shown and now - spoken > LINE_EVERY_SECONDS:
                    spoken = now
                    logger.info("%s: %d/%d, %s", self._label, pace.done, total, pace_note(pace))
        finally:
            bar.close()


def pace_note(pace: Pace) -> str:
    """Says how fast it goes and how long it will take."""
    return f"{pace.images_per_second:.1f} images/s, {clock(pace.seconds_left)} left"
