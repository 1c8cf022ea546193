"""That a damaged member is found is in test_shards.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_convert import check as module
from lavis_msmedcap.data_convert.check import check_shards
from lavis_msmedcap.data_convert.plan import Shard, ShardSettings
from lavis_msmedcap.data_convert.shards import write_shards
from lavis_msmedcap.datasets.records import MedCapRecord

TWO = ShardSettings(samples=2)


@pytest.fixture
def out(records: list[MedCapRecord], tmp_path: Path) -> tuple[Path, list[Shard]]:
    """Five shards of two samples for training, and one of two for testing."""
    split = [*records[:10], *(replace(record, split="test") for record in records[10:])]
    _, shards = write_shards(split, tmp_path / "out", TWO, workers=1)
    return tmp_path / "out", shards


def test_the_first_and_the_last_shard_of_every_part_are_read(
    out: tuple[Path, list[Shard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shards = out
    read: list[str] = []
    real = module.scan_shard

    def noted(path: Path) -> Any:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(module, "scan_shard", noted)
    assert check_shards(shards, folder, TWO) == 6
    assert sorted(read) == [
        "roco-test-000000.tar", "roco-train-000000.tar", "roco-train-000004.tar",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"captions": ("Another one.",)},
        {"image_id": "other"},
        {"group_id": "PMC9999"},
        {"domain": "general"},
    ],
)
def test_every_fact_of_a_sample_counts(
    out: tuple[Path, list[Shard]], change: dict[str, Any]
) -> None:
    folder, shards = out
    first = shards[0].pieces[0]
    piece = first._replace(record=replace(first.record, **change))
    wrong = [replace(shards[0], pieces=(piece, *shards[0].pieces[1:])), *shards[1:]]
    with pytest.raises(DataError, match=r"roco-train-000000\.tar, 0+\.\w+ is not what belongs to"):
        check_shards(wrong, folder, TWO)


@pytest.mark.parametrize(
    ("length", "count", "places"),
    [
        (0, 3, []),
        (1, 3, [0]),
        (2, 3, [0, 1]),
        (3, 3, [0, 1, 2]),
        (1000, 3, [0, 499, 999]),
        (7, 2, [0, 6]),
    ],
)
def test_samples_are_spread(length: int, count: int, places: list[int]) -> None:
    assert module._spread(range(length), count) == places
