"""Grey values of any depth to 8 bits, by one rule wherever they come from.

A file with more than 8 bits is either made for display, and then uses much of the range that its
depth has, or it holds a detector's raw values in a corner of it (12 bits in 16, Hounsfield units).
The first is scaled by its depth, as any viewer does; raw values are stretched between two
percentiles, so that a single hot pixel does not turn the rest black. The rule looks at the picture
alone: training and evaluation see the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

PERCENTILES = (0.5, 99.5)
_DEEPEST = 65535
# raw values of 12 or 14 bits span less of a 16-bit file
SPAN_FOR_DISPLAY = _DEEPEST / 4
# percentiles are taken of evenly spaced values, about this many
_SAMPLE = 1_000_000


def to_uint8(values: Values, padding: npt.NDArray[np.bool_] | None = None) -> Pixels:
    """Scales grey values to 8 bits without clipping them to white.

    Integers in 0..255 stay as they are and floats in 0..1 are multiplied by 255. Integers that span
    a quarter of 16 bits or more are divided by 257. Everything else is stretched between the
    percentiles 0.5 and 99.5.

    Args:
        values: (H, W) or (H, W, C) integers or floats.
        padding: bool of the same shape, what is no part of the picture; it becomes black and does
            not count.

    Returns:
        uint8 of the same shape. What is not a finite number is black.
    """
    inside = np.isfinite(values)
    if padding is not None:
        inside &= ~padding
    picture = values[inside]
    if not picture.size:
        return np.zeros(values.shape, np.uint8)
    low, high = _range(picture)
    return np.where(inside, stretch(values, low, high), 0).astype(np.uint8)


def stretch(values: Values, low: float, high: float) -> Pixels:
    """Maps ``low`` to 0 and ``high`` to 255, in a line; what lies outside is cut off.

    Args:
        values: Integers or floats of any shape.
        low: Darkest value.
        high: Brightest value; if it is not larger, all that is larger than ``low`` is white.

    Returns:
        uint8 of the same shape.
    """
    if high <= low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    exact: Any = np.float32 if values.dtype.itemsize <= 2 else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (values.astype(exact) - low) * (255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)


def percentile_range(values: Values) -> tuple[float, float]:
    """Returns the two percentiles, or least and largest value where nearly all are the same.

    Args:
        values: Finite numbers in one row.
    """
    step = max(1, values.size // _SAMPLE)
    low, high = np.percentile(values[::step].astype(np.float64), PERCENTILES)
    if high <= low:
        return float(values.min()), float(values.max())
    return float(low), float(high)


def _range(values: Values) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    whole = np.issubdtype(values.dtype, np.integer)
    if whole and low >= 0 and high <= 255:
        return 0.0, 255.0
    if not whole and low >= 0 and high <= 1:
        return 0.0, 1.0
    darkest, brightest = percentile_range(values)
    if whole and low >= 0 and high <= _DEEPEST and brightest - darkest >= SPAN_FOR_DISPLAY:
        return 0.0, float(_DEEPEST)
    return darkest, brightest
