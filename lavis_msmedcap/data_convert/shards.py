"""Writes shards, several at a time; finished ones of an interrupted conversion are kept."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.common.whole_files import PART, whole_file
from lavis_msmedcap.data_convert.groups import is_number
from lavis_msmedcap.data_convert.images import store_image
from lavis_msmedcap.data_convert.plan import Piece, Shard, ShardSettings, plan_shards
from lavis_msmedcap.data_convert.report import ConvertReport, show_bytes
from lavis_msmedcap.data_convert.tar_writer import TarWriter
from lavis_msmedcap.datasets.readers.identity import groups_of
from lavis_msmedcap.datasets.readers.shard_index import (
    ShardEntry,
    ShardIndex,
    index_beside,
    read_index,
    write_index,
)
from lavis_msmedcap.datasets.records import MedCapRecord

ERROR, SKIP = "error", "skip"
_SHOWN = 3

logger = logging.getLogger(__name__)


def write_shards(
    records: Iterable[MedCapRecord],
    out: Path,
    settings: ShardSettings,
    *,
    on_bad: str = ERROR,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[ConvertReport, list[Shard]]:
    """Writes the shards of records, each with its index beside it, and a report.

    The files depend on records, settings and images alone (the indexes also on where the images lie
    and when they were changed): not on the number of workers, nor on whether the conversion was
    interrupted on the way. A finished shard whose images lie elsewhere now is written again.

    Args:
        records: Images of any data sets and splits.
        out: Folder for the shards, made if it is not there.
        settings: Size, order, what is done to images.
        on_bad: "error" stops at the first broken image; "skip" leaves broken ones out and tells
            them in the report.
        workers: Shards that are written at a time.
        overwrite: Replace shards of another conversion.
        progress: Show a bar on a terminal.

    Returns:
        The report, and the plan that was followed.

    Raises:
        BadImageError: If an image is broken and ``on_bad`` is "error". Finished shards stay.
        DataError: If the folder holds something else, another process writes to it, or the disk is
            too small.
    """
    records = list(records)
    shards = plan_shards(records, settings)
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out):
        todo = [shard for shard in shards if not _is_finished(shard, out)]
        _check_folder(out, shards, todo, overwrite)
        _check_space(out, todo)
        _write_all(todo, out, settings, on_bad, workers, progress)
        report = _report(shards, out)
        report.kept = len(shards) - len(todo)
        report.notes += _about_numbers(records, shards)
        report.write(out)
    return report, shards


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    lock = FileLock(out / ".convert.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"another process is converting into {out}; wait for it") from error
    try:
        for left in out.glob(f"*{PART}-*"):  # of a run that was killed
            left.unlink()
        yield
    finally:
        lock.release()


def _is_finished(shard: Shard, out: Path) -> bool:
    """Tells whether a shard is there, whole, of this plan, and of the images as they are."""
    path = out / f"{shard.name}.tar"
    with contextlib.suppress(FileNotFoundError):
        facts = path.stat()
        index = read_index(index_beside(path))
        return (
            index is not None
            and index.facts.get("plan") == shard.digest
            and index.facts.get("bytes") == facts.st_size
            and index.facts.get("changed") == shard.stamp
        )
    return False


def _check_folder(
    out: Path, shards: Sequence[Shard], todo: Sequence[Shard], overwrite: bool
) -> None:
    """Refuses to mix shards of two conversions; with ``overwrite``, removes those of the other."""
    plans = {shard.name: shard.digest for shard in shards}
    unfinished = {shard.name for shard in todo}
    foreign = []
    for path in sorted(out.glob("*.tar")):
        if path.stem in plans and path.stem not in unfinished:
            continue
        index = read_index(index_beside(path))
        if index is not None and index.facts.get("plan") == plans.get(path.stem):
            continue  # ours, but a source has changed since
        if index is None or not overwrite:
            foreign.append(path.name)
            continue
        path.unlink()
        index_beside(path).unlink()
    if foreign:
        names = ", ".join(foreign[:_SHOWN]) + (", …" if len(foreign) > _SHOWN else "")
        raise DataError(
            f"{out} holds {len(foreign):,} shards that do not come from these data and settings "
            f"({names}); name another folder{'' if overwrite else ', or give --overwrite'}"
        )


def _check_space(out: Path, todo: Sequence[Shard]) -> None:
    needed, free = sum(shard.size for shard in todo), shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out} has {show_bytes(free)} free, but {len(todo):,} shards of about "
            f"{show_bytes(needed)} are to be written; make room, or name a folder on another disk"
        )


def _write_all(
    todo: Sequence[Shard],
    out: Path,
    settings: ShardSettings,
    on_bad: str,
    workers: int,
    progress: bool,
) -> None:
    """Writes shards in threads: decoding, compressing and hashing leave Python's lock to others."""
    stop = threading.Event()
    total = sum(len(shard.pieces) for shard in todo)
    with tqdm(total=total, unit=" images", desc="shards", disable=not progress or None) as bar:

        def tick() -> None:
            if stop.is_set():
                raise _StoppedError
            bar.update()

        def write(shard: Shard) -> None:
            try:
                write_shard(shard, out, settings, on_bad, tick)
            except BaseException:
                stop.set()  # here, so that this very thread begins no other shard
                raise

        with ThreadPoolExecutor(workers) as pool:
            tasks = [pool.submit(write, shard) for shard in todo]
            try:
                done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            finally:  # after an error, or Ctrl-C in the main thread
                stop.set()
                for task in tasks:
                    task.cancel()
    errors = [error for task in done if (error := task.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, _StoppedError)):
        raise error


class _StoppedError(Exception):
    """Ends the work of a thread because another one failed."""


def write_shard(
    shard: Shard,
    out: Path,
    settings: ShardSettings,
    on_bad: str = ERROR,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Writes one shard, then its index: a shard without index is not finished.

    One image at a time is in memory.

    Args:
        shard: What to write.
        out: Folder for it.
        settings: What is done to images.
        on_bad: "error" or "skip".
        tick: Called before each image.

    Raises:
        BadImageError: If an image is broken and ``on_bad`` is "error".
    """
    path = out / f"{shard.name}.tar"
    index_beside(path).unlink(missing_ok=True)
    entries: list[ShardEntry] = []
    how: Counter[str] = Counter()
    broken = []
    with whole_file(path) as file:
        tar = TarWriter(file)
        for piece in shard.pieces:
            tick()
            try:
                reading = settings.reading_of(piece.record)
                stored = store_image(piece.record.image, settings.images, reading)
            except BadImageError as error:
                if on_bad == ERROR:
                    raise
                broken.append([piece.record.image_id, error.reason])
                continue
            how[stored.how] += 1
            member = f"{piece.number:09d}{stored.suffix}"
            offset = tar.add(member, stored.data)
            entries.append(_entry(member, offset, len(stored.data), piece))
            tar.add(f"{piece.number:09d}.json", _description(piece.record))
        sha256 = tar.close()
    facts = {
        "shard": path.name,
        "bytes": tar.size,
        "sha256": sha256,
        "plan": shard.digest,
        "changed": shard.stamp,
        "how": dict(sorted(how.items())),
        "broken": broken,
    }
    write_index(index_beside(path), ShardIndex(tuple(entries), facts))


def _entry(member: str, offset: int, size: int, piece: Piece) -> ShardEntry:
    record = piece.record
    return ShardEntry(
        member,
        offset,
        size,
        record.captions,
        image_id=record.image_id,
        group_id=record.group_id,
        source=record.source,
        domain=record.domain,
        split=record.split,
    )


def _description(record: MedCapRecord) -> bytes:
    """Returns the JSON member of an image. Its place on this machine is nobody else's business."""
    facts = {
        "captions": record.captions,
        "image_id": record.image_id,
        "group_id": record.group_id,
        "source": record.source,
        "domain": record.domain,
        "split": record.split,
    }
    return json.dumps(facts).encode("ascii")


def _about_numbers(records: Sequence[MedCapRecord], shards: Sequence[Shard]) -> Iterator[str]:
    """Says that patients have become numbers, if they have."""
    own = {group for record in records for group in groups_of(record)}
    written = {
        (group, piece.record.source)
        for shard in shards
        for piece in shard.pieces
        for group in groups_of(piece.record)
    }
    numbers = sorted(g for g, source in written if g not in own and is_number(g, source))
    if numbers:
        yield (
            f"{len(numbers):,} patients (group_id) are written as numbers, such as {numbers[0]}; "
            "--keep-group-ids writes their ids"
        )


def _report(shards: Sequence[Shard], out: Path) -> ConvertReport:
    """Adds up the indexes, so that a run that was taken up again reports all of it."""
    report = ConvertReport()
    for shard in shards:
        index = read_index(index_beside(out / f"{shard.name}.tar"))
        if index is None:
            raise DataError(f"the index of {shard.name}.tar has gone from {out} meanwhile")
        part = report.part(shard.pieces[0].record.source, shard.pieces[0].record.split)
        part.images += len(index.entries)
        part.captions += sum(len(entry.captions) for entry in index.entries)
        part.files += 1
        part.size += index.facts["bytes"]
        part.how.update(index.facts["how"])
        part.broken += [(image_id, reason) for image_id, reason in index.facts["broken"]]
    return report
