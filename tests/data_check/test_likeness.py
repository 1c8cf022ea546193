from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from data_check_trees import picture
from PIL import Image, ImageEnhance

from lavis_msmedcap.data_check.likeness import MIN_EDGES, difference_hash, grey_copy, reduced
from lavis_msmedcap.data_check.near import near_links


def distance(one: int, other: int) -> int:
    return bin(one ^ other).count("1")


def pairs_of(images: list[Image.Image], bits: int = 4) -> list[tuple[int, int]]:
    hashes = [difference_hash(image)[0] for image in images]
    ratios = [image.width / image.height for image in images]
    return near_links(reduced(hashes, [grey_copy(i) for i in images], ratios), bits)


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
