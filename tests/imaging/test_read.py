from __future__ import annotations

import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.read import ReadOptions, read_image


def _photo(width=40, height=24, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture(params=[True, False], ids=["as LAVIS leaves it", "as Pillow has it"])
def truncation_flag(request):
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = request.param
    yield request.param
    ImageFile.LOAD_TRUNCATED_IMAGES = before


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_truncated_file_is_reported_whatever_the_global_flag(tmp_path, form, truncation_flag):
    whole = _encoded(_photo(200, 150), form)
    path = tmp_path / f"half.{form.lower()}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadImageError, match="half") as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert caught.value.reason
    assert ImageFile.LOAD_TRUNCATED_IMAGES is truncation_flag


def test_flag_survives_overlapping_reads(tmp_path, truncation_flag):
    _photo(300, 300).save(tmp_path / "a.png")
    (tmp_path / "bad.jpg").write_bytes(_encoded(_photo(300, 300), "JPEG")[:4000])
    outcomes = []

    def work():
        for _ in range(5):
            outcomes.append(read_image(tmp_path / "a.png").size)
            try:
                read_image(tmp_path / "bad.jpg")
            except BadImageError:
                outcomes.append("bad")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("bad") == 20
    assert outcomes.count((300, 300)) == 20
    assert ImageFile.LOAD_TRUNCATED_IMAGES is truncation_flag


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<html><body>404</body></html>", "web page"),
        (b"PK\x03\x04 something else", "not an image format"),
    ],
)
def test_files_that_are_no_images(tmp_path, content, message):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImageError, match=message):
        read_image(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(BadImageError, match="does not exist"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(BadImageError, match="folder"):
        read_image(tmp_path)


def test_decompression_bomb_is_a_bad_image(tmp_path):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(BadImageError, match="bomb"):
        read_image(tmp_path / "bomb.png")


def test_image_does_not_hold_the_file_open(tmp_path):
    path = tmp_path / "a.jpg"
    _photo().save(path)
    image = read_image(path)
    path.unlink()
    assert image.convert("L").size == (40, 24)


def test_a_file_without_pixels_is_a_bad_image(tmp_path):
    path = tmp_path / "empty.ppm"
    path.write_bytes(b"P6 0 5 255\n")
    with pytest.raises(BadImageError, match=r"empty\.ppm"):
        read_image(path)


def _png_of(width, height):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_size_is_asked_before_decoding(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(_png_of(12_000, 11_000))  # below Pillow's own limit
    with pytest.raises(BadImageError, match=r"12000 x 11000 pixels are more than 80000000.*raise"):
        read_image(path)
    path.write_bytes(_encoded(_photo(40, 24), "PNG"))
    with pytest.raises(BadImageError, match="40 x 24 pixels are more than 959"):
        read_image(path, ReadOptions(max_pixels=959))
    assert read_image(path, ReadOptions(max_pixels=960)).size == (40, 24)


def test_limit_holds_whatever_pillows_own_switch_says(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "a.png").write_bytes(_png_of(60_000, 60_000))
    with pytest.raises(BadImageError, match="more than 80000000"):
        read_image(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize("form", ["TIFF", "GIF", "JPEG", "BMP"])
def test_headers_that_announce_too_much(tmp_path, form):
    content = bytearray(_encoded(_photo(40, 24).convert("L"), form))
    huge = 40_000
    if form == "TIFF":  # width and height are among the 12-byte entries of the directory
        directory = struct.unpack_from("<I", content, 4)[0]
        for entry in range(directory + 2, len(content) - 11, 12):
            if struct.unpack_from("<H", content, entry)[0] in (256, 257):
                struct.pack_into("<HII", content, entry + 2, 4, 1, huge)
    elif form == "GIF":
        content[6:10] = struct.pack("<HH", huge, huge)
    elif form == "JPEG":
        place = content.index(b"\xff\xc0")
        content[place + 5 : place + 9] = struct.pack(">HH", huge, huge)
    else:
        content[18:26] = struct.pack("<ii", huge, huge)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(BadImageError, match="bomb"):
        read_image(tmp_path / "a")


def test_strips_without_detail_are_refused(tmp_path):
    path = tmp_path / "strip.png"
    Image.new("RGB", (1001, 10)).save(path)
    with pytest.raises(BadImageError, match="one side is more than 100 times the other"):
        read_image(path)
    Image.new("RGB", (1000, 10)).save(path)
    assert read_image(path).size == (1000, 10)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("frame=x", "frame=x is no number"),
        ("slice=0", "slices are of .nii"),
        ("frame=7", "no frame 7; the file has 1"),
        ("bytes=9", "expected bytes=OFFSET"),
        ("row=3", "expected row=NUMBER@COLUMN"),
    ],
)
def test_parts_that_a_file_does_not_have(tmp_path, part, message):
    _photo().save(tmp_path / "a.png")
    with pytest.raises(BadImageError, match=message) as caught:
        read_image(f"{tmp_path / 'a.png'}::{part}")
    assert caught.value.path == f"{tmp_path / 'a.png'}::{part}"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000"])
def test_damaged_bytes_are_bad_images_or_pictures(tmp_path, form):
    whole = _encoded(_photo(60, 50), form)
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 200), 4):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert read_image(path, ReadOptions(max_pixels=10**6)).mode == "RGB"
        except BadImageError as error:
            assert str(path) in str(error)  # noqa: PT017
