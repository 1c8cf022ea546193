"""Looks at every image, in parallel processes, and keeps what was found out for the next time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Callable

from tqdm import tqdm

from lavis_msmedcap.common.errors import DataError, Interruption
from lavis_msmedcap.data_check.cache import FactsCache, Stamp, stamp_of
from lavis_msmedcap.data_check.images import ABSENT, CRASHED, ImageFacts, examine
from lavis_msmedcap.imaging.read import DEFAULTS, ReadOptions

logger = logging.getLogger(__name__)

Found = list[tuple[str, ImageFacts]]
Look = Callable[[Sequence[str]], Found]

_CHUNK = 8  # images per message to a process
_AHEAD = 4  # messages that wait for each process: memory stays flat however many images there are
_SAVE_EVERY = 2.0  # seconds


def scan(
    images: Sequence[str], cache: FactsCache, workers: int = 0, options: ReadOptions = DEFAULTS
) -> dict[str, ImageFacts]:
    """Decodes images fully.

    Args:
        images: Images as in records; one that comes twice is looked at once.
        cache: What is known already, and where to keep what is new.
        workers: Processes; 0 for one per core, 1 for none besides this one.
        options: Windows and limits that images are read with.

    Returns:
        Facts by image.

    Raises:
        DataError: If no process can be started.
        Interruption: On Ctrl-C; what was found out until then is kept.
    """
    stamps = {image: stamp_of(image) for image in dict.fromkeys(images)}
    here = {image: stamp for image, stamp in stamps.items() if stamp is not None}
    facts = cache.lookup(here, options)
    absent = [image for image in stamps if image not in here]
    facts.update(dict.fromkeys(absent, ABSENT))
    left = [image for image in here if image not in facts]
    look = partial(_look, options=options)
    bar = tqdm(total=len(stamps), initial=len(facts), desc="images", unit="", disable=None)
    with bar, _Keeper(cache, here, options) as keeper:
        try:
            for found in _examined(left, min(workers or _cores(), len(left)), look):
                facts.update(found)
                keeper.add(found)
                bar.update(len(found))
        except KeyboardInterrupt:
            done = f"{len(facts):,} of {len(stamps):,} images are done"
            raise Interruption(f"{done}; the same command goes on from there") from None
    return facts


class _Keeper:
    """Hands findings to the cache every few seconds, and the rest of them at the end."""

    def __init__(self, cache: FactsCache, stamps: dict[str, Stamp], options: ReadOptions) -> None:
        self._cache, self._stamps, self._options = cache, stamps, options
        self._waiting: Found = []
        self._saved = time.monotonic()

    def add(self, found: Found) -> None:
        self._waiting += found
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        rows = [(image, self._stamps[image], facts) for image, facts in self._waiting]
        self._cache.store(rows, self._options)
        self._waiting, self._saved = [], time.monotonic()

    def __enter__(self) -> _Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self._save()


def _examined(images: Sequence[str], workers: int, look: Look) -> Iterator[Found]:
    """Yields findings in portions, in any order."""
    chunks = deque(list(images[i : i + _CHUNK]) for i in range(0, len(images), _CHUNK))
    if workers <= 1:
        yield from map(look, chunks)
        return
    while chunks:
        lost = yield from _in_pool(chunks, workers, look)
        yield from _one_by_one(lost, look)  # one of them ended its process


def _in_pool(
    chunks: deque[list[str]], workers: int, look: Look
) -> Generator[Found, None, list[str]]:
    """Works through chunks in processes of one pool.

    Returns:
        The images that were under way when a process died; the rest of the chunks is left.
    """
    pending: dict[Future[Found], list[str]] = {}
    with _pool(workers) as pool:
        while chunks or pending:
            while chunks and len(pending) < workers * _AHEAD:
                chunk = chunks.popleft()
                pending[pool.submit(look, chunk)] = chunk
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    found = future.result()
                except BrokenProcessPool:
                    return [image for chunk in pending.values() for image in chunk]
                del pending[future]
                yield found
    return []


def _one_by_one(images: Sequence[str], look: Look) -> Iterator[Found]:
    """Finds out which image ends the process that decodes it."""
    left = deque(images)
    while left:
        with _pool(1) as pool:
            try:
                while left:
                    yield pool.submit(look, [left[0]]).result()
                    left.popleft()
            except BrokenProcessPool:
                reason = "its decoder ended the process (out of memory, or a fault in a library)"
                yield [(left.popleft(), ImageFacts(CRASHED, reason))]


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Starts processes, and ends them however the block is left; work in progress is finished."""
    context = multiprocessing.get_context("spawn")  # a fork would copy locks of torch's threads
    pool = ProcessPoolExecutor(workers, context, initializer=_begin)
    try:
        with _deaf_to_ctrl_c():  # the processes inherit it, from their first moment on
            started = [pool.submit(_nothing) for _ in range(workers)]
        _require(started[0])
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _require(first: Future[None]) -> None:
    """Tells processes that cannot start apart from images that end them."""
    try:
        first.result()
    except BrokenProcessPool as error:
        raise DataError(
            "no process can be started besides this one (a program that calls this needs its "
            "main part below if __name__ == '__main__'); use --workers 1"
        ) from error


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin() -> None:
    """Prepares a process: this one decides when it ends, and it does not outlive this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _nothing() -> None:
    pass


def _look(images: Sequence[str], options: ReadOptions) -> Found:
    return [(image, examine(image, options)) for image in images]


def _cores() -> int:
    """Returns how many cores this process may use, which a scheduler may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
