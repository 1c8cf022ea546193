"""DICOM files to 8-bit RGB, as a viewer would show them.

Stored values pass through the modality's rescale and a window (VOI), MONOCHROME1 is inverted,
colours become RGB, padding becomes black, and pixels become square. Overlays and shutters are not
drawn. Only the elements that this needs are parsed: a patient's name, dates and identifiers are
skipped in the file and cannot reach a message, a log or a picture, except where a device has burnt
them into the pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from lavis_msmedcap.imaging.dicom_frame import decode_frame
from lavis_msmedcap.imaging.dicom_grey import grey_to_uint8
from lavis_msmedcap.imaging.dicom_head import DESCRIPTION, HEAD_BYTES, PIXELS, has_no_preamble
from lavis_msmedcap.imaging.limits import check_size
from lavis_msmedcap.imaging.pixel_aspect import square_pixels
from lavis_msmedcap.imaging.windows import Window

# attributes of a frame that multi-frame objects keep in sequences instead of at the top
_FRAME_GROUPS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PixelMeasuresSequence",
)
# more than a picture of the largest size takes, in any depth
_INFLATED_BYTES_PER_PIXEL = 16


def read_dicom(file: BinaryIO, frame: int | None, window: Window, max_pixels: int) -> Image.Image:
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
    force = has_no_preamble(file.read(HEAD_BYTES))
    _check_deflated(file, max_pixels)
    header = _parse(file, DESCRIPTION, force, stop_before_pixels=True)
    _check_picture(header)
    check_size(int(header.Columns), int(header.Rows), max_pixels)
    count = int(header.get("NumberOfFrames") or 1)
    index = count // 2 if frame is None else frame
    if not 0 <= index < count:
        raise ValueError(f"no frame {index}; the file has {count}, counted from 0")

    dataset = _parse(file, [*DESCRIPTION, *PIXELS], force, stop_before_pixels=False)
    if not any(name in dataset for name in PIXELS[:3]):
        raise ValueError("the file ends before its pixels, or has none; fetch it again")
    pixels, colours = decode_frame(dataset, index, count, max_pixels)
    _describe_frame(dataset, index)
    if colours == "RGB":
        image = Image.fromarray(pixels.astype(np.uint8))
    else:
        image = Image.fromarray(grey_to_uint8(pixels, dataset, window)).convert("RGB")
    return square_pixels(image, *_spacing(dataset), max_pixels)


def _parse(
    file: BinaryIO, tags: Sequence[str], force: bool, *, stop_before_pixels: bool
) -> Dataset:
    file.seek(0)
    return dcmread(
        file, stop_before_pixels=stop_before_pixels, force=force, specific_tags=list(tags)
    )


def _check_deflated(file: BinaryIO, max_pixels: int) -> None:
    """Refuses a deflated file that would fill the memory; pydicom inflates all of it at once."""
    file.seek(0)
    start = file.read(65536)
    if start[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in start:
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


def _describe_frame(dataset: Dataset, index: int) -> None:
    """Puts at the top what shared and per-frame groups say of a frame."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*shared[:1], *frames[index : index + 1]):
        for name in _FRAME_GROUPS:
            for element in (element for item in groups.get(name) or [] for element in item):
                if element.keyword in DESCRIPTION:
                    dataset[element.tag] = element


def _spacing(dataset: Dataset) -> tuple[float, float]:
    """Returns the distances between rows and between columns; 0, 0 if unknown."""
    for name in (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "PixelAspectRatio",
    ):
        values = dataset.get(name)
        if isinstance(values, MultiValue) and len(values) == 2:
            return float(values[0]), float(values[1])
    return 0.0, 0.0
