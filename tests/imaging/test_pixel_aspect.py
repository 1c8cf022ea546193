from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.imaging.pixel_aspect import square_pixels

MANY = 10_000


def picture() -> Image.Image:
    return Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [
        (2.0, 1.0, (8, 12)),  # rows far apart: higher
        (1.0, 2.0, (16, 6)),
        (5.0, 4.0, (8, 8)),  # 7.5 rows, rounded to even
        (0.5, 10.0, (160, 6)),  # 20 times, the most
        (1.02, 1.0, (8, 6)),  # beyond 1 %, and less than a row
    ],
)
def test_the_coarser_side_grows(rows: float, columns: float, size: tuple[int, int]) -> None:
    image = picture()
    shown = square_pixels(image, rows, columns, MANY)
    assert shown is not image
    assert shown.size == size


def test_values_stay_where_they_are_in_the_body() -> None:
    shown = np.asarray(square_pixels(picture(), 3.0, 1.0, MANY))
    assert np.array_equal(shown[1::3], np.asarray(picture()))  # the middle of each stored row


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (0.7, 0.7),
        (1.009, 1.0),
        (1.0, 1.009),
        (0.0, 1.0),
        (1.0, -2.0),
        (float("nan"), 1.0),
        (1.0, float("nan")),
        (20.1, 1.0),
        (1.0, 20.1),
    ],
)
def test_square_or_senseless_spacings_change_nothing(rows: float, columns: float) -> None:
    image = picture()
    assert square_pixels(image, rows, columns, MANY) is image


def test_a_result_that_is_too_large_is_refused() -> None:
    assert square_pixels(picture(), 2.0, 1.0, 96).size == (8, 12)
    with pytest.raises(ValueError, match="8 x 12 pixels are more than 95"):
        square_pixels(picture(), 2.0, 1.0, 95)
