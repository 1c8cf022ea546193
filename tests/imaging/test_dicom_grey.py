"""Grey values of DICOM files against values that are known."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import HU, item, make_dicom, ramp, save, shown, windowed

from lavis_msmedcap.common.errors import BadImageError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.dcm"


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
