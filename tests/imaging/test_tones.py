from __future__ import annotations

import numpy as np
import pytest

from lavis_msmedcap.imaging.tones import stretch, to_uint8


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 7, 255]], np.int32), [0, 7, 255]),
        (np.array([[3, 7]], np.uint16), [3, 7]),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.1, 0.2]], np.float32), [26, 51]),
        (np.array([[-2.0, 2.0]], np.float32), [0, 255]),
        (np.array([[np.nan, 10.0, 20.0, np.inf]], np.float32), [0, 0, 255, 0]),
        (np.array([[40000, 40000]], np.uint16), [0, 0]),
        (np.array([[np.nan]], np.float32), [0]),
    ],
)
def test_to_uint8(values, expected):
    scaled = to_uint8(values)
    assert scaled.dtype == np.uint8
    assert scaled.ravel().tolist() == expected


def test_full_depth_is_scaled_as_viewers_do():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert to_uint8(np.repeat(values, 50, 0)).tolist()[0] == [0, 1, 128, 255]


def test_raw_values_in_a_corner_of_the_depth_are_stretched():
    values = np.arange(1000, 3000, dtype=np.uint16).reshape(40, 50)
    pixels = to_uint8(values)
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert pixels[20, 0] == 128  # 2000, the middle


def test_one_hot_pixel_does_not_turn_the_rest_black():
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    values[0, 0] = 65535
    pixels = to_uint8(values)
    assert pixels[0, 0] == 255
    assert 120 < pixels[32, 0] < 135


def test_a_small_lesion_on_black_is_seen():
    values = np.zeros((100, 100), np.int32)
    values[:2, :2] = -500  # 0.04 % of the pixels, less than the percentiles see
    assert to_uint8(values)[0, 0] == 0
    assert to_uint8(values)[50, 50] == 255


def test_padding_is_black_and_does_not_count():
    values = np.tile(np.arange(100, 200), (100, 1)).astype(np.int16) * 10
    values[:, :10] = -2000
    pixels = to_uint8(values, padding=values == -2000)
    assert pixels[:, :10].max() == 0
    assert pixels[0, 10] == 0
    assert pixels[0, 54] in (126, 127, 128)


def test_all_of_a_picture_is_the_same_whatever_else_is_in_the_batch():
    values = np.random.default_rng(0).integers(0, 4096, (1200, 1100), dtype=np.uint16)
    assert np.array_equal(to_uint8(values), to_uint8(values.astype(np.int64)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_stretch_is_linear_and_cut_off(dtype):
    values = np.array([0, 10, 20, 30, 40], dtype)
    assert stretch(values, 10, 30).tolist() == [0, 0, 128, 255, 255]
    assert stretch(values, 20, 20).tolist() == [0, 0, 0, 255, 255]
