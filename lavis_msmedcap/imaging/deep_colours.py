"""Colours and transparency of 16 bits, of which Pillow keeps the upper 8.

That is what a file made for display needs. One with a detector's raw values, 12 bits in 16, comes
out nearly black, where the same values without an alpha channel are stretched.
"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from lavis_msmedcap.imaging.tones import SPAN_FOR_DISPLAY, Values, percentile_range, to_uint8

_MODES = ("RGB", "RGBA")
_OTHER_END = "B" if sys.byteorder == "little" else "L"
# how Pillow unpacks such files, and how it would find the lower bytes: read in the other order,
# or, grey and alpha taken for four channels of 8 bits, beside the upper ones
_LOWER = {
    **{f"{mode};16B": f"{mode};16L" for mode in _MODES},
    **{f"{mode};16L": f"{mode};16B" for mode in _MODES},
    **{f"{mode};16N": f"{mode};16{_OTHER_END}" for mode in _MODES},
    "LA;16B": "RGBA",
}


def deep_mode(image: Image.Image) -> str:
    """Returns how Pillow unpacks a file of several channels of 16 bits, "" for any other file.

    Args:
        image: As opened: its pixels are not loaded yet.
    """
    modes = {_mode_of(tile) for tile in getattr(image, "tile", [])}
    mode = modes.pop() if len(modes) == 1 else ""
    return mode if mode in _LOWER and len(image.getbands()) > 1 else ""


def read_deep(file: BinaryIO, upper: Image.Image, mode: str) -> Image.Image:
    """Scales the colours of a file like greyscale of 16 bits, see `tones`.

    Args:
        file: A PNG or TIFF file; its first page is read.
        upper: What Pillow makes of it, loaded: the upper 8 bits.
        mode: From `deep_mode`.

    Returns:
        ``upper`` where the file uses enough of its range for display, else the picture (mode "RGB"
        or "RGBA") with its colours stretched.
    """
    colours = np.asarray(upper.convert("RGBA"))
    seen = colours[colours[..., 3] > 0][:, :3]
    if not seen.size:
        return upper
    low, high = percentile_range(seen.ravel())
    if low == high or high - low >= SPAN_FOR_DISPLAY / 256:
        return upper
    values = _values(np.asarray(upper), _unpacked(file, upper.format or "", _LOWER[mode]), mode)
    alpha = values[..., 3:]
    hidden = np.broadcast_to(alpha == 0, values[..., :3].shape) if alpha.size else None
    shown = to_uint8(values[..., :3], hidden)
    return Image.fromarray(np.concatenate([shown, (alpha >> 8).astype(np.uint8)], axis=2))


def _mode_of(tile: Any) -> str:
    """Returns the unpacking that a part of a file asks for: the last of Pillow's four facts."""
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _unpacked(file: BinaryIO, form: str, mode: str) -> Values:
    """Decodes a file once more, its bytes unpacked in another way."""
    file.seek(0)
    with Image.open(file, formats=(form,)) as image:
        tiles = []
        for tile in image.tile:
            arguments = (mode, *tile[3][1:]) if isinstance(tile[3], tuple) else mode
            named = hasattr(tile, "_replace")  # in newer versions of Pillow
            tiles.append(tile._replace(args=arguments) if named else (*tile[:3], arguments))
        image.tile = tiles
        return np.asarray(image)


def _values(upper: Values, other: Values, mode: str) -> Values:
    """Puts upper and lower bytes together: uint16 (H, W, 3 or 4)."""
    if mode.startswith("LA"):  # other: upper and lower byte of grey, then of alpha
        pairs = other.astype(np.uint16)
        grey, alpha = pairs[..., 0] << 8 | pairs[..., 1], pairs[..., 2] << 8 | pairs[..., 3]
        return np.stack([grey, grey, grey, alpha], axis=2)
    return upper.astype(np.uint16) << 8 | other
