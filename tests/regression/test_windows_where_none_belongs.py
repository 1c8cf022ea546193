"""Three scans that were shown wrongly, or otherwise than asked for, without a word.

A screen capture of a CT went white under a CT preset, a NIfTI volume ignored the preset, and
padding that a device writes as an unsigned number was shown as tissue.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import HU, make_dicom, ramp, save, shown, windowed

from lavis_msmedcap.imaging import nifti
from lavis_msmedcap.imaging.read import ReadOptions, read_image
from lavis_msmedcap.imaging.windows import Window

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    "elements",
    [
        {"SOPClassUID": CAPTURE},
        {"SOPClassUID": f"{CAPTURE}.2", "RescaleIntercept": 0, "RescaleSlope": 1},
        {"RescaleType": "US"},  # without rescale
    ],
)
def test_a_screen_capture_keeps_its_greys(tmp_path: Path, elements: dict[str, Any]) -> None:
    grey = ramp(0, 255, np.uint8)
    path = save(make_dicom(grey, Modality="CT", **elements), tmp_path / "a.dcm")
    assert np.array_equal(shown(path), grey)
    assert np.array_equal(shown(path, preset="lung"), grey)


def test_a_ct_still_takes_the_preset(tmp_path: Path) -> None:
    stored = ramp(0, 2000)
    rescale = {key: value for key, value in HU.items() if key != "RescaleType"}
    path = save(make_dicom(stored, **rescale), tmp_path / "a.dcm")
    expected = windowed(stored - 1024.0, -600, 1500)
    assert np.abs(shown(path, preset="lung") - expected).max() <= 1


def test_nifti_says_that_a_preset_does_not_apply(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.random.default_rng(0).integers(-1000, 1500, (20, 20, 4)).astype(np.int16)
    path = tmp_path / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    nifti._warn_of_preset.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            preset = np.asarray(read_image(path, ReadOptions(window=Window(preset="lung"))))
    assert np.array_equal(preset, np.asarray(read_image(path)))
    (told,) = [record.message for record in caplog.records]
    assert "window.preset=lung is not applied to NIfTI" in told
    assert "{center: -600, width: 1500}" in told
    window = ReadOptions(window=Window(center=-600, width=1500))
    assert not np.array_equal(preset, np.asarray(read_image(path, window)))


@pytest.mark.parametrize(
    ("dtype", "vr", "written", "meant"),
    [
        (np.int16, "US", 63536, -2000),
        (np.int16, "SS", -2000, -2000),
        (np.uint16, "SS", -2000, 63536),
        (np.uint16, "US", 63536, 63536),
        (np.int16, "US", 2000, 2000),
    ],
)
def test_padding_is_black_however_it_is_written(
    tmp_path: Path, dtype: Any, vr: str, written: int, meant: int
) -> None:
    stored = ramp(1000, 3000, dtype)
    stored[:4] = meant
    dataset = make_dicom(stored, WindowCenter="500", WindowWidth="9000")
    dataset.add_new("PixelPaddingValue", vr, written)
    grey = shown(save(dataset, tmp_path / "a.dcm"))
    assert (grey[stored == meant] == 0).all()
    assert (grey[stored != meant] > 100).all()
