from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near_pictures import crowd, every_pair

from lavis_msmedcap.data_check.choices import MAX_NEAR
from lavis_msmedcap.data_check.likeness import reduced
from lavis_msmedcap.data_check.linking import Links
from lavis_msmedcap.data_check.near import _proposed, near_links, near_partners


def groups_of(pairs: list[tuple[int, int]], count: int) -> list[list[int]]:
    links = Links(count)
    for one, other in pairs:
        links.join(one, other)
    return links.groups()


@given(
    st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=8)), max_size=12),
    st.integers(0, MAX_NEAR),
    st.integers(1, 24),
)
def test_every_close_pair_of_different_labels_is_proposed(start, changes, bits, labels):
    hashes = list(start)
    for index, flipped in changes:
        hashes.append(hashes[index % len(start)] ^ sum(1 << bit for bit in flipped))
    codes = np.unique(np.array(hashes, dtype=np.uint64))
    label = np.arange(len(codes)) % labels
    found = {
        (min(pair), max(pair))
        for left, right in _proposed(codes, bits, lambda: label)
        for pair in zip(left.tolist(), right.tolist())
    }
    close = {
        (i, j)
        for i, j in itertools.combinations(range(len(codes)), 2)
        if bin(int(codes[i]) ^ int(codes[j])).count("1") <= bits
    }
    assert {(i, j) for i, j in close if label[i] != label[j]} <= found <= close


@pytest.mark.parametrize("seed", range(8))
def test_what_is_linked_is_what_comparing_everything_links(seed):
    pictures = crowd(seed)
    count = len(pictures.hashes)
    for bits in (0, 2, 4, MAX_NEAR):
        every = every_pair(pictures, bits)
        links = near_links(pictures, bits)
        assert set(links) <= every
        assert groups_of(links, count) == groups_of(sorted(every), count)
        assert len(links) == sum(len(group) - 1 for group in groups_of(links, count))


@pytest.mark.parametrize("few", [0, 16])
@pytest.mark.parametrize("seed", range(4))
def test_everybody_has_a_partner_in_each_part_that_has_one(monkeypatch, seed, few):
    monkeypatch.setattr("lavis_msmedcap.data_check.near._FEW", few)
    pictures = crowd(seed)
    count = len(pictures.hashes)
    generator = np.random.default_rng(seed)
    names = [("train", "a"), ("train", "b"), ("test", "a"), ("val", "b")]
    parts = [
        {names[i]: None for i in generator.choice(4, generator.integers(1, 3), replace=False)}
        for _ in range(count)
    ]
    every = every_pair(pictures, 4)
    groups = groups_of(sorted(every), count)
    found = near_partners(pictures, 4, groups, parts)
    assert {(min(pair), max(pair)) for pair in found} <= every
    both = every | {(other, one) for one, other in every}

    def reached(pairs):
        return {
            (picture, own, part)
            for picture, partner in pairs
            for own in parts[picture]
            for part in parts[partner]
            if own[0] != part[0]
        }

    assert reached(found) == reached(both) != set()


def test_thousands_of_pictures_with_one_hash_take_seconds():
    """What is alike among 3,000 of one hash is found, though no two others are."""
    greys = np.random.default_rng(0).integers(0, 256, (3000, 256), dtype=np.uint8)
    greys[2999] = greys[1]
    hashes = [0b1011] * 1500 + [0b1111] * 1500  # one bit apart
    start = time.process_time()
    pictures = reduced(hashes, [grey.tobytes() for grey in greys], [1.0] * 3000)
    assert near_links(pictures, 4) == [(1, 2999)]
    assert time.process_time() - start < 5


def test_nothing_and_out_of_range():
    nothing = reduced([], [], [])
    assert near_links(nothing, 4) == []
    with pytest.raises(ValueError, match="expected 0 to"):
        near_links(nothing, MAX_NEAR + 1)
