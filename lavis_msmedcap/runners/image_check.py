"""Opens the images of an evaluation before training, so that a broken one is not found after it.

Each image is decoded once: one that was sound is remembered by its place, size and time in a small
file of the cache folder. The embedded data are made by this package and are not looked at.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lavis_msmedcap.common.distributed import (
    gather_objects,
    get_rank,
    get_world_size,
    is_main_process,
)
from lavis_msmedcap.common.errors import BadImageError, SharedDataError
from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.imaging.places import parse_place
from lavis_msmedcap.imaging.read import read_image
from lavis_msmedcap.runners.loaders import EvalData

_SHOWN = 3
_PORTION = 256  # images between two looks at Ctrl-C, and between two notes in the cache
_MOST_THREADS = 8
_TABLE = (
    "CREATE TABLE IF NOT EXISTS sound (place, reader, size, changed, PRIMARY KEY (place, reader))"
)


class _Task(NamedTuple):
    image: str
    reader: str
    size: int
    changed: int
    read: Callable[[str], Any]


def check_eval_images(splits: Sequence[EvalData]) -> None:
    """Decodes the images that the splits will evaluate; every rank has to call it.

    Ranks share the work. Datasets that do not tell their images without loading them are left out.

    Args:
        splits: The evaluations of the run.

    Raises:
        SharedDataError: On all ranks with one message, if an image cannot be read; it names the
            first ones.
    """
    tasks = list(_tasks(splits))[get_rank() :: get_world_size()]
    with contextlib.closing(_open_cache()) as cache:
        left = [task for task in tasks if not _is_sound(cache, task)]
        broken = _broken(left, cache)
    broken = sorted(gather_objects(broken))
    if not broken:
        return
    first = ", ".join(f"{image} ({reason})" for image, reason in broken[:_SHOWN])
    more = ", …" if len(broken) > _SHOWN else ""
    raise SharedDataError(
        f"{len(broken):,} evaluation image(s) cannot be read: {first}{more}. "
        "Fetch them again, or leave them out (msmedcap data check lists them all, and --fix writes "
        "a manifest without them)"
    )


def _tasks(splits: Sequence[EvalData]) -> Iterator[_Task]:
    """Yields each image that will be evaluated once, the embedded ones left out."""
    embedded = str(cache_root() / "phantom") + os.sep
    seen = set()
    for split in splits:
        for data, pick in zip(split.dataset.datasets, split.picks):
            processor = getattr(data, "vis_processor", None)
            default = read_image if processor is not None else None
            read = getattr(data, "read_picture", None) or getattr(processor, "read", default)
            records = getattr(data, "records", None)
            if read is None or records is None:
                continue
            reader = repr(getattr(processor, "read_options", type(data).__name__))
            for image in dict.fromkeys(records[index].image for index in pick):
                if not image.startswith(embedded) and (image, reader) not in seen:
                    seen.add((image, reader))
                    yield _Task(image, reader, *_stamp(image), read)


def _stamp(image: str) -> tuple[int, int]:
    """Returns bytes and nanoseconds of the last change of the file an image lies in."""
    try:
        status = Path(parse_place(image).file).stat()
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _broken(tasks: Sequence[_Task], cache: sqlite3.Connection) -> list[tuple[str, str]]:
    """Decodes images in threads, which decoders let run beside each other.

    Returns:
        (image, reason) of those that cannot be read; the others are noted in the cache.
    """
    broken: list[tuple[str, str]] = []
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    bar = tqdm(
        total=len(tasks),
        desc="checking evaluation images",
        unit="",
        disable=None if tasks and is_main_process() else True,
    )
    with bar, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(tasks), _PORTION):
            portion = tasks[start : start + _PORTION]
            reasons = list(pool.map(_reason, portion))
            broken += [(task.image, why) for task, why in zip(portion, reasons) if why]
            _note_sound(cache, [task for task, why in zip(portion, reasons) if not why])
            bar.update(len(portion))
    return broken


def _reason(task: _Task) -> str:
    """Says why an image cannot be read; empty if it can."""
    try:
        task.read(task.image)
    except BadImageError as error:
        return error.reason
    except Exception as error:  # noqa: BLE001 - the other ranks wait to hear of it
        return f"{type(error).__name__}: {error}"
    return ""


def _open_cache() -> sqlite3.Connection:
    """Opens what earlier runs noted; without a place to write to, notes live in memory."""
    path = cache_root() / "eval_images.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _prepared(str(path))
    except (OSError, sqlite3.Error):
        return _prepared(":memory:")


def _prepared(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=30)
    try:
        with database:
            database.execute(_TABLE)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _is_sound(cache: sqlite3.Connection, task: _Task) -> bool:
    query = "SELECT size, changed FROM sound WHERE place = ? AND reader = ?"
    found = cache.execute(query, (task.image, task.reader)).fetchone()
    return bool(found == (task.size, task.changed))


def _note_sound(cache: sqlite3.Connection, tasks: Sequence[_Task]) -> None:
    rows = [(task.image, task.reader, task.size, task.changed) for task in tasks]
    # a full disk or a busy file costs the next run a second look, no more
    with contextlib.suppress(sqlite3.OperationalError), cache:
        cache.executemany("REPLACE INTO sound VALUES (?, ?, ?, ?)", rows)
