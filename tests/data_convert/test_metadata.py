"""Whole files of every format are in tests/regression/test_converted_data_told_who_...py."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.data_convert.metadata import without_metadata

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)


def encoded(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, form, **options)
    return buffer.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def png_chunk(name: bytes, content: bytes = b"") -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def riff_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def riff(inside: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(inside) + 4) + b"WEBP" + inside


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_bare_picture_stays_as_it_is_and_what_follows_it_goes(form: str) -> None:
    data = encoded(form)
    bare = without_metadata(data, form)
    assert bare == data
    assert without_metadata(data + b"a second picture", form) == data


@pytest.mark.parametrize(
    "added",
    [
        *(segment(marker, b"secret") for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE)),
        segment(0xE0, b"JFXX\0\x10secret"),
    ],
)
def test_segments_of_a_jpeg(added: bytes) -> None:
    data = encoded("JPEG")
    assert without_metadata(data[:2] + added + data[2:], "JPEG") == data
    filled = data[:2] + b"\xff\xff" + added + data[2:]  # fill bytes before a marker
    assert without_metadata(filled, "JPEG") == data


def test_what_tells_a_jpegs_colours_stays() -> None:
    data = encoded("JPEG")
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")
    with_adobe = data[:2] + adobe + data[2:]
    assert without_metadata(with_adobe, "JPEG") == with_adobe


def test_chunks_of_a_png() -> None:
    data = encoded("PNG", dpi=(72, 72))
    end = png_chunk(b"IEND")
    assert data.endswith(end)
    body = data[: -len(end)]
    secrets = b"".join(map(png_chunk, (b"tEXt", b"iTXt", b"eXIf", b"tIME", b"iCCP", b"puRe")))
    assert without_metadata(body + secrets + end, "PNG") == data
    gamma = png_chunk(b"gAMA", b"\0\0\xb1\x8f")
    head = data[:33]  # with IHDR
    with_gamma = head + gamma + data[33:]
    assert without_metadata(with_gamma, "PNG") == with_gamma


def test_chunks_of_a_webp() -> None:
    pixels = encoded("WEBP", lossless=True)[12:]
    size = struct.pack("<I", 30)[:3] + struct.pack("<I", 23)[:3]
    for flags, kept in ((0x2C, 0), (0x3C, 0x10)):  # ICC, EXIF and XMP; and alpha
        head = riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)
        bare = riff_chunk(b"VP8X", bytes([kept, 0, 0, 0]) + size)
        secret = riff_chunk(b"EXIF", b"odd") + riff_chunk(b"XMP ", b"even")
        assert without_metadata(riff(head + pixels + secret), "WEBP") == riff(bare + pixels)
    with pytest.raises(ValueError, match="an animation"):
        without_metadata(riff(head + riff_chunk(b"ANMF", pixels)), "WEBP")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_file_of_another_format_or_cut_anywhere_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match=r"no (JPEG|PNG|WebP) file"):
        without_metadata(b"<html>" * 4, form)
    data = encoded(form)
    for length in (*range(2, 64), *range(64, len(data) - 1, 37), len(data) - 2):
        with pytest.raises(ValueError, match=r"."):
            without_metadata(data[:length], form)
