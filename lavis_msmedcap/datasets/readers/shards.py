"""Reader of image-caption data in tar files, as the WebDataset convention lays them out.

::

    roco-train-000000.tar           000000000.jpg, 000000000.json, 000000001.png, …
    roco-train-000000.index.jsonl   beside it, where ``msmedcap data convert`` wrote the shard

No image is read here and nothing is unpacked: a record names the bytes of its image inside the
shard, and reading them is one seek. So shards behave like any other data set: seeded shuffles,
filters, caps, resuming.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.shard_index import (
    SUFFIX,
    ShardEntry,
    ShardIndex,
    index_beside,
    read_index,
    write_index,
)
from lavis_msmedcap.datasets.readers.shard_scan import scan_shard
from lavis_msmedcap.datasets.records import MEDICAL, MedCapRecord
from lavis_msmedcap.imaging.places import ImagePlace

_READERS = 8  # shards whose headers are read at a time; on a network drive most of it is waiting

logger = logging.getLogger(__name__)


def read_shards(
    shards: Sequence[Path],
    split: str | None,
    *,
    cache: Path,
    source: str = "webdataset_caption",
    domain: str | None = MEDICAL,
    report: ReadReport | None = None,
) -> Iterator[MedCapRecord]:
    """Yields one record per image with a caption, in the order of the shards and their members.

    An image without an ``image_id`` of its own is named after its shard and member, folders of the
    member included.

    Args:
        shards: Tar files.
        split: Split of the samples that say none themselves; None refuses such samples.
        cache: Folder for the indexes of shards that have none beside them.
        source: Registered dataset name, for samples that say no source.
        domain: Domain of all records; None takes every sample's own, medical if it says none.
        report: Where to count.

    Raises:
        DataError: If a shard is damaged, does not fit its index, or holds images of the other
            domain, or a sample says no split though it has to.
    """
    report = ReadReport(source) if report is None else report
    places = [Path(os.path.abspath(shard)) for shard in shards]  # noqa: PTH100 - keeps links
    for shard, index in _indexes(places, cache):
        report.dropped.update(index.dropped)
        report.notes.update(index.notes)
        for entry in index.entries:
            record = _record(entry, shard, split, source, domain)
            report.kept[record.split] += 1
            yield record


def _indexes(shards: Sequence[Path], cache: Path) -> Iterator[tuple[Path, ShardIndex]]:
    """Yields (shard, index) in order, a few read ahead: not all of them are in memory at once."""
    with ThreadPoolExecutor(_READERS) as pool:
        ahead = deque(pool.submit(shard_index, shard, cache) for shard in shards[:_READERS])
        for number, shard in enumerate(shards):
            index = ahead.popleft().result()
            ahead.extend(
                pool.submit(shard_index, later, cache)
                for later in shards[number + _READERS : number + _READERS + 1]
            )
            yield shard, index


def shard_index(shard: Path, cache: Path) -> ShardIndex:
    """Returns the index that lies beside a shard, else the one in the cache, else makes that.

    Raises:
        DataError: If the shard is damaged, or its index is about another file.
    """
    facts = shard.stat()
    beside = read_index(index_beside(shard))
    if beside is not None:
        other = _difference(shard, beside, cache)
        if other:
            raise DataError(
                f"{shard} {other}; fetch both again, or delete the index if the shard was changed "
                "on purpose"
            )
        return beside
    kept = cache / f"{_version(shard, facts)}{SUFFIX}"
    index = read_index(kept)
    if index is None:
        logger.info("%s has no index; reading its headers", shard)
        index = scan_shard(shard)
        # a cache that cannot be written costs time at the next start, nothing else
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            write_index(kept, index)
    return index


def _version(shard: Path, facts: os.stat_result) -> str:
    """Names a shard as it is now, for the cache."""
    name = f"{shard}\0{facts.st_size}\0{facts.st_mtime_ns}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(name).hexdigest()[:32]


def _difference(shard: Path, index: ShardIndex, cache: Path) -> str:
    """Says why a shard is not the file that the index beside it is about; empty if it seems to be.

    Size and a few headers are compared at every start. A shard that is younger than its index, as
    one that was put in its place is, has all its bytes compared, once.
    """
    facts, beside = shard.stat(), index_beside(shard)
    if index.facts.get("bytes") != facts.st_size:
        size = index.facts.get("bytes")
        return f"has {facts.st_size:,} bytes, but {beside.name} is about {size}"
    entries = index.entries
    some = {entries[i] for i in (0, len(entries) // 2, -1)} if entries else set()
    strange = next((entry for entry in some if not _has_header(shard, entry)), None)
    if strange:
        return f"has no {strange.member} where {beside.name} says"
    expected = index.facts.get("sha256")
    if not expected or facts.st_mtime_ns <= beside.stat().st_mtime_ns:
        return ""
    compared = cache / f"{_version(shard, facts)}.{str(expected)[:32]}"
    if compared.exists():
        return ""
    logger.info("%s is younger than its index; comparing its bytes", shard)
    if _sha256(shard) != expected:
        return f"has other bytes than the file that {beside.name} is about"
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        compared.touch()
    return ""


def _has_header(shard: Path, entry: ShardEntry) -> bool:
    """Tells whether a member of the entry's name and size begins where the entry says."""
    with shard.open("rb") as file:
        file.seek(max(0, entry.offset - tarfile.BLOCKSIZE))
        block = file.read(tarfile.BLOCKSIZE)
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    # a longer name stands elsewhere in full
    short = len(entry.member.encode("utf-8", "surrogateescape")) < tarfile.LENGTH_NAME
    return member.size == entry.size and (not short or member.name == entry.member)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _record(
    entry: ShardEntry, shard: Path, split: str | None, source: str, domain: str | None
) -> MedCapRecord:
    member = PurePosixPath(entry.member)
    key = member.with_name(member.name.partition(".")[0])
    return MedCapRecord(
        image=str(ImagePlace(str(shard), "bytes", f"{entry.offset}+{entry.size}")),
        captions=entry.captions,
        image_id=entry.image_id or f"{shard.stem}-{key}",
        split=_split(entry, shard, split, source),
        group_id=entry.group_id,
        source=entry.source or source,
        domain=_domain(entry, shard, domain, source),
    )


def _split(entry: ShardEntry, shard: Path, split: str | None, source: str) -> str:
    own = entry.split or split
    if own is None:
        raise DataError(
            f"{shard}, {entry.member} does not say whether it is for training or a test; name the "
            f"shards of each split in datasets.{source}.build_info.shards instead of root"
        )
    return own


def _domain(entry: ShardEntry, shard: Path, domain: str | None, source: str) -> str:
    if domain is not None and (entry.domain or domain) != domain:
        raise DataError(
            f"{shard}, {entry.member} is a {entry.domain} image, but datasets.{source}.domain is "
            f"{domain}; give the shards of each domain a section of their own, one of them as "
            f"coco_shards: {{builder: webdataset_caption, domain: general, ...}}"
        )
    return entry.domain or domain or MEDICAL
