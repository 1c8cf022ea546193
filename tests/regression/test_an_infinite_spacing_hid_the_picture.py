"""A header with an endless spacing, or one next to nothing, made a sound picture unreadable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_dicom, ramp, save
from PIL import Image

from lavis_msmedcap.imaging.pixel_aspect import square_pixels
from lavis_msmedcap.imaging.read import read_image

ENDLESS = float("inf")


@pytest.mark.parametrize(
    "spacing",
    [(1.0, ENDLESS), (ENDLESS, 1.0), (ENDLESS, ENDLESS), (1e-200, 1e200), (1e200, 1e-200)],
)
def test_it_is_shown_as_stored(spacing: tuple[float, float]) -> None:
    image = Image.new("L", (8, 6))
    assert square_pixels(image, *spacing, 1000) is image


def test_in_a_scan(tmp_path: Path) -> None:
    pixels = ramp(0, 255, np.uint8)
    expected = read_image(save(make_dicom(pixels), tmp_path / "plain.dcm"))
    odd = make_dicom(pixels, PixelSpacing=["1e-200", "1e200"])
    shown = read_image(save(odd, tmp_path / "odd.dcm"))
    assert shown.tobytes() == expected.tobytes()
