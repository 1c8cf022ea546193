"""One frame of a DICOM file as an array, under pydicom 2.4 and 3.

Legend: H W rows and columns of the frame.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from lavis_msmedcap.imaging.dicom_head import PIXELS

try:  # pydicom 3
    from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
except ImportError:  # pydicom 2.4
    from pydicom import config, encaps
    from pydicom.pixel_data_handlers.util import apply_color_lut, convert_color_space

    pixel_array = None

Array = npt.NDArray[Any]

GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("Red", "Green", "Blue")
_PACKAGES = {
    "JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "High-Throughput": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG-LS": "pylibjpeg pylibjpeg-libjpeg",
    "JPEG": "pylibjpeg pylibjpeg-libjpeg",
    "RLE": "pylibjpeg pylibjpeg-rle",
}


def decode_frame(dataset: Dataset, index: int, count: int, max_pixels: int) -> tuple[Array, str]:
    """Decodes a frame.

    Args:
        dataset: With pixels and with what describes them.
        index: Which frame, counted from 0; it exists.
        count: Number of frames.
        max_pixels: Largest accepted size, of all frames together where they cannot be taken apart.

    Returns:
        Stored values (H, W) and "grey", or uint8 (H, W, 3) and "RGB".

    Raises:
        ValueError: If the compression or the colour space cannot be read here, or the size is more
            than accepted.
    """
    syntax = UID(dataset.file_meta.get("TransferSyntaxUID") or _implied_syntax(dataset))
    dataset.file_meta.TransferSyntaxUID = syntax
    try:
        if pixel_array is not None:
            pixels = pixel_array(dataset, index=index)
        else:
            pixels = _pixels_of_pydicom2(dataset, index, count, max_pixels)
    except Exception as error:
        if syntax.is_compressed:
            raise ValueError(_compression_problem(syntax, error)) from error
        raise
    return _to_known_colours(pixels, dataset)


def _to_known_colours(pixels: Array, dataset: Dataset) -> tuple[Array, str]:
    space = str(dataset.PhotometricInterpretation).strip()
    if space in GREY:
        return pixels, "grey"
    if space == "PALETTE COLOR":
        colours = np.asarray(apply_color_lut(pixels, dataset))[..., :3]
        # some writers say 16 bits of tables whose values are 8 bits, which would come out black
        deep = colours.dtype == np.uint16 and _largest_of_tables(dataset, colours) > 255
        return (colours >> 8 if deep else colours).astype(np.uint8), "RGB"
    if pixels.ndim == 3 and (space == "RGB" or space.startswith("YBR")):
        deeper = max(0, int(dataset.BitsStored) - 8)
        return np.clip(pixels >> deeper, 0, 255).astype(np.uint8), "RGB"
    raise ValueError(
        f"the colours of the file ({space}, {pixels.ndim} axes) are none that can be read; "
        "expected MONOCHROME1, MONOCHROME2, RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT or "
        "PALETTE COLOR"
    )


def _largest_of_tables(dataset: Dataset, colours: Array) -> int:
    """Returns the largest value of the palette; of segmented tables, the largest one shown."""
    tables = [dataset.get(f"{name}PaletteColorLookupTableData") for name in _COLOURS]
    if not all(tables):
        return int(colours.max())
    order = "<u2" if dataset.is_little_endian else ">u2"
    return max(int(np.frombuffer(table[: len(table) // 2 * 2], order).max()) for table in tables)


def _pixels_of_pydicom2(dataset: Dataset, index: int, count: int, max_pixels: int) -> Array:
    """Decodes a frame with pydicom 2, which decodes all or none: the others are taken out."""
    if count > 1 and dataset.BitsAllocated >= 8:
        _keep_frame(dataset, index, count)
        count = 1
    if int(dataset.Columns) * int(dataset.Rows) * count > max_pixels:
        raise ValueError(f"{count} frames of single bits are more than {max_pixels} pixels")
    pixels: Array = dataset.pixel_array
    frame = pixels[index] if count > 1 else pixels
    space = dataset.PhotometricInterpretation
    if space in ("YBR_FULL", "YBR_FULL_422"):
        frame = convert_color_space(frame, space, "RGB")
    return frame


def _keep_frame(dataset: Dataset, index: int, count: int) -> None:
    name = next(name for name in PIXELS if name in dataset)
    data = dataset[name].value
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        frames = encaps.generate_pixel_data_frame(data, count)
        dataset.PixelData = encaps.encapsulate([next(itertools.islice(frames, index, None))])
    else:
        size = len(data) // count
        dataset[name].value = data[index * size : (index + 1) * size]
    dataset.NumberOfFrames = 1


def _implied_syntax(dataset: Dataset) -> str:
    """Returns the syntax of a file that names none, as read."""
    return "1.2.840.10008.1.2" if dataset.is_implicit_VR else "1.2.840.10008.1.2.1"


def _compression_problem(syntax: UID, error: Exception) -> str:
    if "MPEG" in syntax.name or "HEVC" in syntax.name:
        return f"the file is a video ({syntax.name}); export its frames as pictures"
    package = next((names for word, names in _PACKAGES.items() if word in syntax.name), None)
    hint = f"pip install {package}" if package else "expand it with dcmdjpeg or gdcmconv --raw"
    if not _can_decode(syntax):
        return f"compressed as {syntax.name}, which nothing installed here decodes; {hint}"
    return (
        f"its {syntax.name} data cannot be decoded ({type(error).__name__}): they are damaged, or "
        f"of a kind that needs another decoder ({hint})"
    )


def _can_decode(syntax: UID) -> bool:
    if pixel_array is not None:
        try:
            return bool(get_decoder(syntax).is_available)
        except NotImplementedError:
            return False
    return any(
        handler.is_available() and handler.supports_transfer_syntax(syntax)
        for handler in config.pixel_data_handlers
    )
