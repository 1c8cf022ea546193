"""The embedded data once more, as shards: what ``type: demo`` of ``webdataset_caption`` reads."""

from __future__ import annotations

from collections.abc import Iterator

from lavis_msmedcap.common.distributed import barrier, is_main_process
from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.data_convert.plan import ShardSettings
from lavis_msmedcap.data_convert.shards import write_shards
from lavis_msmedcap.datasets.places import find_place
from lavis_msmedcap.datasets.readers.roco import read_roco
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord

_SAMPLES = 256


def ensure_demo_shards() -> None:
    """Lets the first process convert the embedded data, if need be, while the others wait.

    The shards are in ``phantom:shards/roco``.
    """
    if is_main_process():
        folder = find_place("phantom:shards/roco", cache_root())
        # those of an older version of this package give way
        write_shards(_records(), folder, ShardSettings(samples=_SAMPLES), overwrite=True)
    barrier()


def _records() -> Iterator[MedCapRecord]:
    for split in SPLITS:
        yield from read_roco(find_place("phantom:roco", cache_root()), split)
