from __future__ import annotations

import gc
import time
from collections import Counter

import pytest
from data_check_trees import record

from lavis_msmedcap.data_check.leaks import (
    CAPTION,
    FILE,
    GROUP,
    NEAR,
    PIXELS,
    Fingerprints,
    Overlap,
    caption_key,
    group_keys,
    leaks,
)


@pytest.mark.parametrize(
    ("group", "source", "expected"),
    [
        ("PMC4608653", "roco", {"PMC4608653"}),
        ("pmc4608653", "rocov2", {"PMC4608653"}),
        ("PMC4608653_cro-0008-0385-g01.jpg", "mine", {"PMC4608653"}),
        ("PMC-00017", "mine", {"mine: PMC-00017"}),
        ("PMC00017", "mine", {"mine: PMC00017"}),
        ("10.2024/00017", "mine", {"mine: 10.2024/00017"}),
        ("https://www.ncbi.nlm.nih.gov/pmc/articles/PMC4608653/", "mine", {"PMC4608653"}),
        ("https://doi.org/10.1000/ABC.1", "mine", {"10.1000/abc.1"}),
        ("10.1000/abc.1", "other", {"10.1000/abc.1"}),
        ("a" * 40, "medicat", {"a" * 40}),
        ("patient 12", "mine", {"mine: patient 12"}),
        ("p1 && PMC4608653", "mine", {"mine: p1", "PMC4608653"}),
        ("12", "other", {"other: 12"}),
        (None, "mine", set()),
    ],
)
def test_groups_are_comparable_only_where_ids_mean_the_same(group, source, expected):
    assert group_keys(record(1, group=group, source=source)) == expected


def test_an_article_in_the_name_counts_where_there_is_no_group():
    old_name = record(1, image="/kaggle/PMC4240561_MA-68-291-g002.jpg")
    assert group_keys(old_name) == {"PMC4240561"}
    own = record(1, image="/kaggle/PMC4240561_a.jpg", group="p1")
    assert group_keys(own) == {"roco: p1"}


def test_short_captions_prove_nothing():
    assert caption_key("Chest X-ray.") == ""
    long = "Axial  CT of the\u2028chest with contrast."
    assert caption_key(long) == caption_key("AXIAL CT of the chest with contrast.") != ""


def test_leaks_by_group_and_caption_within_and_across_data_sets():
    text = "Axial CT of the chest with contrast."
    records = [
        record(0, "train", "PMC10001"),
        record(1, "test", "PMC10001"),
        record(2, "test", "PMC10001"),
        record(3, "train", "pmc10002", "rocov2"),
        record(4, "test", "PMC10002"),
        record(5, "val", "PMC3", caption=text),
        record(6, "train", "PMC4", "rocov2", caption=text),
        record(7, "train", "PMC5"),
        record(8, "train", "PMC5"),
        record(9, "test", "12"),
        record(10, "train", "12", "rocov2"),
    ]
    report = leaks(records)
    assert [(leak.kind, leak.key, leak.indices) for leak in report.leaks] == [
        (GROUP, "PMC10001", (0, 1, 2)),
        (GROUP, "PMC10002", (3, 4)),
        (CAPTION, caption_key(text), (5, 6)),
    ]
    assert report.overlaps == [
        Overlap(
            GROUP, "test", "train", 3, 4, 2, Counter({("roco", "roco"): 2, ("roco", "rocov2"): 1})
        ),
        Overlap(CAPTION, "val", "train", 1, 1, 1, Counter({("roco", "rocov2"): 1})),
    ]


def test_image_leaks_are_told_once_by_the_surest_sign():
    records = [
        record(0, "train"),
        record(1, "test"),  # the same file
        record(2, "val"),  # the same pixels in another file
        record(3, "test"),  # resembles 0
        record(4, "train"),  # resembles 0, in its own split
        record(5, "test"),  # unreadable, as 6
        record(6, "train"),
    ]
    prints = Fingerprints(
        file=[b"a", b"a", b"b", b"c", b"d", b"", b""],
        pixels=[b"p", b"p", b"p", b"q", b"r", b"", b""],
        near=[(0, 3), (0, 4)],
    )
    found = [(leak.kind, leak.indices) for leak in leaks(records, prints).leaks]
    assert found == [(FILE, (0, 1)), (PIXELS, (0, 1, 2)), (NEAR, (0, 3))]


def test_one_file_in_two_splits_is_noticed_without_looking_at_it():
    records = [record(0, "train", image="/a.png"), record(1, "test", image="/a.png")]
    assert [leak.kind for leak in leaks(records).leaks] == [FILE]


def seconds_for(count: int) -> float:
    splits = ("train", "train", "train", "val", "test")
    records = [
        record(i, splits[i % 5], f"PMC{i // 3}", caption=f"Axial CT number {i} of the same chest.")
        for i in range(count)
    ]
    gc.disable()  # which looks at all objects of the process, whoever made them
    try:
        started = time.process_time()
        report = leaks(records)
        needed = time.process_time() - started
    finally:
        gc.enable()
    assert len(report.of_kind(GROUP)) > count / 4
    return needed


def test_time_grows_with_the_records_not_with_their_pairs():
    seconds_for(1_000)  # what is loaded and compiled once
    assert seconds_for(100_000) < 10 * seconds_for(25_000)  # pairs would take 16 times as long
