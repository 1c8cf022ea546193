from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_convert.images import ImageSettings
from lavis_msmedcap.data_convert.plan import ShardSettings, plan_shards
from lavis_msmedcap.datasets.records import MedCapRecord

FIVE = ShardSettings(samples=5)


def ids(shards):
    return [piece.record.image_id for shard in shards for piece in shard.pieces]


def test_every_image_once_in_shards_named_by_source_and_split(records) -> None:
    other = [replace(record, split="val") for record in records[:3]]
    shards = plan_shards([*records, *other], FIVE)
    assert [(shard.name, len(shard.pieces)) for shard in shards] == [
        ("roco-train-000000", 5),
        ("roco-train-000001", 5),
        ("roco-train-000002", 2),
        ("roco-val-000000", 3),
    ]
    train = ids(shards[:3])
    assert sorted(train) == [record.image_id for record in records]
    assert train != sorted(train)
    assert [piece.number for shard in shards[:3] for piece in shard.pieces] == list(range(12))


def test_the_order_comes_from_the_seed_and_not_from_the_order_of_the_records(records) -> None:
    assert ids(plan_shards(records, FIVE)) == ids(plan_shards(records[::-1], FIVE))
    assert ids(plan_shards(records, FIVE)) != ids(plan_shards(records, replace(FIVE, seed=1)))


def test_shards_are_full_at_a_size_too(records) -> None:
    sizes = [Path(record.image).stat().st_size for record in records]
    limit = 3 * max(sizes)
    shards = plan_shards(records, ShardSettings(samples=100, size=limit))
    assert len(shards) > 2
    for shard in shards:
        assert sum(piece.size for piece in shard.pieces) <= limit
    alone = plan_shards(records, ShardSettings(samples=100, size=1))
    assert [len(shard.pieces) for shard in alone] == [1] * 12


def test_images_in_one_file_share_its_size(tmp_path: Path, records) -> None:
    volume = tmp_path / "volume.dcm"
    volume.write_bytes(bytes(9000))
    frames = [replace(records[0], image=f"{volume}::frame={i}", image_id=str(i)) for i in range(3)]
    member = replace(records[0], image=f"{volume}::bytes=10+77", image_id="member")
    sizes = {piece.record.image_id: piece.size for piece in plan_shards(frames, FIVE)[0].pieces}
    assert sizes == {"0": 3000, "1": 3000, "2": 3000}
    assert plan_shards([member], FIVE)[0].pieces[0].size == 77


@pytest.mark.parametrize(
    "change",
    [
        {"captions": ("Other.",)},
        {"image_id": "x"},
        {"group_id": "x"},
    ],
)
def test_the_digest_follows_what_decides_the_content(records, change) -> None:
    changed = [replace(records[0], **change), *records[1:]]
    whole = ShardSettings(samples=50)
    before, after = plan_shards(records, whole)[0].digest, plan_shards(changed, whole)[0].digest
    assert before != after
    assert before == plan_shards(records, whole)[0].digest
    assert before != plan_shards(records, replace(whole, images=ImageSettings(512)))[0].digest


@pytest.mark.parametrize("source", ["../etc", "a/b", ".hidden", "", "a\\b", "x" * 300])
def test_names_that_lead_elsewhere_are_refused(records, source) -> None:
    with pytest.raises(DataError, match=r"source .* is refused"):
        plan_shards([replace(records[0], source=source)], FIVE)


def test_nothing_is_an_error() -> None:
    records: list[MedCapRecord] = []
    with pytest.raises(DataError, match="nothing to convert"):
        plan_shards(records, FIVE)
