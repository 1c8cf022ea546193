"""Images as real trees hold them: plain files, deep ones, animations, scanned pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lavis_msmedcap.datasets.records import MedCapRecord

PYDICOM_3 = int(pydicom.__version__.split(".")[0]) >= 3


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_records(root: Path, count: int = 12, split: str = "train") -> list[MedCapRecord]:
    """Plain JPEG and PNG files in turn, some with several captions, some without article."""
    root.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(count):
        path = root / f"ROCO_{number:05d}{'.jpg' if number % 2 else '.png'}"
        picture(number).save(path)
        captions = (f'Axial CT\u2028of the liver {number}.\r\n"0.37 cm" \U0001fa7b',)
        records.append(
            MedCapRecord(
                image=str(path),
                captions=captions if number % 3 else (*captions, "MRI of the knee."),
                image_id=path.stem,
                split=split,
                group_id=f"PMC{12340 + number // 2}" if number % 4 else None,
                source="roco",
                domain="medical",
            )
        )
    return records


def write_dicom(path: Path) -> None:
    """A CT of two frames with a window, 12 bits in 16."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientName = "CT", "Doe^Jane"
    data.Rows, data.Columns, data.NumberOfFrames = 30, 40, 2
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleIntercept, data.RescaleSlope = -1024, 1
    data.WindowCenter, data.WindowWidth = 40, 400
    frames = np.random.default_rng(5).integers(0, 4096, (2, 30, 40), dtype=np.uint16)
    data.PixelData = frames.tobytes()
    data.save_as(path, **({"enforce_file_format": True} if PYDICOM_3 else {}))


@pytest.fixture
def records(tmp_path: Path) -> list[MedCapRecord]:
    return make_records(tmp_path / "roco" / "train")


@pytest.fixture
def strange(tmp_path: Path) -> dict[str, Path]:
    """Images that other programs read differently, or not at all."""
    root = tmp_path / "strange"
    root.mkdir()
    ramp = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40)
    Image.fromarray(ramp).save(root / "deep.png")
    frames = [picture(seed) for seed in (1, 2)]
    frames[0].save(root / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(root / "moving.webp", save_all=True, append_images=frames[1:])
    picture(3).save(root / "page.tif")
    write_dicom(root / "scan.dcm")
    return {path.stem + path.suffix: path for path in root.iterdir()}
