from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
from data_check_trees import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from lavis_msmedcap.data_check.choices import MAX_NEAR
from lavis_msmedcap.data_check.likeness import (
    MIN_EDGES,
    _proposed,
    difference_hash,
    grey_copy,
    near_pairs,
)


def distance(one: int, other: int) -> int:
    return bin(one ^ other).count("1")


def pairs_of(images: list[Image.Image], bits: int = 4) -> list[tuple[int, int]]:
    hashes = [difference_hash(image)[0] for image in images]
    return near_pairs(
        hashes, [grey_copy(i) for i in images], [i.width / i.height for i in images], bits
    )


def saved_again(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again": saved_again,
    "half the size": lambda image: image.resize((120, 100), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((420, 350), Image.Resampling.BICUBIC),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_found_among_others(change):
    others = [picture(seed, (240, 200)) for seed in range(60)]
    assert pairs_of([*others, change(others[17])]) == [(17, 60)]


def test_alike_but_for_one_place_is_another_picture():
    one = picture(3, (240, 200))
    nodule = one.copy()
    nodule.paste((255, 255, 255), (120, 60, 150, 85))
    assert distance(difference_hash(one)[0], difference_hash(nodule)[0]) <= 4
    assert pairs_of([one, nodule]) == []


def test_a_squeezed_picture_is_another_one():
    one = picture(3, (240, 200))
    assert pairs_of([one, one.resize((240, 120))]) == []


@pytest.mark.parametrize("level", [0, 7, 255])
def test_plain_pictures_have_no_telling_hash(level):
    pixels = np.full((80, 100, 3), level, dtype=np.uint8)
    assert difference_hash(Image.fromarray(pixels))[1] == 0
    noise = np.random.default_rng(0).integers(0, 2, pixels.shape, dtype=np.uint8)
    noisy = Image.fromarray(np.clip(pixels.astype(int) + noise, 0, 255).astype(np.uint8))
    assert difference_hash(noisy)[1] < MIN_EDGES
    assert difference_hash(picture(1))[1] >= MIN_EDGES


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=8)), max_size=12),
    st.integers(0, MAX_NEAR),
)
def test_every_close_pair_is_proposed_exactly_once(start, changes, bits):
    hashes = list(start)
    for index, flipped in changes:
        hashes.append(hashes[index % len(start)] ^ sum(1 << bit for bit in flipped))
    found = [
        (min(pair), max(pair))
        for left, right in _proposed(np.array(hashes, dtype=np.uint64), bits)
        for pair in zip(left.tolist(), right.tolist())
    ]
    expected = [
        (i, j)
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if distance(hashes[i], hashes[j]) <= bits
    ]
    assert sorted(found) == expected


def test_thousands_of_pictures_with_one_hash_take_seconds():
    """Each hash once costs work; what is alike among 3,000 of one hash is found all the same."""
    greys = np.random.default_rng(0).integers(0, 256, (3000, 256), dtype=np.uint8)
    greys[2999] = greys[1]
    hashes = [0b1011] * 1500 + [0b1111] * 1500  # one bit apart
    start = time.process_time()
    pairs = near_pairs(hashes, [grey.tobytes() for grey in greys], [1.0] * 3000, 4)
    assert pairs == [(1, 2999)]
    assert time.process_time() - start < 5


def test_pairs_are_those_of_comparing_everything():
    generator = np.random.default_rng(1)
    originals = generator.integers(0, 256, (8, 256)).astype(float)
    greys = [originals[i % 8] * 0.9 + generator.normal(0, 3, 256) for i in range(40)]
    rows = [np.clip(grey, 0, 255).astype(np.uint8).tobytes() for grey in greys]
    hashes = [i % 4 for i in range(40)]
    expected = [p for p in itertools.combinations(range(40), 2) if (p[1] - p[0]) % 8 == 0]
    assert near_pairs(hashes, rows, [1.0] * 40, 4) == expected


def test_nothing_and_out_of_range():
    assert near_pairs([], [], [], 4) == []
    with pytest.raises(ValueError, match="expected 0 to"):
        near_pairs([], [], [], MAX_NEAR + 1)
