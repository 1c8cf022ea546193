from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.imaging.deep_colours import deep_mode, read_deep
from lavis_msmedcap.imaging.tones import to_uint8

RAW = (np.arange(600).reshape(20, 30) * 6).astype(np.uint16)  # 0..3594: 12 bits in 16
COLOURS = np.stack([RAW, RAW // 2, 3594 - RAW], axis=2)


def saved(path: Path, *channels: Any) -> Path:
    """Writes 16 bits per channel, in the order that OpenCV wants them."""
    order = [2, 1, 0, 3][: len(channels)]
    assert cv2.imwrite(str(path), np.stack([channels[place] for place in order], axis=2))
    return path


def read(path: Path) -> tuple[Image.Image, Image.Image]:
    """Returns what Pillow makes of a file, and what is made of it here."""
    with path.open("rb") as file, Image.open(file) as image:
        mode = deep_mode(image)
        assert mode
        image.load()
        return image, read_deep(file, image, mode)


def channels(alpha: Any = None) -> list[Any]:
    parts = list(np.moveaxis(COLOURS, 2, 0))
    return parts if alpha is None else [*parts, np.broadcast_to(alpha, RAW.shape).astype(np.uint16)]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_all_colours_are_stretched_as_one(tmp_path: Path, suffix: str) -> None:
    _, shown = read(saved(tmp_path / f"a.{suffix}", *channels()))
    assert shown.mode == "RGB"
    assert np.array_equal(np.asarray(shown), to_uint8(COLOURS, None))
    assert np.asarray(shown).max() == 255


def test_transparency_keeps_its_upper_bits(tmp_path: Path) -> None:
    alpha = np.linspace(256, 65535, 600).reshape(RAW.shape)
    _, shown = read(saved(tmp_path / "a.png", *channels(alpha)))
    assert shown.mode == "RGBA"
    assert np.array_equal(np.asarray(shown)[..., 3], alpha.astype(np.uint16) >> 8)
    assert np.array_equal(np.asarray(shown)[..., :3], to_uint8(COLOURS, None))


@pytest.mark.parametrize(
    "parts",
    [
        [part * 18 for part in channels()],  # made for display
        [np.full_like(RAW, 700)] * 3,  # nothing to stretch
        channels(alpha=0),  # nothing to see
    ],
    ids=["display", "flat", "transparent"],
)
def test_pillows_picture_stays_where_there_is_nothing_to_gain(
    tmp_path: Path, parts: list[Any]
) -> None:
    upper, shown = read(saved(tmp_path / "a.png", *parts))
    assert shown is upper


def test_other_files_are_none_of_these(tmp_path: Path) -> None:
    bytes_only = COLOURS.astype(np.uint8)
    files = [("rgb.png", bytes_only), ("rgb.jpg", bytes_only), ("grey.png", RAW), ("g.tif", RAW)]
    for name, pixels in files:
        assert cv2.imwrite(str(tmp_path / name), pixels)
        with Image.open(tmp_path / name) as image:
            assert deep_mode(image) == ""
    assert deep_mode(Image.fromarray(bytes_only)) == ""  # of no file


def test_a_loaded_file_does_not_tell_any_more(tmp_path: Path) -> None:
    with Image.open(saved(tmp_path / "a.png", *channels())) as image:
        assert deep_mode(image) == "RGB;16B"
        image.load()
        assert deep_mode(image) == ""
