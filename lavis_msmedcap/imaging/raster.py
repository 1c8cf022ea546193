"""What Pillow decodes: JPEG, PNG, TIFF, WebP, GIF, BMP and their like, to 8-bit RGB.

Medical figures come as 16-bit greyscale, palettes, transparency on a page, CMYK from print and
photographs lying on their side. Each is turned into what a reader of the article would see.
"""

from __future__ import annotations

import functools
import struct
from typing import BinaryIO

import numpy as np
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.imaging.deep_colours import deep_mode, read_deep
from lavis_msmedcap.imaging.limits import check_size
from lavis_msmedcap.imaging.tones import to_uint8

# Pillow knows more, some of which start other programs (EPS) or are no pictures (PDF, video)
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "JPEG2000")

_TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "PA")
_ORIENTATION_TAG = 0x0112
_PHOTOMETRIC_TAG = 0x0106
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_raster(file: BinaryIO, frame: int | None, max_pixels: int) -> Image.Image:
    """Decodes a picture; its size is checked before its pixels are touched.

    Args:
        file: At its beginning.
        frame: Page of a TIFF, or frame of an animation, counted from 0; None takes the first.
        max_pixels: Largest accepted size.

    Returns:
        The picture in mode "RGB", the right way up, detached from the file.

    Raises:
        ValueError: If it is too large or has no such frame. Damaged files raise whatever Pillow
            raises.
    """
    try:
        image = Image.open(file, formats=_formats())
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large, perhaps a decompression bomb ({error})") from error
    with image:
        if frame is not None:
            _seek(image, frame)
        check_size(*image.size, max_pixels)
        mode = deep_mode(image)
        image.load()
        picture = read_deep(file, image, mode) if mode and not frame else _as_positive(image)
        return to_rgb(_upright(picture, _orientation(image)))


def to_rgb(image: Image.Image) -> Image.Image:
    """Turns a decoded picture of any mode into 8-bit RGB.

    Transparency is laid on white, as on a page. Greyscale deeper than 8 bits is scaled by
    `lavis_msmedcap.imaging.tones`; Pillow's own conversion would clip everything above 255 to
    white.

    Args:
        image: A Pillow image.

    Returns:
        An image in mode "RGB" of the same size; the same object if nothing had to change.

    Raises:
        DataError: If it is something else than a Pillow image, or has no pixels.
    """
    _check_picture(image)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(to_uint8(np.asarray(image))).convert("RGB")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def overlooked(image: Image.Image) -> str:
    """Says what a program that knows 8-bit RGB only would show otherwise; "" for plain pictures.

    Args:
        image: As opened; its pixels are decoded only if some may be transparent.
    """
    if image.mode.startswith(("I", "F")) or deep_mode(image):
        return "of 16 bits"
    may_be_transparent = image.mode in _TRANSPARENT_MODES or "transparency" in image.info
    if may_be_transparent and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        return "with transparency"
    return "turned by EXIF" if _orientation(image) in _UPRIGHT else ""


@functools.cache
def _formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _seek(image: Image.Image, frame: int) -> None:
    count = getattr(image, "n_frames", 1)
    if frame >= count:
        raise ValueError(f"no frame {frame}; the file has {count}, counted from 0")
    image.seek(frame)


def _as_positive(image: Image.Image) -> Image.Image:
    """Inverts 16-bit TIFFs in which 0 is white; Pillow does that for up to 8 bits only."""
    tags = getattr(image, "tag_v2", {})
    if not image.mode.startswith("I;16") or tags.get(_PHOTOMETRIC_TAG) != 0:
        return image
    positive = Image.fromarray(65535 - np.asarray(image).astype(np.uint16))
    positive.info.update(image.info)
    return positive


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turns a picture the way up that EXIF data ask for; it needs no open file any more."""
    if orientation in _UPRIGHT:
        return image.transpose(_UPRIGHT[orientation])
    # the pixels of a file of one frame are all there; others are decoded on demand
    return image.copy() if getattr(image, "is_animated", False) else image


def _orientation(image: Image.Image) -> int:
    """Returns EXIF's number of how a picture lies, 0 if it does not say."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 0))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 0  # damaged EXIF data say nothing about the pixels


def _check_picture(image: object) -> None:
    """Refuses what is no picture. Arrays too: whether their order is RGB (cv2: BGR) is unknown."""
    if not isinstance(image, Image.Image):
        raise DataError(
            f"the picture is of type {type(image).__name__}; expected a PIL image: of a file, "
            "Image.open(path).convert('RGB'); of a uint8 array (H, W, 3) in the order RGB, "
            "Image.fromarray(array)"
        )
    if 0 in image.size:
        width, height = image.size
        raise DataError(f"the picture has {width} x {height} pixels; expected at least one")
