"""Of n frames that show the same, ``data check`` kept all n² / 2 pairs: 1.5 GB for 4,000."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from data_check_trees import record
from near_pictures import crowd, every_pair, frames

from lavis_msmedcap.data_check import likeness
from lavis_msmedcap.data_check.duplicates import fingerprints, linked
from lavis_msmedcap.data_check.images import ImageFacts
from lavis_msmedcap.data_check.leaks import NEAR, Fingerprints, leaks
from lavis_msmedcap.data_check.likeness import Pictures
from lavis_msmedcap.data_check.near import near_links
from lavis_msmedcap.datasets.records import MedCapRecord

PARTS = (("train", "a"), ("test", "a"), ("train", "b"), ("val", "b"))


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the pairs of grey copies that are compared."""
    counts: Counter[str] = Counter()
    compare = likeness._same_picture

    def counting(one: Any, other: Any) -> Any:
        counts["pairs"] += len(one)
        return compare(one, other)

    monkeypatch.setattr(likeness, "_same_picture", counting)
    return counts


def peak(pictures: Pictures) -> int:
    tracemalloc.start()
    near_links(pictures, 4)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("bits", [0, 6, 14])
def test_each_frame_is_compared_a_few_times(compared: Counter[str], bits: int) -> None:
    for count in (1_000, 4_000):
        compared.clear()
        assert len(near_links(frames(count, bits), 4)) == count - 1
        assert compared["pairs"] < 4 * count


def test_memory_does_not_grow_with_the_pairs() -> None:
    assert peak(frames(8_000, 0)) < 6 * peak(frames(2_000, 0))  # pairs would take 16 times as much


def facts_of(pictures: Pictures, twins: list[int]) -> list[ImageFacts]:
    """Facts of images; ``twins`` says which picture each shows."""
    return [
        ImageFacts(
            file=b"file %d" % index,
            pixels=b"pixels %d" % picture,
            width=1000,
            height=round(1000 / np.exp(pictures.shapes[picture])),
            hash=int(pictures.hashes[picture]),
            grey=pictures.greys[picture].tobytes(),
        )
        for index, picture in enumerate(twins)
    ]


def records_of(count: int, seed: int) -> list[MedCapRecord]:
    chosen = np.random.default_rng(seed).integers(0, len(PARTS), count)
    return [
        record(i, PARTS[part][0], source=PARTS[part][1]) for i, part in enumerate(chosen.tolist())
    ]


@pytest.mark.parametrize("seed", range(6))
def test_the_same_images_are_told_as_before(seed: int) -> None:
    pictures = crowd(seed)
    generator = np.random.default_rng(seed)
    twins = generator.integers(0, len(pictures.hashes), 200).tolist()
    records = records_of(len(twins), seed)
    prints = fingerprints(facts_of(pictures, twins), records, 4)
    alike = every_pair(pictures, 4)
    every = [
        (i, j)
        for i, j in combinations(range(len(twins)), 2)
        if (min(twins[i], twins[j]), max(twins[i], twins[j])) in alike
    ]
    assert set(prints.near) <= set(every)
    assert linked(prints.near, len(twins)) == linked(every, len(twins))
    before = Fingerprints(prints.file, prints.pixels, every)
    now, then = (leaks(records, p).overlaps for p in (prints, before))
    told = [
        [(o.kind, o.split, o.other, o.images, o.datasets) for o in some] for some in (now, then)
    ]
    assert told[0] == told[1]
    assert NEAR in {overlap.kind for overlap in now}


def test_pairs_of_records_do_not_grow_with_the_square(compared: Counter[str]) -> None:
    """Frames of several splits, and of each picture several files."""
    for count in (500, 2_000):
        compared.clear()
        twins = [number // 4 for number in range(count)]
        twins[: count // 2] = [0] * (count // 2)  # one picture stands in half of all files
        records = records_of(count, 0)
        prints = fingerprints(facts_of(frames(count // 4, 0), twins), records, 4)
        assert len(prints.near) < 6 * count
        assert compared["pairs"] < 40 * count
        (group,) = linked(prints.near, count)
        assert group == [*range(count)]
        touched = {i for leak in leaks(records, prints).of_kind(NEAR) for i in leak.indices}
        assert touched == set(range(count))
