"""Stored values of a greyscale DICOM frame to 8 bits: rescale, window, inversion, padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from lavis_msmedcap.imaging.tones import percentile_range, stretch, to_uint8
from lavis_msmedcap.imaging.windows import Window, linear_range

try:  # pydicom 3
    from pydicom.pixels import apply_modality_lut, apply_voi
except ImportError:  # pydicom 2.4
    from pydicom.pixel_data_handlers.util import apply_modality_lut, apply_voi

Array = npt.NDArray[Any]

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds


def grey_to_uint8(stored: Array, dataset: Dataset, window: Window) -> npt.NDArray[np.uint8]:
    """Shows a frame as a viewer would.

    Of the windows that apply, the first of these is taken: the one that ``window`` sets itself, a
    preset where the values are Hounsfield units, the file's table (VOI LUT), the file's window.
    Without any, 8-bit values stay as they are and others are stretched between the percentiles 0.5
    and 99.5; padding does not count.

    Args:
        stored: (H, W) as stored.
        dataset: Describes the frame.
        window: Which window to take.

    Returns:
        uint8 (H, W); padding is black.

    Raises:
        ValueError: If the file has fewer windows than asked for.
    """
    padding = _padding(stored, dataset)
    values = np.asarray(apply_modality_lut(stored, dataset))
    grey = _windowed(values, dataset, window, padding)
    if str(dataset.get("PhotometricInterpretation")).strip() == "MONOCHROME1":
        grey = np.invert(grey)
    return np.where(padding, 0, grey).astype(np.uint8)


def _windowed(
    values: Array, dataset: Dataset, window: Window, padding: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    chosen = window.chosen(_is_hounsfield(dataset))
    if chosen is not None:
        return stretch(values, *linear_range(*chosen))
    if dataset.get("VOILUTSequence"):
        return _by_table(values, dataset, window.index)
    centers, widths = (_numbers(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centers and widths:
        _check_index(window.index, min(len(centers), len(widths)))
        center, width = centers[window.index], widths[window.index]
        if width > 0:  # else it shows nothing
            return _by_window(values, center, width, str(dataset.get("VOILUTFunction", "LINEAR")))
    if int(dataset.get("BitsStored") or 16) == 8 and values.min() >= 0 and values.max() <= 255:
        return stretch(values, 0, 255)
    inside = values[np.isfinite(values) & ~padding]
    return stretch(values, *percentile_range(inside)) if inside.size else to_uint8(values, padding)


def _by_window(values: Array, center: float, width: float, function: str) -> npt.NDArray[np.uint8]:
    if function.strip() == "SIGMOID":
        with np.errstate(over="ignore"):
            share = 1 / (1 + np.exp(-4 * (values.astype(np.float64) - center) / width))
        return np.rint(255 * np.nan_to_num(share)).astype(np.uint8)
    exact = function.strip() == "LINEAR_EXACT"
    return stretch(values, *linear_range(center, width if exact else max(width, 1), exact))


def _by_table(values: Array, dataset: Dataset, index: int) -> npt.NDArray[np.uint8]:
    tables = dataset.VOILUTSequence
    _check_index(index, len(tables))
    bits = int(tables[index].LUTDescriptor[2])
    whole = np.rint(values).astype(np.int64) if values.dtype.kind == "f" else values
    shown = np.asarray(apply_voi(whole, dataset, index=index))
    return stretch(shown, 0, 2**bits - 1)


def _check_index(index: int, count: int) -> None:
    if index >= count:
        raise ValueError(
            f"no window {index}; the file has {count}, counted from 0: set window.index of the "
            "vis_processor"
        )


def _is_hounsfield(dataset: Dataset) -> bool:
    """CT is in Hounsfield units where nothing else is said.

    Not so what shows a screen with a CT (secondary capture), nor values that cannot be negative.
    """
    kind = str(dataset.get("RescaleType", "")).strip()
    if kind == "HU":
        return True
    captured = str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE)
    signed = dataset.get("RescaleIntercept") is not None or dataset.get("PixelRepresentation") == 1
    return dataset.get("Modality") == "CT" and signed and not captured and kind in ("", "US")


def _padding(stored: Array, dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Finds the values that fill the rectangle around a round field of view."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    low, high = sorted((_as_stored(value, stored), _as_stored(limit, stored)))
    found: npt.NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return found


def _as_stored(value: Any, stored: Array) -> int:
    """Reads a padding value as the pixels are: some devices write -2000 as 63536, unsigned."""
    number = int(value)
    if stored.dtype.kind not in "iu":
        return number
    span = 1 << (8 * stored.dtype.itemsize)
    if stored.dtype.kind == "i" and span // 2 <= number < span:
        return number - span
    return number + span if stored.dtype.kind == "u" and -span // 2 <= number < 0 else number


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [float(number) for number in (value if isinstance(value, MultiValue) else [value])]
