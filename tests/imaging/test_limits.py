from __future__ import annotations

import pytest
from PIL import Image

from lavis_msmedcap.imaging.limits import (
    MAX_ASPECT,
    MAX_PIXELS,
    PILLOW_MAX_PIXELS,
    check_size,
)


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (10_000, 8_000), (8_000, 10_000), (1, MAX_ASPECT), (300, 3)]
)
def test_what_is_just_small_and_square_enough(width: int, height: int) -> None:
    check_size(width, height)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((0, 5), "has 0 x 5 pixels; expected at least one"),
        ((5, -1), "has 5 x -1 pixels; expected at least one"),
        ((10_000, 8_001), "10000 x 8001 pixels are more than 80000000 .*raise max_pixels"),
        ((MAX_ASPECT + 1, 1), "one side is more than 100 times the other"),
        ((3, 301), "3 x 301 pixels: one side is more than 100 times"),
    ],
)
def test_what_is_just_not(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_size(*size)


def test_the_limit_is_an_argument() -> None:
    check_size(10_000, 8_001, MAX_PIXELS + 10_000)
    with pytest.raises(ValueError, match="4 x 3 pixels are more than 11 "):
        check_size(4, 3, 11)


def test_pillows_limits_are_what_pillow_has() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS  # below it Pillow says nothing
    assert PILLOW_MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
