"""Colours and transparency of 16 bits, of which Pillow keeps the upper 8.

That is what a file made for display needs. One with a detector's raw values, 12 bits in 16, comes
out nearly black, where the same values without an alpha channel are stretched.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image

from lavis_msmedcap.imaging.tones import SPAN_FOR_DISPLAY, percentile_range, to_uint8


def is_deep(image: Image.Image) -> bool:
    """Tells whether a file holds several channels of 16 bits.

    Args:
        image: As opened: its pixels are not loaded yet.
    """
    if len(image.getbands()) == 1:
        return False
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    modes = [args[0] if isinstance(args, tuple) and args else args for args in arguments]
    return any(isinstance(mode, str) and ";16" in mode for mode in modes)


def read_deep(file: BinaryIO, upper: Image.Image) -> Image.Image:
    """Scales the colours of a file like greyscale of 16 bits, see `tones`.

    Args:
        file: A PNG or TIFF file of several channels of 16 bits; its first page is read.
        upper: What Pillow makes of it: the upper 8 bits.

    Returns:
        ``upper`` where the file uses enough of its range for display, else the picture (mode "RGB"
        or "RGBA") with its colours stretched.

    Raises:
        ValueError: If they have to be stretched, and OpenCV is missing or cannot decode the file.
    """
    colours = np.asarray(upper.convert("RGBA"))
    seen = colours[colours[..., 3] > 0][:, :3]
    if not seen.size:
        return upper
    low, high = percentile_range(seen.ravel())
    if low == high or high - low >= SPAN_FOR_DISPLAY / 256:
        return upper
    values = _decoded(file)
    alpha = values[..., 3:]
    hidden = np.broadcast_to(alpha == 0, values[..., :3].shape) if alpha.size else None
    shown = to_uint8(values[..., 2::-1], hidden)
    if alpha.size:
        shown = np.concatenate([shown, (alpha >> 8).astype(np.uint8)], axis=2)
    return Image.fromarray(shown)


def _decoded(file: BinaryIO) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Returns uint16 (H, W, 3 or 4) in OpenCV's order: blue, green, red, alpha."""
    try:
        import cv2  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            "colours of 16 bits that use a corner of their range need OpenCV; "
            f"pip install opencv-python-headless ({error})"
        ) from error
    file.seek(0)
    values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("its colours of 16 bits cannot be decoded; store it with 8 bits")
    found: np.ndarray[tuple[int, ...], np.dtype[np.uint16]] = values
    return found
