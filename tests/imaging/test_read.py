from __future__ import annotations

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.raster import to_rgb
from lavis_msmedcap.imaging.read import read_image
from lavis_msmedcap.imaging.tones import to_uint8


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


def test_rgb_png_is_read_unchanged(tmp_path):
    photo = _photo()
    photo.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert np.array_equal(np.array(image), np.array(photo))


def test_sixteen_bit_ramp_keeps_its_shades(tmp_path):
    ramp = np.linspace(0, 65535, 256 * 8).astype(np.uint16).reshape(8, 256)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    pixels = np.array(read_image(tmp_path / "ramp.png"))[..., 0]
    assert np.abs(pixels.astype(int) - np.rint(ramp / 257.0)).max() <= 1
    clipped = np.array(Image.open(tmp_path / "ramp.png").convert("RGB"))
    assert (clipped == 255).mean() > 0.9  # what the conversion without scaling does


def test_twelve_bits_in_a_sixteen_bit_file_fill_the_range(tmp_path):
    ramp = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "ct.tif")
    pixels = np.array(read_image(tmp_path / "ct.tif"))[..., 0].ravel()
    assert pixels[0] == 0
    assert pixels[-1] == 255
    assert np.all(np.diff(pixels.astype(int)) >= 0)
    assert len(np.unique(pixels)) == 256


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


def test_float_tiff(tmp_path):
    Image.fromarray(np.linspace(-1, 3, 100, dtype=np.float32).reshape(10, 10)).save(
        tmp_path / "f.tif"
    )
    pixels = np.array(read_image(tmp_path / "f.tif"))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_transparency_becomes_white_page(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 0] = 200
    rgba[:2, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    pixels = np.array(read_image(tmp_path / "rgba.png"))
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert pixels[3, 3].tolist() == [255, 255, 255]


def test_grey_with_alpha_and_palette_with_transparent_entry(tmp_path):
    Image.merge("LA", [Image.new("L", (2, 1), 10), Image.new("L", (2, 1), 0)]).save(
        tmp_path / "la.png"
    )
    assert np.array(read_image(tmp_path / "la.png")).min() == 255
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.array(read_image(tmp_path / "p.png")).tolist() == [[[255, 255, 255], [9, 8, 7]]]
    palette.save(tmp_path / "opaque.png")
    assert np.array(read_image(tmp_path / "opaque.png")).tolist() == [[[0, 0, 0], [9, 8, 7]]]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "RGB"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / "image.tif"
    _photo().convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.size == (40, 24)
    expected = np.array(_photo().convert(mode).convert("RGB"))
    assert np.array_equal(np.array(image), expected)


def test_exif_orientation_is_applied(tmp_path):
    half = np.zeros((16, 48, 3), np.uint8)
    half[:, :24] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Image.fromarray(half).save(tmp_path / "side.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "side.jpg")
    assert image.size == (16, 48)
    pixels = np.array(image)
    assert pixels[:20].min() > 200  # white is on top now
    assert pixels[-20:].max() < 50


def test_broken_exif_does_not_cost_the_picture(tmp_path):
    whole = _encoded(_photo(), "JPEG")
    payload = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + b"\x99" * 20
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    (tmp_path / "exif.jpg").write_bytes(whole[:2] + segment + whole[2:])
    assert read_image(tmp_path / "exif.jpg").size == (40, 24)


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


def test_to_rgb_leaves_rgb_alone():
    photo = _photo()
    assert to_rgb(photo) is photo


def test_a_file_without_pixels_is_a_bad_image(tmp_path):
    path = tmp_path / "empty.ppm"
    path.write_bytes(b"P6 0 5 255\n")
    with pytest.raises(BadImageError, match=r"empty\.ppm"):
        read_image(path)
