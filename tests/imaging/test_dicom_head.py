from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT, make_dicom, ramp, save
from PIL import Image
from pydicom.datadict import keyword_dict
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lavis_msmedcap.imaging.dicom_head import (
    DESCRIPTION,
    HEAD_BYTES,
    PIXELS,
    has_no_preamble,
    is_dicom,
)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    return Path(save(make_dicom(ramp(0, 255)), tmp_path / "a.dcm")).read_bytes()


def element(group: int, vr: bytes = b"CS", length: int = 10) -> bytes:
    """The head of a file that starts with an element (group, 0005) or so, as old scanners wrote."""
    size = length.to_bytes(2 if vr else 4, "little")
    head = group.to_bytes(2, "little") + b"\x05\x00" + vr + size
    return head.ljust(HEAD_BYTES, b"x")


def test_a_file_with_a_preamble(whole: bytes) -> None:
    assert is_dicom(whole[:HEAD_BYTES])
    assert not has_no_preamble(whole[:HEAD_BYTES])
    assert not is_dicom(whole[: HEAD_BYTES - 1])


def test_the_preamble_may_hold_anything() -> None:
    """As in a file that is a TIFF too, or begins like an element."""
    for start in (b"II*\x00", element(8)[:128]):
        head = start.ljust(128, b"\0") + b"DICM"
        assert is_dicom(head)
        assert not has_no_preamble(head)


def test_a_file_that_starts_with_its_first_element(whole: bytes) -> None:
    assert has_no_preamble(whole[HEAD_BYTES:][:HEAD_BYTES])  # group 0002, explicit


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (element(2), True),
        (element(8), True),
        (element(8, b""), True),  # implicit: a length of four bytes
        (element(8, b"", 0xFFFF), True),
        (element(8, b"", 0x10000), False),
        (element(16), False),
        (element(8, b"cs"), False),
        (element(8, b"C1"), False),
        (element(8)[:-1], False),  # no picture is that small
        (b"\x08\x00\x00\x01" + element(8)[4:], False),
        (b"", False),
    ],
)
def test_files_without_a_preamble(head: bytes, expected: bool) -> None:
    assert is_dicom(head) is has_no_preamble(head) is expected


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tif", "ico", "tga", "pcx"])
def test_no_other_format_is_taken_for_it(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    assert not is_dicom(path.read_bytes()[:HEAD_BYTES])


def test_the_elements_that_are_read_exist_and_name_nobody(tmp_path: Path) -> None:
    read = (*DESCRIPTION, *PIXELS)
    assert len(set(read)) == len(read)
    assert set(read) <= keyword_dict.keys()
    assert not [name for name in read if pydicom.datadict.dictionary_VR(name) in ("PN", "DA", "DT")]
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        path = save(make_dicom(ramp(0, 255), syntax=syntax), tmp_path / "a.dcm")
        found = pydicom.dcmread(path, specific_tags=list(DESCRIPTION), stop_before_pixels=True)
        assert found.Rows == 16
        assert not [secret for secret in PATIENT if secret in str(found)]
