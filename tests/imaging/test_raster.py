from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.raster import to_rgb
from lavis_msmedcap.imaging.read import read_image


def _photo(width=40, height=24, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


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


def test_to_rgb_leaves_rgb_alone():
    photo = _photo()
    assert to_rgb(photo) is photo


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "WEBP", "GIF"])
def test_lossless_formats_keep_every_value(tmp_path, form):
    photo = _photo().quantize(64).convert("RGB") if form == "GIF" else _photo()
    options = {"lossless": True} if form == "WEBP" else {}
    (tmp_path / "picture").write_bytes(_encoded(photo, form, **options))  # by content, not suffix
    assert np.array_equal(np.array(read_image(tmp_path / "picture")), np.array(photo))


def test_first_frame_of_an_animation_and_a_chosen_one(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for name in ("a.gif", "a.tif", "a.png"):
        path = tmp_path / name
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert read_image(path).getpixel((0, 0)) == expected[0]
        for number in range(3):
            assert read_image(f"{path}::frame={number}").getpixel((3, 3)) == expected[number]
        with pytest.raises(BadImageError, match=r"::frame=3: no frame 3; the file has 3"):
            read_image(f"{path}::frame=3")


def test_ink_of_cmyk_files(tmp_path):
    inks = np.array([[[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255]]], np.uint8)
    inks = inks.repeat(16, 0).repeat(16, 1)
    cyan_magenta_yellow_black = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]
    picture = _cmyk(inks)
    picture.save(tmp_path / "a.tif")
    pixels = np.array(read_image(tmp_path / "a.tif"))
    assert pixels[8, 8::16].tolist() == cyan_magenta_yellow_black

    # JPEG stores ink as Photoshop does, inverted, and says so in a marker of Adobe's
    content = _encoded(picture, "JPEG", quality=100)
    (tmp_path / "adobe.jpg").write_bytes(content)
    pixels = np.array(read_image(tmp_path / "adobe.jpg")).astype(int)
    assert np.abs(pixels[8, 8::16] - cyan_magenta_yellow_black).max() <= 2
    marker = content.index(b"\xff\xee")
    length = int.from_bytes(content[marker + 2 : marker + 4], "big") + 2
    assert content[marker + 4 : marker + 9] == b"Adobe"
    (tmp_path / "plain.jpg").write_bytes(content[:marker] + content[marker + length :])
    pixels = np.array(read_image(tmp_path / "plain.jpg")).astype(int)
    assert np.abs(pixels[8, 8::16] - cyan_magenta_yellow_black).max() <= 2  # as browsers do


def _cmyk(inks):
    return Image.merge("CMYK", [Image.fromarray(inks[..., channel]) for channel in range(4)])


def test_half_transparent_pixels_are_mixed_with_the_page(tmp_path):
    Image.new("RGBA", (4, 4), (100, 0, 200, 128)).save(tmp_path / "a.png")
    expected = [round(255 + (value - 255) * 128 / 255) for value in (100, 0, 200)]
    assert np.abs(np.array(read_image(tmp_path / "a.png"))[0, 0] - expected).max() <= 1


def test_colours_of_sixteen_bits(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    colours = np.zeros((4, 5, 3), np.uint16)
    colours[...] = (65535, 32768, 257)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    pixels = np.array(read_image(tmp_path / "a.tif")).astype(int)
    assert np.abs(pixels[0, 0] - [255, 128, 1]).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_in_which_zero_is_white(tmp_path, bits):
    tifffile = pytest.importorskip("tifffile")
    values = np.linspace(0, 2**bits - 1, 256).astype(f"uint{bits}").reshape(16, 16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    pixels = np.array(read_image(tmp_path / "a.tif"))[..., 0]
    assert pixels.ravel()[[0, -1]].tolist() == [255, 0]


def test_floats_between_0_and_1(tmp_path):
    Image.fromarray(np.array([[0.0, 0.2, 1.0]], np.float32)).save(tmp_path / "f.tif")
    assert np.array(read_image(tmp_path / "f.tif"))[0, :, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_exif(tmp_path, form, orientation):
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:20, :32] = 250  # one bright quarter, at the top left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # members of Image.Transpose
    picture = Image.fromarray(upright)
    if orientation > 1:
        picture = picture.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a", form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    pixels = np.array(read_image(tmp_path / "a"))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 1


def test_formats_that_start_programs_are_not_opened(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(BadImageError, match="not an image format that can be read here"):
        read_image(tmp_path / "a.eps")
