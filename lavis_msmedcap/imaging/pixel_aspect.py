"""Scans whose pixels are not square, shown in the proportions of the body."""

from __future__ import annotations

from PIL import Image

from lavis_msmedcap.imaging.limits import check_size

_TOLERANCE = 0.01
_MOST = 20.0  # a spacing beyond this is a damaged header, not a scanner


def square_pixels(
    image: Image.Image, row_spacing: float, column_spacing: float, max_pixels: int
) -> Image.Image:
    """Enlarges the coarser side so that a pixel is as wide as high; no detail is lost.

    Args:
        image: The picture as stored.
        row_spacing: Distance between rows, in any unit.
        column_spacing: Distance between columns, in the same unit.
        max_pixels: Largest accepted size of the result.

    Returns:
        The picture; the same object where pixels are square within 1 % or the spacing is none.

    Raises:
        ValueError: If the result is too large.
    """
    if not (row_spacing > 0 and column_spacing > 0):
        return image
    stretched = max(row_spacing, column_spacing) / min(row_spacing, column_spacing)
    # written so that NaN, of two infinite spacings, is none either
    if abs(stretched - 1) <= _TOLERANCE or not stretched <= _MOST:
        return image
    ratio = row_spacing / column_spacing
    width, height = image.size
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    check_size(*size, max_pixels)
    return image.resize(size, Image.Resampling.BILINEAR)
