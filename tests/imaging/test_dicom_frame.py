"""Colours, frames and encodings of DICOM files against pixels that are known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from dicom_files import item, make_dicom, ramp, save, shown, windowed
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.read import ReadOptions, read_image


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.dcm"


# --- colours -----------------------------------------------------------------------------------

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [200, 100, 50]]], np.uint8)
COLOURS = COLOURS.repeat(8, 0).repeat(8, 1)
PLANAR = np.ascontiguousarray(COLOURS.transpose(2, 0, 1)).tobytes()


def ybr(colours):
    return np.array(Image.fromarray(colours).convert("YCbCr"))


def colour_dicom(space, data, **elements):
    return make_dicom(COLOURS, PhotometricInterpretation=space, PixelData=data, **elements)


@pytest.mark.parametrize(
    ("space", "data", "planar"),
    [
        ("RGB", COLOURS.tobytes(), 0),
        ("RGB", PLANAR, 1),
        ("YBR_FULL", ybr(COLOURS).tobytes(), 0),
    ],
)
def test_colour_spaces(path, space, data, planar):
    save(colour_dicom(space, data, PlanarConfiguration=planar), path)
    assert np.abs(np.array(read_image(path)).astype(int) - COLOURS).max() <= 2


def test_colours_that_share_their_chroma(path):
    full = ybr(COLOURS)
    pairs = full.reshape(16, 8, 2, 3)
    shared = np.stack(
        [pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]], -1
    )
    save(colour_dicom("YBR_FULL_422", shared.tobytes()), path)
    assert np.abs(np.array(read_image(path)).astype(int) - COLOURS).max() <= 2


@pytest.mark.parametrize("scale", [257, 256, 1])  # 1: values of 8 bits in a table of 16
def test_palette(path, scale):
    stored = ramp(0, 255, np.uint8)
    tables = {}
    for name, table in (
        ("Red", np.arange(256)),
        ("Green", np.arange(256)[::-1]),
        ("Blue", np.full(256, 7)),
    ):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        data = (table * scale).astype("<u2").tobytes()
        tables[f"{name}PaletteColorLookupTableData"] = data
    save(make_dicom(stored, PhotometricInterpretation="PALETTE COLOR", **tables), path)
    pixels = np.array(read_image(path))
    assert np.array_equal(pixels[..., 0], stored)
    assert np.array_equal(pixels[..., 1], 255 - stored)
    assert (pixels[..., 2] == 7).all()


def test_unknown_colour_space(path):
    save(make_dicom(ramp(0, 9, np.uint8), PhotometricInterpretation="CMYK"), path)
    with pytest.raises(BadImageError, match=r"CMYK.*expected MONOCHROME1"):
        read_image(path)


# --- frames ------------------------------------------------------------------------------------


def test_middle_frame_and_a_chosen_one(path):
    frames = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 30, 40, 50)])
    save(make_dicom(frames, NumberOfFrames=5), path)
    assert shown(path).tolist()[0][0] == 30
    assert shown(f"{path}::frame=4").tolist()[0][0] == 50
    with pytest.raises(BadImageError, match=r"scan\.dcm::frame=5: no frame 5; the file has 5"):
        read_image(f"{path}::frame=5")


def test_compressed_frames(path):
    frames = [np.full((16, 16), value, np.uint8) for value in (10, 120, 230)]
    encoded = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=95)
        encoded.append(buffer.getvalue())
    settings = {"syntax": JPEGBaseline8Bit, "shape": (16, 16), "bits": 8}
    save(make_dicom(encapsulate(encoded), NumberOfFrames=3, **settings), path)
    assert shown(path)[0, 0] == pytest.approx(120, abs=2)
    assert shown(f"{path}::frame=2")[0, 0] == pytest.approx(230, abs=2)


def test_only_the_frame_that_is_asked_for_counts(path):
    frames = np.zeros((150, 8, 8), np.uint8)
    frames[149] = 77
    save(make_dicom(frames, NumberOfFrames=150), path)
    options = ReadOptions(max_pixels=64)
    assert read_image(f"{path}::frame=149", options).getpixel((0, 0)) == (77, 77, 77)


def test_one_bit_per_pixel(path):
    mask = np.zeros((2, 16, 16), np.uint8)
    mask[1, :8] = 1
    bits = np.packbits(mask.ravel(), bitorder="little").tobytes()
    save(make_dicom(bits, shape=(16, 16), bits=1, NumberOfFrames=2), path)
    pixels = shown(f"{path}::frame=1")
    assert pixels[:8].min() == 255
    assert pixels[8:].max() == 0


def test_frames_with_windows_of_their_own(path):
    frames = np.stack([ramp(0, 1000)] * 2)

    def group(center):
        window = item(WindowCenter=str(center), WindowWidth="100")
        return item(FrameVOILUTSequence=window)[0]

    rescale = item(RescaleSlope="2", RescaleIntercept="-100", RescaleType="US")
    shared = item(PixelValueTransformationSequence=rescale)
    dataset = make_dicom(frames, NumberOfFrames=2, SharedFunctionalGroupsSequence=shared)
    dataset.PerFrameFunctionalGroupsSequence = [group(200), group(800)]
    save(dataset, path)
    for number, center in enumerate((200, 800)):
        expected = windowed(frames[0] * 2.0 - 100, center, 100)
        assert np.abs(shown(f"{path}::frame={number}") - expected).max() <= 1


@pytest.mark.parametrize(
    ("element", "size"),
    [
        ({"PixelSpacing": ["2.0", "1.0"]}, (16, 32)),
        ({"PixelSpacing": ["0.5", "1.0"]}, (32, 16)),
        ({"PixelSpacing": ["0.7", "0.7"]}, (16, 16)),
        ({"ImagerPixelSpacing": ["0.3", "0.2"]}, (16, 24)),
        ({"PixelAspectRatio": ["2", "1"]}, (16, 32)),
        ({"PixelSpacing": ["0", "0"]}, (16, 16)),
        ({"PixelSpacing": ["1000", "1"]}, (16, 16)),  # a damaged header
    ],
)
def test_pixels_become_square(path, element, size):
    save(make_dicom(ramp(0, 255, np.uint8), **element), path)
    assert read_image(path).size == size


# --- encodings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_uncompressed_encodings(path, syntax):
    stored = ramp(0, 4000, np.uint16)
    written = stored.astype(">u2") if syntax == ExplicitVRBigEndian else stored
    dataset = make_dicom(written, syntax=syntax, WindowCenter="2000", WindowWidth="4001")
    save(dataset, path)
    assert np.abs(shown(path) - windowed(stored, 2000, 4001)).max() <= 1


def test_jpeg_and_jpeg2000(path):
    smooth = np.array(
        Image.fromarray(ramp(0, 255, np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    )
    for form, syntax, options in (
        ("JPEG", JPEGBaseline8Bit, {"quality": 95}),
        ("JPEG2000", JPEG2000Lossless, {"irreversible": False, "no_jp2": True}),
    ):
        buffer = io.BytesIO()
        Image.fromarray(smooth).save(buffer, form, **options)
        data = encapsulate([buffer.getvalue()])
        save(make_dicom(data, syntax=syntax, shape=(64, 64), bits=8), path)
        assert np.abs(shown(path) - smooth).max() <= (4 if form == "JPEG" else 0)


def test_colour_jpeg(path):
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, "JPEG", quality=100, subsampling=0)
    colour = {
        "SamplesPerPixel": 3,
        "PlanarConfiguration": 0,
        "PhotometricInterpretation": "YBR_FULL_422",
    }
    data = encapsulate([buffer.getvalue()])
    save(make_dicom(data, syntax=JPEGBaseline8Bit, shape=(16, 16), bits=8, **colour), path)
    assert np.abs(np.array(read_image(path)).astype(int) - COLOURS).max() <= 8


def test_run_lengths(path):
    stored = np.repeat(np.arange(16, dtype=np.uint8), 16).reshape(16, 16)
    dataset = make_dicom(stored)
    dataset.compress(RLELossless)
    save(dataset, path)
    assert np.array_equal(shown(path), stored)


def test_a_compression_that_needs_another_package(path):
    data = encapsulate([b"\xff\xd8\xff\xf7 not really"])
    save(make_dicom(data, syntax=JPEGLSLossless, shape=(8, 8), bits=8), path)
    with pytest.raises(BadImageError, match=r"JPEG-LS.*pip install pylibjpeg pylibjpeg-libjpeg"):
        read_image(path)
    save(make_dicom(data, syntax="1.2.840.10008.1.2.4.102", shape=(8, 8), bits=8), path)
    with pytest.raises(BadImageError, match=r"a video .*export its frames"):
        read_image(path)


def test_damaged_jpeg_inside(path):
    save(
        make_dicom(
            encapsulate([b"\xff\xd8\xff\xe0 no"]), syntax=JPEGBaseline8Bit, shape=(8, 8), bits=8
        ),
        path,
    )
    with pytest.raises(BadImageError, match=r"cannot be decoded .*damaged"):
        read_image(path)
