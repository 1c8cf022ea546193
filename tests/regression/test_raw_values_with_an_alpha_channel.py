"""12 bits in a 16-bit file were nearly black once the file had colours or an alpha channel.

Pillow drops the lower 8 bits of such files; greyscale ones were scaled all along.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.data_convert.images import ImageSettings, store_image
from lavis_msmedcap.imaging.read import read_image

GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # colour types of PNG
RAMP = (np.arange(600).reshape(20, 30) * 6).astype(np.uint16)  # 0..3594
OPAQUE = np.full_like(RAMP, 65535)


def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(path: Path, channels: list[Any], colour_type: int, exif: bytes = b"") -> Path:
    """Writes 16 bits per channel, which Pillow does for one channel only."""
    pixels = np.stack(channels, -1).astype(">u2")
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    extra = chunk(b"eXIf", exif) if exif else b""
    parts = [chunk(b"IHDR", head), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def grey_of(path: Path) -> Any:
    pixels = np.asarray(read_image(path))
    assert (pixels[..., :1] == pixels).all()
    return pixels[..., 0].astype(int)


@pytest.mark.parametrize(
    ("channels", "colour_type"),
    [
        ([RAMP, OPAQUE], GREY_ALPHA),
        ([RAMP, RAMP, RAMP], RGB),
        ([RAMP, RAMP, RAMP, OPAQUE], RGB_ALPHA),
    ],
)
def test_it_is_shown_as_greyscale_is(tmp_path: Path, channels: list[Any], colour_type: int) -> None:
    expected = grey_of(png(tmp_path / "grey.png", [RAMP], GREY))
    path = png(tmp_path / "a.png", channels, colour_type)
    assert np.abs(grey_of(path) - expected).max() <= 1
    stored = store_image(str(path), ImageSettings())
    assert stored.how == "stored as PNG: PNG of 16 bits"
    (tmp_path / "stored.png").write_bytes(stored.data)
    assert np.array_equal(grey_of(tmp_path / "stored.png"), grey_of(path))


def test_colours_keep_their_order_and_the_page_is_white(tmp_path: Path) -> None:
    alpha = OPAQUE.copy()
    alpha[:10] = 0
    red = np.where(alpha > 0, RAMP, 60000)  # what nobody sees does not count
    path = png(tmp_path / "a.png", [red, RAMP // 2, RAMP * 0, alpha], RGB_ALPHA)
    pixels = np.asarray(read_image(path)).astype(int)
    assert (pixels[:10] == 255).all()
    assert abs(pixels[-1, -1] - [255, 128, 0]).max() <= 1


def test_files_made_for_display_stay_as_they_were(tmp_path: Path) -> None:
    bright = RAMP * 18
    path = png(tmp_path / "a.png", [bright, bright // 2, bright // 3], RGB)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(read_image(path)), np.asarray(image.convert("RGB")))


def test_exif_still_turns_it(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    exif = turned.tobytes().removeprefix(b"Exif\0\0")
    plain = png(tmp_path / "plain.png", [RAMP] * 3, RGB)
    path = png(tmp_path / "a.png", [RAMP] * 3, RGB, exif)
    assert np.array_equal(grey_of(path), np.rot90(grey_of(plain), -1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_too(tmp_path: Path, order: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    colours = np.stack([RAMP, RAMP // 2, RAMP * 0], -1)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", byteorder=order)
    expected = np.asarray(
        read_image(png(tmp_path / "a.png", list(np.moveaxis(colours, 2, 0)), RGB))
    )
    assert expected.max() == 255
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.tif")), expected)
