"""Reads a few samples of a conversion back and compares them with what they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_convert.images import store_image
from lavis_msmedcap.data_convert.plan import Shard, ShardSettings
from lavis_msmedcap.datasets.readers.shard_index import ShardEntry
from lavis_msmedcap.datasets.readers.shard_scan import scan_shard
from lavis_msmedcap.imaging.containers import read_byte_range

_Item = TypeVar("_Item")

_SHARDS = 2  # of each data set and split
_SAMPLES = 3


def check_shards(shards: Sequence[Shard], out: Path, settings: ShardSettings) -> int:
    """Reads samples of every data set and split, through the tar headers and not our index.

    Args:
        shards: All shards of a conversion.
        out: Where they are.
        settings: Of the conversion.

    Returns:
        Number of samples that were compared.

    Raises:
        DataError: If a sample differs from its record.
    """
    compared = 0
    for shard in _some_of_each_part(shards):
        path = out / f"{shard.name}.tar"
        records = {piece.number: piece.record for piece in shard.pieces}
        for entry in _spread(scan_shard(path).entries, _SAMPLES):
            record = records[int(PurePosixPath(entry.member).stem)]
            reading = settings.reading_of(record)
            expected = store_image(record.image, settings.images, reading).data
            facts = ShardEntry(
                entry.member,
                entry.offset,
                len(expected),
                record.captions,
                record.image_id,
                record.group_id,
                record.source,
                record.domain,
                record.split,
            )
            stored = read_byte_range(str(path), f"{entry.offset}+{entry.size}")
            if facts != entry or stored != expected:
                raise DataError(
                    f"{path}, {entry.member} is not what belongs to {record.image}: either the "
                    "image was replaced and kept its size and time, or the disk is failing. "
                    "Delete the shard and convert again"
                )
            compared += 1
    return compared


def _some_of_each_part(shards: Sequence[Shard]) -> list[Shard]:
    parts: dict[str, list[Shard]] = {}
    for shard in shards:
        parts.setdefault(shard.name.rpartition("-")[0], []).append(shard)
    return [shard for part in parts.values() for shard in _spread(part, _SHARDS)]


def _spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """Returns some items at even distances, the first and the last among them."""
    last, most = len(items) - 1, min(count, len(items))
    places = [last * place // max(1, most - 1) for place in range(most)]
    return [items[place] for place in dict.fromkeys(places)]
