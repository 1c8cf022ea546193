"""What a DICOM file is, its limits, its damage, and what is kept secret."""

from __future__ import annotations

import logging
import struct
import traceback
import warnings
import zlib

import numpy as np
import pytest
from dicom_files import HU, PATIENT, make_dicom, ramp, save, shown
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
)

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.read import ReadOptions, read_image


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.dcm"


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
