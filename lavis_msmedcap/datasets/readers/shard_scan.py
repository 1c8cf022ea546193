"""Makes the index of a shard from its tar headers; only small text members are read.

The WebDataset convention: members whose names agree up to the first dot of the last part belong to
one sample, and what follows the dot says what they are ("000012.jpg", "000012.json").
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import safe_name, usable_captions, whole_text
from lavis_msmedcap.datasets.readers.shard_index import ShardEntry, ShardIndex
from lavis_msmedcap.datasets.records import DOMAINS, SPLITS

# where a sample has several, the first of these is its image
IMAGE_KINDS = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "gif", "dcm")
_VOLUME_KINDS = ("nii", "nii.gz")  # whose slices are read from a file of their own only
_CAPTION_FIELDS = ("captions", "caption", "text")
_TEXT_KINDS = ("json", "txt")
_LONGEST_TEXT = 1 << 24  # bytes
_SPLIT_NAMES = {"validation": "val", "valid": "val", **{split: split for split in SPLITS}}
_MEMBER = re.compile(r"^((?:.*/)?[^./]+)\.([^/]+)$", re.DOTALL)


@dataclass
class _Sample:
    """The members of a sample by kind: where they begin, how long they are, what a text says."""

    names: dict[str, str] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass
class _Tally:
    """What was counted, and the sample that the last member belonged to."""

    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    last: str = ""


def scan_shard(path: Path) -> ShardIndex:
    """Reads the headers of a shard from its beginning to its end.

    Args:
        path: An uncompressed tar file.

    Returns:
        One entry per sample that has an image and a caption; the other samples are counted.

    Raises:
        DataError: If the file is no tar file, is cut off or damaged, or holds an unsafe name.
    """
    size = path.stat().st_size
    tally = _Tally()
    samples: dict[str, _Sample] = {}
    with path.open("rb") as file:
        for member in _members(file, path):
            _add(member, file, samples, tally, path)
    entries = []
    for sample in samples.values():
        found = _entry(sample, tally)
        if isinstance(found, str):
            tally.dropped[found] += 1
        else:
            entries.append(found)
    return ShardIndex(tuple(entries), {"bytes": size}, tally.dropped, tally.notes)


def _members(file: BinaryIO, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yields the members, and makes sure that the archive ends where its headers end.

    `tarfile` takes a header that is damaged or cut off for the end of the archive, and what follows
    it would be lost without a word.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            yield from archive
            end = archive.offset
    except tarfile.TarError as error:
        raise DataError(
            f"{path} is no whole tar file ({error}); it is damaged or cut off, fetch it again"
        ) from error
    file.seek(end)
    mark = file.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE or mark.strip(b"\0"):
        what = "is damaged" if len(mark) == tarfile.BLOCKSIZE else "is cut off"
        raise DataError(f"{path} {what} at byte {end:,}; fetch it again")
    for block in iter(lambda: file.read(1 << 20), b""):
        if block.strip(b"\0"):
            raise DataError(
                f"{path} goes on behind its end mark at byte {end:,}, as tar files do that were "
                "put together with cat; unpack it with tar --ignore-zeros and pack it again"
            )


def _add(
    member: tarfile.TarInfo,
    file: BinaryIO,
    samples: dict[str, _Sample],
    tally: _Tally,
    path: Path,
) -> None:
    """Puts a member to its sample."""
    if member.isdir():
        return
    if not member.isreg() or member.issparse():
        tally.notes["links and special members, passed over"] += 1
        return
    name = safe_name(member.name, f"{path}, member at byte {member.offset:,}")
    match = _MEMBER.match(name)
    if match is None:
        tally.notes["members without a kind behind a dot, passed over"] += 1
        return
    key, kind = match[1], match[2].lower()
    sample = samples.setdefault(key, _Sample())
    if sample.places and tally.last != key:
        tally.notes["members that do not stand beside their sample's others"] += 1
    tally.last = key
    if kind in sample.places:
        tally.dropped["second member of one name"] += 1
        return
    sample.names[kind] = name
    sample.places[kind] = (member.offset_data, member.size)
    if kind not in _TEXT_KINDS:
        return
    if member.size > _LONGEST_TEXT:
        tally.notes[f"texts above {_LONGEST_TEXT >> 20} MiB, passed over"] += 1
        return
    file.seek(member.offset_data)
    sample.texts[kind] = file.read(member.size)


def _entry(sample: _Sample, tally: _Tally) -> ShardEntry | str:
    """Returns the entry of a sample, or the reason why it has none."""
    kinds = [kind for kind in IMAGE_KINDS if kind in sample.places]
    if not kinds:
        volume = any(kind in sample.places for kind in _VOLUME_KINDS)
        return "with a NIfTI volume, which is not read from shards" if volume else "without image"
    try:
        facts = _facts(sample.texts.get("json"))
        captions = _captions(facts, sample.texts.get("txt"), tally)
    except (ValueError, RecursionError):
        return "with a text that cannot be read"
    if not captions:
        return "without caption"
    if len(kinds) > 1:
        tally.notes[f"with several images, {kinds[0]} taken"] += 1
    domain = _text(facts, "domain")
    return ShardEntry(
        sample.names[kinds[0]],
        *sample.places[kinds[0]],
        captions,
        image_id=_text(facts, "image_id"),
        group_id=_text(facts, "group_id"),
        source=_text(facts, "source"),
        domain=domain if domain in DOMAINS else None,
        split=_SPLIT_NAMES.get(_text(facts, "split") or ""),
    )


def _facts(text: bytes | None) -> dict[str, Any]:
    """Reads the JSON member.

    Raises:
        ValueError: If it is no JSON object in UTF-8.
    """
    facts = {} if text is None else json.loads(text.decode("utf-8-sig"))
    if not isinstance(facts, dict):
        raise ValueError("no JSON object")
    return facts


def _captions(facts: dict[str, Any], text: bytes | None, tally: _Tally) -> tuple[str, ...]:
    for name in _CAPTION_FIELDS:
        value = facts.get(name)
        found = usable_captions(value if isinstance(value, list) else [value], tally.notes)
        if found:
            return found
    return usable_captions([text.decode("utf-8-sig")]) if text is not None else ()


def _text(facts: dict[str, Any], name: str) -> str | None:
    value = facts.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return whole_text(str(value)) or None
