"""What stands beside a shard, or in the cache: where its images are, and what belongs to them.

A shard is a tar file in the WebDataset convention. Its index is a JSON Lines file: a head about the
shard as a whole, then one line per image, so that neither the tar headers nor the members have to
be read to know the data set::

    {"format": "lavis-msmedcap-shard", "version": 1, "shard": "roco-train-000000.tar", "bytes": …}
    {"member": "000000000.jpg", "offset": 512, "size": 3456, "captions": ["…"], "image_id": "…", …}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.common.whole_files import write_whole

FORMAT = "lavis-msmedcap-shard"
VERSION = 1
SUFFIX = ".index.jsonl"


class ShardEntry(NamedTuple):
    """An image in a shard.

    Attributes:
        member: Name in the tar file.
        offset: Where its bytes begin in the tar file.
        size: Number of its bytes.
        captions: Raw captions, at least one.
        image_id: Identifier; None where the shard's author gave none.
        group_id: Article or patient, None if unknown.
        source: Name of the data set that the image was taken from, None if unknown.
        domain: ``general`` or ``medical``, None if unknown.
        split: "train", "val" or "test", None if unknown.
    """

    member: str
    offset: int
    size: int
    captions: tuple[str, ...]
    image_id: str | None = None
    group_id: str | None = None
    source: str | None = None
    domain: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class ShardIndex:
    """All images of a shard.

    Attributes:
        entries: In the order of the tar file.
        facts: The rest of the head: ``bytes`` (size of the tar file) and what the writer of the
            index adds.
        dropped: Samples of the shard that are no image with a caption, by reason.
        notes: Further facts worth a word, with how often they occurred.
    """

    entries: tuple[ShardEntry, ...]
    facts: Mapping[str, Any]
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


def index_beside(shard: Path) -> Path:
    """Returns the place of the index that lies beside a shard."""
    return shard.with_name(shard.name[: -len(".tar")] + SUFFIX)


def write_index(path: Path, index: ShardIndex) -> None:
    """Writes an index, all of it or nothing: another process never sees half of one."""
    head = {"format": FORMAT, "version": VERSION, **index.facts}
    head.update(dropped=dict(index.dropped), notes=dict(index.notes))
    write_whole(path, (json.dumps(row) + "\n" for row in _rows(head, index.entries)))


def _rows(head: dict[str, Any], entries: Iterable[ShardEntry]) -> Iterator[dict[str, Any]]:
    yield head
    for entry in entries:
        yield entry._asdict()


def read_index(path: Path) -> ShardIndex | None:
    """Reads an index.

    Returns:
        None if there is none, or if it is of another version or not one of ours.

    Raises:
        DataError: If it calls itself one of ours and has a broken line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            head = _json_object(file.readline())
            if head.get("format") != FORMAT or head.get("version") != VERSION:
                return None
            entries = tuple(
                _entry(_json_object(line), path, number) for number, line in enumerate(file, 2)
            )
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    facts = {key: value for key, value in head.items() if key not in _OWN_KEYS}
    return ShardIndex(entries, facts, head.get("dropped", {}), head.get("notes", {}))


_OWN_KEYS = ("format", "version", "dropped", "notes")


def _json_object(line: str) -> dict[str, Any]:
    """Reads a line; what is no JSON object gives an empty one."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _entry(row: dict[str, Any], path: Path, number: int) -> ShardEntry:
    captions, offset, size = row.get("captions"), row.get("offset"), row.get("size")
    sound = isinstance(captions, list) and captions and all(isinstance(c, str) for c in captions)
    if not (sound and isinstance(offset, int) and isinstance(size, int) and "member" in row):
        raise DataError(
            f"{path}, line {number} is broken; delete the file, it is made again from its shard"
        )
    return ShardEntry(
        row["member"],
        offset,
        size,
        tuple(captions or ()),
        row.get("image_id"),
        row.get("group_id"),
        row.get("source"),
        row.get("domain"),
        row.get("split"),
    )
