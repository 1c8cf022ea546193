"""DICOM files of every kind, made with pydicom, with a patient in them that nobody may print."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from lavis_msmedcap.imaging.read import ReadOptions, read_image
from lavis_msmedcap.imaging.windows import Window

PATIENT = ("Doe^Jane", "MRN-4711", "19610203", "St. Nowhere", "Dr^Who")
Pixels = npt.NDArray[Any]


def make_dicom(
    pixels: Pixels | bytes,
    *,
    syntax: str = ExplicitVRLittleEndian,
    shape: tuple[int, ...] | None = None,
    bits: int | None = None,
    **elements: Any,
) -> FileDataset:
    """Makes a data set.

    Args:
        pixels: (H, W), (H, W, 3), or several frames of one with ``NumberOfFrames``; or the value of
            PixelData, with ``shape`` (H, W) and ``bits``.
        syntax: Transfer syntax; bytes must be encoded as it says.
        shape: Rows and columns of encoded pixels.
        bits: BitsAllocated of encoded pixels.
        elements: Set last, by keyword; None takes an element out.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(
        "",
        {},
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
    )
    name, number, birth, hospital, doctor = PATIENT
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = name, number, birth
    dataset.InstitutionName, dataset.ReferringPhysicianName = hospital, doctor
    dataset.StudyDate = datetime.date(2020, 1, 2).strftime("%Y%m%d")
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality = "OT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    if isinstance(pixels, bytes):
        dataset.PixelRepresentation, dataset.PixelData = 0, pixels
        dataset.Rows, dataset.Columns = shape or (0, 0)
        dataset.BitsAllocated = bits
    else:
        frame = pixels[0] if "NumberOfFrames" in elements else pixels
        dataset.Rows, dataset.Columns = frame.shape[:2]
        dataset.BitsAllocated = pixels.dtype.itemsize * 8
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.PixelData = pixels.tobytes()
        if frame.ndim == 3:
            dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
            dataset.PhotometricInterpretation = "RGB"
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: FileDataset, path: Path) -> str:
    """Writes a data set in the way of the installed pydicom."""
    if hasattr(pydicom, "pixels"):  # since 3.0
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.save_as(path, write_like_original=False)
    return str(path)


def item(**elements: Any) -> Sequence:
    """Returns a sequence of one item."""
    inside = Dataset()
    for keyword, value in elements.items():
        setattr(inside, keyword, value)
    return Sequence([inside])


def ramp(low: int, high: int, dtype: Any = np.int16) -> Pixels:
    """Returns 16 x 16 values that grow from the top left to the bottom right."""
    return np.linspace(low, high, 256).round().astype(dtype).reshape(16, 16)


HU = {"Modality": "CT", "RescaleSlope": "1", "RescaleIntercept": "-1024", "RescaleType": "HU"}


def shown(path: str | Path, **window: Any) -> Pixels:
    """Returns the grey values (H, W) of a file, after looking that its channels are equal."""
    pixels = np.array(read_image(path, ReadOptions(window=Window(**window))))
    assert (pixels[..., :1] == pixels).all()
    return pixels[..., 0].astype(int)


def windowed(values: Pixels, center: float, width: float) -> Pixels:
    """DICOM's function LINEAR, written as in PS3.3 C.11.2.1.2."""
    exact: Pixels = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.clip(exact, 0, 255).round()
