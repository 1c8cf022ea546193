from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.selection import (
    drop_missing_images,
    drop_short_captions,
    merge_repeated,
    split_by_group,
    take_at_most,
)
from lavis_msmedcap.datasets.records import MedCapRecord

FRACTIONS = {"train": 0.6, "val": 0.1, "test": 0.3}


def _record(number, group="", image="", split="train"):
    return MedCapRecord(
        image=image or f"/images/{number}.png",
        captions=("A caption.",),
        image_id=f"image{number}",
        split=split,
        group_id=group or None,
        source="medicat",
        domain="medical",
    )


def test_groups_stay_together_and_shares_come_out():
    records = [_record(i, f"article{i // 2}") for i in range(8000)]
    assigned = split_by_group(records, FRACTIONS, seed=0)
    assert [r.image_id for r in assigned] == [r.image_id for r in records]
    splits = {}
    for record in assigned:
        assert splits.setdefault(record.group_id, record.split) == record.split
    shares = Counter(r.split for r in assigned)
    for split, share in FRACTIONS.items():
        assert abs(shares[split] / len(records) - share) < 0.02


@given(
    st.lists(st.integers(0, 400), unique=True, max_size=60),
    st.lists(st.integers(401, 800), unique=True, max_size=60),
    st.integers(0, 10),
)
def test_split_does_not_move_when_records_are_added(first, more, seed):
    before = split_by_group([_record(i, f"g{i // 3}") for i in first], FRACTIONS, seed)
    after = split_by_group([_record(i, f"g{i // 3}") for i in more + first[::-1]], FRACTIONS, seed)
    by_id = {r.image_id: r.split for r in after}
    assert all(by_id[r.image_id] == r.split for r in before)


def test_seed_and_missing_share():
    records = [_record(i) for i in range(500)]
    report = ReadReport("medicat", kept=Counter(train=500))
    some = split_by_group(records, {"train": 0.5}, 0, report)
    other = split_by_group(records, {"train": 0.5}, 1)
    assert {r.split for r in some} == {"train"}
    assert 200 < len(some) < 300
    assert {r.image_id for r in some} != {r.image_id for r in other}
    assert report.n_read == 500
    assert report.kept == {"train": len(some)}
    assert len(split_by_group(records, {"train": 0.7, "val": 0.1, "test": 0.2}, 0)) == 500
    assert {r.split for r in split_by_group(records, {"train": 0.5, "val": 0.5}, 0)} == {
        "train",
        "val",
    }


@pytest.mark.parametrize(
    "fractions", [{"train": 0.9, "test": 0.2}, {"train": -0.1}, {"training": 0.5}]
)
def test_impossible_fractions(fractions):
    with pytest.raises(DataError, match="fractions"):
        split_by_group([], fractions, 0)


def test_take_at_most_is_seeded_ordered_and_nested():
    records = [_record(i) for i in range(100)]
    report = ReadReport("medicat", kept=Counter(train=100))
    ten = take_at_most(records, 10, 0, report)
    assert report.kept["train"] == 10
    assert report.dropped == {"above max_samples": 90}
    assert len(ten) == 10
    numbers = [records.index(r) for r in ten]
    assert numbers == sorted(numbers)
    assert {r.image_id for r in ten} <= {r.image_id for r in take_at_most(records, 20, 0)}
    assert ten != take_at_most(records, 10, 1)
    assert set(take_at_most(records[::-1], 10, 0)) == set(ten)
    assert take_at_most(records, None, 0) == records
    assert take_at_most(records, 0, 0) == []


def test_missing_images_up_to_a_ceiling(tmp_path, make):
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for path in paths[1:]:
        make.save(path)
    records = [_record(i, image=str(path)) for i, path in enumerate(paths)]
    report = ReadReport("medicat", kept=Counter(train=10))
    assert drop_missing_images(records, 0.1, "datasets.medicat.max_missing", report) == records[1:]
    assert report.dropped == {"image missing": 1}
    assert report.kept == {"train": 9}
    with pytest.raises(DataError) as caught:
        drop_missing_images(records, 0.05, "datasets.medicat.max_missing")
    message = str(caught.value)
    assert str(paths[0]) in message
    assert "1 of 10" in message
    assert "datasets.medicat.max_missing" in message
    assert drop_missing_images([], 0.0, "key") == []


def test_whole_folder_missing(tmp_path):
    records = [_record(i, image=str(tmp_path / "gone" / f"{i}.png")) for i in range(3)]
    with pytest.raises(DataError, match="3 of 3"):
        drop_missing_images(records, 0.5, "key")


@given(
    st.lists(st.text("abc", min_size=1), unique=True, min_size=3, max_size=12), st.integers(0, 9)
)
def test_a_dozen_images_fill_every_split_that_has_a_share(groups, seed):
    records = [_record(i, group) for i, group in enumerate(groups) for _ in range(2)]
    filled = split_by_group(records, FRACTIONS, seed, fill=True)
    assert {r.split for r in filled} == set(FRACTIONS)
    splits = {}
    for record in filled:
        assert splits.setdefault(record.group_id, record.split) == record.split
    assert {r.split for r in split_by_group(records, {"train": 1.0}, seed, fill=True)} == {"train"}
    plain = split_by_group(records, FRACTIONS, seed)
    if {r.split for r in plain} == set(FRACTIONS):
        assert filled == plain


def test_too_few_groups_to_fill_every_split():
    assert len(split_by_group([_record(1)], FRACTIONS, 0, fill=True)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_an_image_never_stands_in_two_splits(tmp_path, seed):
    """Whatever its rows say: an id per caption, a patient in one row only, two ways to write it."""
    (tmp_path / "linked").symlink_to(tmp_path)
    records = []
    for number in range(60):
        image = f"{tmp_path}/{number}.png"
        records += [
            _record(number * 4, image=image),
            _record(number * 4 + 1, image=image),
            _record(number * 4 + 2, f"patient{number}", image=image),
            _record(number * 4 + 3, image=f"{tmp_path}/linked/{number}.png"),
            # the patient's other image
            _record(1000 + number, f"patient{number}", image=f"{tmp_path}/{number}-b.png"),
        ]
    assigned = split_by_group(records, FRACTIONS, seed, fill=True)
    by_patient = [{r.split for r in assigned[i : i + 5]} for i in range(0, 300, 5)]
    assert [len(splits) for splits in by_patient] == [1] * 60
    assert set.union(*by_patient) == set(FRACTIONS)
    # the patient's name decides, as without the rows that lack it
    alone = split_by_group(records[4::5], FRACTIONS, seed)
    assert [r.split for r in alone] == [r.split for r in assigned[4::5]]


def test_slices_of_a_scan_stay_together_and_members_of_an_archive_do_not():
    slices = [_record(i, image=f"/d/{i % 9}.nii.gz::slice={i}") for i in range(90)]
    splits = {}
    for record in split_by_group(slices, FRACTIONS, 0):
        assert splits.setdefault(record.image.partition("::")[0], record.split) == record.split
    members = [_record(i, image=f"/d/0.tar::bytes={i}+1") for i in range(90)]
    assert {r.split for r in split_by_group(members, FRACTIONS, 0)} == set(FRACTIONS)
    assert len(merge_repeated(slices)) == 90


def test_filled_splits_are_told():
    report = ReadReport("caption_table")
    split_by_group([_record(i) for i in range(3)], FRACTIONS, 0, report, fill=True)
    (note,) = report.notes
    assert "of 3 groups moved to fill an empty split; more data may move them" in report.summary()
    assert report.notes[note] > 0
    many = ReadReport("caption_table")
    split_by_group([_record(i) for i in range(300)], FRACTIONS, 0, many, fill=True)
    assert not many.notes


def test_rows_of_one_image_become_one_record_whatever_their_ids(tmp_path):
    (tmp_path / "linked").symlink_to(tmp_path)
    first = _record(1, image=f"{tmp_path}/1.png")
    second = replace(
        _record(2, "P1", image=f"{tmp_path}/linked/1.png"), captions=("Another caption.",)
    )
    expected = replace(first, captions=("A caption.", "Another caption."), group_id="P1")
    assert merge_repeated([first, second]) == [expected]
    with pytest.raises(DataError, match=r"image id image2 .* stands for two images"):
        merge_repeated([first, second, _record(2, image=f"{tmp_path}/2.png")])


def test_repeated_images_become_one_record_where_the_first_stood():
    first, second = _record(1), _record(2)
    report = ReadReport("medicat", kept=Counter(train=4))
    other = replace(first, captions=("A caption.", "Another one."))
    assert merge_repeated([first, second, first, other], report) == [other, second]
    assert report.kept == {"train": 2}
    assert report.dropped == {"repeated image": 2}
    assert report.notes == {"repeated images with another caption, which was added": 1}


@pytest.mark.parametrize("split", ["train", "val"])
def test_short_captions_leave_training_only(split):
    records = [
        replace(_record(i), captions=captions, split=split)
        for i, captions in enumerate([("TC.", "Case 2."), ("Axial CT scan.", "XXX."), ("A b c",)])
    ]
    report = ReadReport("medicat", kept=Counter({split: 3}))
    kept = drop_short_captions(records, 3, report)
    if split == "val":
        assert kept == records
        assert report.notes == {"val references of fewer than 3 words, kept": 3}
        assert report.kept == {"val": 3}
        return
    assert [r.captions for r in kept] == [("Axial CT scan.",), ("A b c",)]
    assert report.dropped == {"with captions of fewer than 3 words": 1}
    assert report.n_read == 3


def test_an_image_inside_a_file_is_there_if_the_file_is(tmp_path):
    (tmp_path / "a.parquet").touch()
    names = [f"{tmp_path}/a.parquet::row=1@image", f"{tmp_path}/b.tar::bytes=0+9"]
    records = [_record(i, image=name) for i, name in enumerate(names)]
    assert drop_missing_images(records, 0.5, "key") == records[:1]
