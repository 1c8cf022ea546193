"""DICOM files to 8-bit RGB, as a viewer would show them.

Stored values pass through the modality's rescale and a window (VOI), MONOCHROME1 is inverted,
colours become RGB, padding becomes black, and pixels become square. Overlays and shutters are not
drawn. Only the elements that this needs are parsed: a patient's name, dates and identifiers are
skipped in the file and cannot reach a message, a log or a picture, except where a device has burnt
them into the pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from lavis_msmedcap.imaging.dicom_frame import decode_frame
from lavis_msmedcap.imaging.dicom_grey import grey_to_uint8
from lavis_msmedcap.imaging.limits import check_size
from lavis_msmedcap.imaging.pixel_aspect import square_pixels
from lavis_msmedcap.imaging.windows import Window

SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
HEAD_BYTES = 132  # of a file, to recognise it by
_DESCRIPTION = (
    "SOPClassUID Modality Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation "
    "PlanarConfiguration BitsAllocated BitsStored HighBit PixelRepresentation "
    "PixelPaddingValue PixelPaddingRangeLimit SmallestImagePixelValue "
    "RescaleIntercept RescaleSlope RescaleType ModalityLUTSequence "
    "WindowCenter WindowWidth VOILUTFunction VOILUTSequence "
    "PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing PixelAspectRatio "
    "RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData "
    "GreenPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableData "
    "BluePaletteColorLookupTableDescriptor BluePaletteColorLookupTableData "
    "SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData "
    "SegmentedBluePaletteColorLookupTableData "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
).split()
_PIXELS = (
    "PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths"
).split()
# attributes of a frame that multi-frame objects keep in sequences instead of at the top
_FRAME_GROUPS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PixelMeasuresSequence",
)
# more than a picture of the largest size takes, in any depth
_INFLATED_BYTES_PER_PIXEL = 16


def is_dicom(head: bytes) -> bool:
    """Tells by the first `HEAD_BYTES` bytes whether a file is DICOM.

    Files without preamble are known by their first element, which is of group 0002 or 0008 and
    begins like no other format read here; `read_dicom` then asks for more.
    """
    return head[128:132] == b"DICM" or _has_no_preamble(head)


def read_dicom(
    file: BinaryIO, frame: int | None, window: Window, max_pixels: int
) -> Image.Image:
    """Reads one frame.

    Args:
        file: At its beginning.
        frame: Counted from 0; None takes the middle one.
        window: Which values become black and white.
        max_pixels: Largest accepted size of the frame.

    Returns:
        RGB picture.

    Raises:
        ValueError: If the object holds no picture, is too large, is compressed in a way that needs
            another package, or has no such frame or window. Damaged files raise whatever pydicom
            raises.
    """
    force = _has_no_preamble(file.read(HEAD_BYTES))
    _check_deflated(file, max_pixels)
    header = _parse(file, _DESCRIPTION, force, stop_before_pixels=True)
    _check_picture(header)
    check_size(int(header.Columns), int(header.Rows), max_pixels)
    count = int(header.get("NumberOfFrames") or 1)
    index = count // 2 if frame is None else frame
    if not 0 <= index < count:
        raise ValueError(f"no frame {index}; the file has {count}, counted from 0")

    dataset = _parse(file, [*_DESCRIPTION, *_PIXELS], force, stop_before_pixels=False)
    if not any(name in dataset for name in _PIXELS[:3]):
        raise ValueError("the file ends before its pixels, or has none; fetch it again")
    pixels, colours = decode_frame(dataset, index, count, max_pixels)
    settings = _frame_settings(dataset, index)
    if colours == "RGB":
        image = Image.fromarray(pixels.astype(np.uint8))
    else:
        image = Image.fromarray(grey_to_uint8(pixels, settings, window)).convert("RGB")
    return square_pixels(image, *_spacing(settings), max_pixels)


def _has_no_preamble(head: bytes) -> bool:
    if head[128:132] == b"DICM" or head[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    implicit = head[6:8] == b"\x00\x00"  # a first element of less than 64 KB
    return len(head) == HEAD_BYTES and head[3:4] == b"\x00" and (explicit or implicit)


def _parse(file: BinaryIO, tags: list[str], force: bool, *, stop_before_pixels: bool) -> Dataset:
    file.seek(0)
    return dcmread(
        file, stop_before_pixels=stop_before_pixels, force=force, specific_tags=list(tags)
    )


def _check_deflated(file: BinaryIO, max_pixels: int) -> None:
    """Refuses a deflated file that would fill the memory; pydicom inflates all of it at once."""
    file.seek(0)
    start = file.read(65536)
    if start[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() + b"\0" not in start:
        return
    meta_length = int.from_bytes(start[140:144], "little")
    file.seek(144 + meta_length)
    limit = _INFLATED_BYTES_PER_PIXEL * max_pixels
    inflator = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated, data = 0, file.read(2**20)
    while data and not inflator.eof:
        inflated += len(inflator.decompress(data, 2**20))
        if inflated > limit:
            raise ValueError(
                f"the file inflates to more than {limit} bytes (a decompression bomb); if that is "
                "meant, raise max_pixels of the vis_processor"
            )
        data = inflator.unconsumed_tail or file.read(2**20)


def _check_picture(header: Dataset) -> None:
    """Refuses reports, plans and waveforms, and what is not DICOM after all."""
    if header.get("Rows") and header.get("Columns") and header.get("PhotometricInterpretation"):
        return
    kind = header.get("SOPClassUID")
    if kind is None:
        raise ValueError("not an image: it begins like a DICOM file, but describes no picture")
    raise ValueError(
        f"this DICOM object is no picture but {UID(kind).name}; leave it out of the dataset"
    )


def _frame_settings(dataset: Dataset, index: int) -> dict[str, Any]:
    """Returns what describes a frame: of the file, overruled by shared and per-frame groups."""
    settings: dict[str, Any] = {
        name: dataset.get(name) for name in _DESCRIPTION if dataset.get(name) not in (None, "")
    }
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*shared[:1], *frames[index : index + 1]):
        for name in _FRAME_GROUPS:
            for item in (groups.get(name) or [])[:1]:
                settings.update({e.keyword: e.value for e in item if e.keyword in _DESCRIPTION})
    return settings


def _spacing(settings: Mapping[str, Any]) -> tuple[float, float]:
    """Returns the distances between rows and between columns; 0, 0 if unknown."""
    for name in (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "PixelAspectRatio",
    ):
        values = settings.get(name)
        if values is not None and not isinstance(values, (str, float, int)) and len(values) == 2:
            return float(values[0]), float(values[1])
    return 0.0, 0.0
