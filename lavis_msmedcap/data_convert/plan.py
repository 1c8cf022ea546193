"""Which image stands in which shard: decided before anything is written, by records and seed alone.

That is what makes a conversion resumable: an interrupted one, taken up again, comes to the same
plan, keeps the shards that are whole and makes the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_convert.groups import number_groups
from lavis_msmedcap.data_convert.images import ImageSettings
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.imaging.places import ImagePlace, parse_place
from lavis_msmedcap.imaging.read import DEFAULTS, ReadOptions

_VERSION = 2  # of what is written for a plan; another one makes finished shards out of date
_OVERHEAD = 2048  # bytes of a sample beside its image: two headers, padding, a short JSON member
_ASKING = 16  # files asked for their size at a time: on a network drive most of it is waiting
_CHUNK = 64
_SAFE = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")


@dataclass(frozen=True)
class ShardSettings:
    """How shards are cut.

    Attributes:
        samples: Most images of a shard.
        size: Size in bytes at which a shard is full, measured by the files that the images come
            from; None for no limit.
        seed: Seed of the order.
        images: What is done to images.
        reading: Windows and limits that images are read with, by (source, split), where not by
            default.
        keep_group_ids: Write the ids of patients instead of numbers, see `number_groups`.
    """

    samples: int = 1000
    size: int | None = None
    seed: int = 0
    images: ImageSettings = field(default_factory=ImageSettings)
    reading: Mapping[tuple[str, str], ReadOptions] = field(default_factory=dict)
    keep_group_ids: bool = False

    def reading_of(self, record: MedCapRecord) -> ReadOptions:
        """Returns how the image of a record is read."""
        return self.reading.get((record.source, record.split), DEFAULTS)


class Piece(NamedTuple):
    """An image in the plan.

    Attributes:
        number: Its place in the shuffled order of its data set and split; names its members.
        record: The image.
        size: Bytes of its file, or its share of a file that holds several; 0 if there is none.
        modified: When the file was changed last, in nanoseconds; 0 if there is none.
    """

    number: int
    record: MedCapRecord
    size: int
    modified: int


@dataclass(frozen=True)
class Shard:
    """A shard to be written.

    Attributes:
        name: File name without ending, "roco-train-000000".
        pieces: Its images.
        digest: Hash of everything that decides its content beside the pixels themselves.
    """

    name: str
    pieces: tuple[Piece, ...]
    digest: str

    @property
    def size(self) -> int:
        """About how many bytes it will have."""
        return sum(piece.size + _OVERHEAD for piece in self.pieces)

    @property
    def stamp(self) -> str:
        """Hash of where its images lie and when they were changed: another one is noticed.

        Sizes and times alone do not tell the frames of a file apart, nor files of one export.
        """
        sources = json.dumps([(piece.record.image, piece.modified) for piece in self.pieces])
        return hashlib.sha256(sources.encode()).hexdigest()


def plan_shards(records: Iterable[MedCapRecord], settings: ShardSettings) -> list[Shard]:
    """Plans the shards of all data sets and splits.

    Args:
        records: Images of any data sets and splits, in any order.
        settings: Size and order.

    Raises:
        DataError: If a name cannot be part of a file name, or there is no record.
    """
    parts = {part: _shuffled(members, settings.seed) for part, members in by_part(records).items()}
    if not settings.keep_group_ids:
        parts = number_groups(parts)
    shards = []
    for (source, split), members in parts.items():
        pieces = _measured(members)
        groups = list(_cut(pieces, settings))
        for count, group in enumerate(groups):
            name = f"{source}-{split}-{count:06d}"
            shards.append(Shard(name, tuple(group), _digest(group, settings)))
    return shards


def by_part(records: Iterable[MedCapRecord]) -> dict[tuple[str, str], list[MedCapRecord]]:
    """Groups records by (source, split).

    Raises:
        DataError: If one of the two cannot be part of a file name, or there is no record.
    """
    parts: dict[tuple[str, str], list[MedCapRecord]] = {}
    for record in records:
        parts.setdefault((record.source, record.split), []).append(record)
    for source, split in parts:
        safe_part(source, "source")
        safe_part(split, "split")
    if not parts:
        raise DataError("there is nothing to convert: the data sets have no images")
    return parts


def safe_part(name: str, what: str) -> str:
    """Returns a name if it can stand in a file name on every system.

    Raises:
        DataError: If it has slashes, begins with a dot, or the like.
    """
    if not _SAFE.match(name) or len(name) > 200:
        raise DataError(
            f"{what} {name[:200]!r} is refused as part of a file name; expected at most 200 "
            "letters, digits, '_', '-' and '.', and no dot in front"
        )
    return name


def _shuffled(records: Sequence[MedCapRecord], seed: int) -> list[MedCapRecord]:
    """Orders records by the hash of their ids, which depends on no library's version."""

    def position(index: int) -> tuple[bytes, int]:
        name = f"{seed}\x1f{records[index].image_id}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(name, digest_size=8).digest(), index

    return [records[index] for index in sorted(range(len(records)), key=position)]


def _measured(records: Sequence[MedCapRecord]) -> list[Piece]:
    """Asks every file once for size and time."""
    places = [parse_place(record.image) for record in records]
    images = Counter(place.file for place in places)
    files = list(images)
    chunks = [files[first : first + _CHUNK] for first in range(0, len(files), _CHUNK)]
    facts = {}
    with ThreadPoolExecutor(_ASKING) as pool:
        for found in pool.map(_facts, chunks):
            facts.update(found)
    pieces = []
    for number, (record, place) in enumerate(zip(records, places)):
        size, modified = facts[place.file]
        pieces.append(Piece(number, record, _size(place, images[place.file], size), modified))
    return pieces


def _facts(files: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Returns size and time of change by file; 0 for those that cannot be read, told later on."""
    facts = {}
    for file in files:
        try:
            found = os.stat(file)  # noqa: PTH116 - called for every image, a Path costs more
        except OSError:
            facts[file] = 0, 0
        else:
            facts[file] = found.st_size, found.st_mtime_ns
    return facts


def _size(place: ImagePlace, images: int, size: int) -> int:
    length = place.value.rpartition("+")[2] if place.kind == "bytes" else ""
    return int(length) if length.isdecimal() else size // images


def _cut(pieces: Sequence[Piece], settings: ShardSettings) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    filled = 0
    for piece in pieces:
        full = settings.size is not None and filled + piece.size > settings.size
        if group and (full or len(group) >= settings.samples):
            yield group
            group, filled = [], 0
        group.append(piece)
        filled += piece.size
    if group:
        yield group


def _digest(pieces: Sequence[Piece], settings: ShardSettings) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, *settings.images]).encode())
    reading = settings.reading_of(pieces[0].record)
    if reading != DEFAULTS:
        digest.update(repr(reading).encode())
    for number, record, size, _ in pieces:
        facts = (record.image_id, record.captions, record.group_id, record.source, record.domain)
        digest.update(json.dumps([number, size, record.split, facts]).encode())
    return digest.hexdigest()
