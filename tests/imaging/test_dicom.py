"""Each kind of DICOM file against pixel values that are known."""

from __future__ import annotations

import io
import logging
import struct
import traceback
import warnings
import zlib

import numpy as np
import pytest
from dicom_files import PATIENT, item, make_dicom, ramp, save
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.read import ReadOptions, read_image
from lavis_msmedcap.imaging.windows import Window

HU = {"Modality": "CT", "RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU"}


def shown(path, **window):
    """Returns the grey values (H, W) of a file, after looking that its channels are equal."""
    pixels = np.array(read_image(path, ReadOptions(window=Window(**window))))
    assert (pixels[..., :1] == pixels).all()
    return pixels[..., 0].astype(int)


def windowed(values, center, width):
    """DICOM's function LINEAR, written as in PS3.3 C.11.2.1.2."""
    exact = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.clip(exact, 0, 255).round()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.dcm"


# --- values ------------------------------------------------------------------------------------


def test_rescale_and_the_files_window(path):
    stored = ramp(0, 4000)
    save(make_dicom(stored, WindowCenter="40", WindowWidth="400", **HU), path)
    assert np.abs(shown(path) - windowed(stored - 1024.0, 40, 400)).max() <= 1


def test_second_window_by_index(path):
    stored = ramp(0, 4000)
    centers = {"WindowCenter": ["40", "-600"], "WindowWidth": ["400", "1500"]}
    save(make_dicom(stored, **centers, **HU), path)
    assert np.abs(shown(path, index=1) - windowed(stored - 1024.0, -600, 1500)).max() <= 1
    with pytest.raises(BadImageError, match="no window 2; the file has 2, counted from 0"):
        shown(path, index=2)


@pytest.mark.parametrize(
    ("preset", "center", "width"),
    [("lung", -600, 1500), ("bone", 400, 1800), ("brain", 40, 80), ("soft_tissue", 40, 400)],
)
def test_presets_of_hounsfield_units(path, preset, center, width):
    stored = ramp(0, 4000)
    save(make_dicom(stored, WindowCenter="1", WindowWidth="2", **HU), path)
    expected = windowed(stored - 1024.0, center, width)
    assert np.abs(shown(path, preset=preset) - expected).max() <= 1


def test_a_preset_leaves_other_modalities_to_their_window(path):
    stored = ramp(0, 1000)
    save(make_dicom(stored, Modality="MR", WindowCenter="500", WindowWidth="1000"), path)
    assert np.array_equal(shown(path, preset="lung"), shown(path))
    assert np.abs(shown(path, center=100, width=50) - windowed(stored, 100, 50)).max() <= 1


def test_ct_is_in_hounsfield_units_unless_it_says_otherwise(path):
    stored = ramp(-1000, 1000)
    save(make_dicom(stored, Modality="CT"), path)
    assert np.abs(shown(path, preset="lung") - windowed(stored, -600, 1500)).max() <= 1
    save(
        make_dicom(
            stored, Modality="CT", RescaleType="MGML", RescaleSlope="1", RescaleIntercept="0"
        ),
        path,
    )
    assert not np.array_equal(shown(path, preset="lung"), windowed(stored, -600, 1500))


def test_functions_of_the_window(path):
    stored = ramp(0, 1000)
    window = {"WindowCenter": "500", "WindowWidth": "200"}
    save(make_dicom(stored, VOILUTFunction="LINEAR_EXACT", **window), path)
    exact = np.clip((stored - 400) / 200 * 255, 0, 255)
    assert np.abs(shown(path) - exact).max() <= 1
    save(make_dicom(stored, VOILUTFunction="SIGMOID", **window), path)
    assert np.abs(shown(path) - 255 / (1 + np.exp(-4 * (stored - 500.0) / 200))).max() <= 1


def test_table_of_the_file_comes_before_its_window(path):
    stored = ramp(0, 255, np.uint16)
    table = (np.arange(256) ** 2 // 64).astype(np.uint16)  # up to 1016, of 10 bits
    voi = item(LUTDescriptor=[256, 0, 10], LUTData=table.astype("<u2").tobytes())
    save(make_dicom(stored, VOILUTSequence=voi, WindowCenter="1", WindowWidth="2"), path)
    assert np.abs(shown(path) - table[stored] * (255 / 1023)).max() <= 1


def test_table_of_the_modality(path):
    stored = ramp(0, 255, np.uint16)
    table = np.arange(256)[::-1].astype(np.uint16) * 10
    lut = item(
        LUTDescriptor=[256, 0, 16], LUTData=table.astype("<u2").tobytes(), ModalityLUTType="US"
    )
    save(make_dicom(stored, ModalityLUTSequence=lut, WindowCenter="1275", WindowWidth="2551"), path)
    assert np.abs(shown(path) - windowed(table[stored].astype(float), 1275, 2551)).max() <= 1


def test_without_window_percentiles(path):
    stored = ramp(-700, 1300)
    save(make_dicom(stored), path)
    low, high = np.percentile(stored, [0.5, 99.5])
    expected = np.clip((stored - low) / (high - low) * 255, 0, 255)
    assert np.abs(shown(path) - expected).max() <= 1


def test_eight_bits_without_window_stay(path):
    stored = ramp(20, 200, np.uint8)
    save(make_dicom(stored), path)
    assert np.array_equal(shown(path), stored)
    save(make_dicom(stored, RescaleSlope="1", RescaleIntercept="0"), path)
    assert np.array_equal(shown(path), stored)


def test_a_window_without_width_is_none(path):
    stored = ramp(20, 200, np.uint8)
    save(make_dicom(stored, WindowCenter="100", WindowWidth="0"), path)
    assert np.array_equal(shown(path), stored)


def test_monochrome1_is_inverted_and_padding_is_black(path):
    stored = ramp(0, 4000)
    stored[:, :3] = -2000
    settings = {"PixelPaddingValue": -2000, "PhotometricInterpretation": "MONOCHROME1"}
    save(make_dicom(stored, WindowCenter="2000", WindowWidth="4000", **settings), path)
    pixels = shown(path)
    assert pixels[:, :3].max() == 0
    assert np.abs(pixels[:, 3:] - (255 - windowed(stored[:, 3:], 2000, 4000))).max() <= 1


def test_padding_does_not_count_for_the_percentiles(path):
    stored = ramp(1000, 2000)
    stored[:, :6] = -2000
    stored[:, 6] = -1990
    range_ = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1980}
    save(make_dicom(stored, **range_), path)
    pixels = shown(path)
    assert pixels[:, :7].max() == 0
    assert (pixels[:, 7:].min(), pixels[:, 7:].max()) == (0, 255)
    assert 100 < pixels[8, 7] < 160


def test_twelve_stored_bits_in_sixteen(path):
    stored = ramp(0, 4095, np.uint16)
    save(
        make_dicom(stored, BitsStored=12, HighBit=11, WindowCenter="2048", WindowWidth="4096"), path
    )
    assert np.abs(shown(path) - stored / 4095 * 255).max() <= 1


def test_float_pixels(path):
    stored = np.linspace(0, 7.5, 256, dtype=np.float32).reshape(16, 16)
    elements = {"PixelData": None, "FloatPixelData": stored.tobytes(), "BitsAllocated": 32}
    dataset = make_dicom(
        stored, BitsStored=None, HighBit=None, PixelRepresentation=None, **elements
    )
    save(dataset, path)
    assert np.abs(shown(path) - stored / 7.5 * 255).max() <= 2


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


def test_palette(path):
    stored = ramp(0, 255, np.uint8)
    tables = {}
    for name, table in (
        ("Red", np.arange(256)),
        ("Green", np.arange(256)[::-1]),
        ("Blue", np.full(256, 7)),
    ):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        data = (table * 257).astype("<u2").tobytes()
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
    dataset = make_dicom(stored, WindowCenter="2000", WindowWidth="4001")
    expected = shown(save(dataset, path))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = stored.astype(">u2").tobytes()
    save(dataset, path)
    assert np.array_equal(shown(path), expected)


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


# --- what a file is ----------------------------------------------------------------------------


def test_suffix_does_not_matter_and_places_work(tmp_path):
    stored = ramp(20, 200, np.uint8)
    content = (tmp_path / "IM0001", save(make_dicom(stored), tmp_path / "IM0001"))[0].read_bytes()
    assert np.array_equal(shown(tmp_path / "IM0001"), stored)
    (tmp_path / "a.tar").write_bytes(b"x" * 700 + content + b"y" * 9)
    assert np.array_equal(shown(f"{tmp_path / 'a.tar'}::bytes=700+{len(content)}"), stored)
    Image.fromarray(stored).save(tmp_path / "really.dcm", "PNG")
    assert np.array_equal(shown(tmp_path / "really.dcm"), stored)


@pytest.mark.parametrize("keep_meta", [True, False])
def test_without_preamble(path, keep_meta):
    stored = ramp(20, 200, np.uint8)
    content = path.with_name(path.name) if save(make_dicom(stored), path) else path
    whole = content.read_bytes()
    meta_length = struct.unpack_from("<I", whole, 140)[0]
    path.write_bytes(whole[132:] if keep_meta else whole[144 + meta_length :])
    assert np.array_equal(shown(path), stored)


def test_bytes_that_only_begin_like_dicom(path):
    path.write_bytes(b"\x08\x00\x05\x00CS" + b"\x0a\x00ISO_IR 100" + bytes(300))
    with pytest.raises(BadImageError, match="describes no picture"):
        read_image(path)
    path.write_bytes(b"no DICM here" * 20)
    with pytest.raises(BadImageError, match="no DICM at byte 128"):
        read_image(path)


def test_objects_that_are_no_pictures(path):
    elements = dict.fromkeys(("Rows", "Columns", "PhotometricInterpretation", "PixelData"))
    save(make_dicom(ramp(0, 9), SOPClassUID=EncapsulatedPDFStorage, **elements), path)
    with pytest.raises(
        BadImageError, match="no picture but Encapsulated PDF Storage; leave it out"
    ):
        read_image(path)
    save(make_dicom(ramp(0, 9), PixelData=None), path)
    with pytest.raises(BadImageError, match="ends before its pixels"):
        read_image(path)


# --- limits, damage, privacy -------------------------------------------------------------------


def test_bombs(path):
    save(make_dicom(ramp(0, 9), Rows=60000, Columns=60000), path)
    with pytest.raises(BadImageError, match="60000 x 60000 pixels are more than 80000000"):
        read_image(path)
    dataset = make_dicom(ramp(0, 9))
    dataset.NumberOfFrames = 2_000_000_000
    save(dataset, path)
    with pytest.raises(BadImageError):
        read_image(path)


def test_a_deflated_bomb(path):
    dataset = make_dicom(ramp(0, 9), syntax=DeflatedExplicitVRLittleEndian)
    save(dataset, path)
    whole = path.read_bytes()
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(squeeze.compress(bytes(2**20)) for _ in range(20)) + squeeze.flush()
    path.write_bytes(whole[:start] + body)
    assert len(body) < 50_000
    with pytest.raises(BadImageError, match="inflates to more than 16000000 bytes"):
        read_image(path, ReadOptions(max_pixels=10**6))


def test_cut_short_anywhere(path):
    stored = ramp(0, 4000)
    whole_path = save(make_dicom(stored, WindowCenter="40", WindowWidth="400", **HU), path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 23):
        path.write_bytes(whole[:length])
        with pytest.raises(BadImageError, match=r"scan\.dcm") as caught:
            read_image(whole_path)
        assert not any(secret in str(caught.value) for secret in PATIENT)


def test_damaged_bytes(path):
    save(make_dicom(ramp(0, 4000), WindowCenter="40", WindowWidth="400", **HU), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for place in rng.integers(128, len(whole) - 512, 3):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(path).mode == "RGB"
            except BadImageError as error:
                assert not any(secret in str(error) for secret in PATIENT)  # noqa: PT017


def test_nothing_about_the_patient_is_told(path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    dataset = make_dicom(ramp(0, 9), Rows=60000, Columns=60000)
    save(dataset, path)
    whole = path.read_bytes().replace(b"19610203", b"1961-2-3")  # which pydicom would warn of
    path.write_bytes(whole)
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        with pytest.raises(BadImageError) as caught:
            read_image(path)
    out, err = capfd.readouterr()
    trace = "".join(traceback.format_exception(None, caught.value, caught.value.__traceback__))
    told = out + err + caplog.text + trace + "".join(str(w.message) for w in caught_warnings)
    assert not any(secret in told for secret in (*PATIENT, "1961-2-3"))
