"""Any image file to 8-bit RGB: the one reader that training, evaluation and tools share.

Medical figures come as 16-bit greyscale, palettes, transparency on a page, CMYK from print and
photographs lying on their side. Each is turned into what a reader of the article would see.
"""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.imaging.members import read_member
from lavis_msmedcap.imaging.places import parse_place

_TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "PA")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_flag_lock = threading.Lock()
_flag_users = 0
_flag_before = False


@contextmanager
def _strict_decoding() -> Iterator[None]:
    """Makes Pillow report truncated files for the time of a decode, then restores its setting.

    LAVIS sets Pillow's process-wide ``LOAD_TRUNCATED_IMAGES``, after which half a file decodes to
    half a picture and grey. Users are counted so that decodes in several threads overlap safely.
    """
    global _flag_users, _flag_before
    with _flag_lock:
        if _flag_users == 0:
            _flag_before = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _flag_users += 1
    try:
        yield
    finally:
        with _flag_lock:
            _flag_users -= 1
            if _flag_users == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _flag_before


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads an image file.

    The EXIF orientation is applied. Of an animation or a multi-page file the first frame is taken.
    See `to_rgb` for depths and colours.

    Args:
        path: A file in any format that Pillow decodes, or a member of a tar file, see
            `lavis_msmedcap.imaging.places`.

    Returns:
        The picture in mode "RGB", detached from the file.

    Raises:
        BadImageError: If the file is missing, empty, truncated, or not an image.
    """
    name = os.fspath(path)
    place = parse_place(name)
    source = io.BytesIO(read_member(place)) if place.kind == "bytes" else name
    try:
        with _strict_decoding(), Image.open(source) as image:
            image.load()
            return to_rgb(_upright(image))
    except UnidentifiedImageError as error:
        raise BadImageError(name, _unidentified(source)) from error
    except FileNotFoundError as error:
        raise BadImageError(name, "the file does not exist") from error
    except IsADirectoryError as error:
        raise BadImageError(name, "this is a folder, not an image file") from error
    except Exception as error:
        # decoders raise anything from struct.error to ZeroDivisionError on damaged bytes
        reason = str(error) or type(error).__name__
        cure = "; fetch the file again" if "truncated" in reason else ""
        raise BadImageError(name, reason + cure) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Turns a decoded picture of any mode into 8-bit RGB.

    Transparency is laid on white, as on a page. Greyscale deeper than 8 bits is scaled by
    `to_uint8`; Pillow's own conversion would clip everything above 255 to white.

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


def to_uint8(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Scales grey values of any depth to 8 bits without clipping.

    Integers that already lie in 0..255 stay as they are and floats in 0..1 are multiplied by 255;
    everything else is stretched from its own minimum to its own maximum. Values that are not
    numbers become black.

    Args:
        values: (H, W) integers or floats.

    Returns:
        (H, W) uint8.
    """
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(wide[finite].min()), float(wide[finite].max())
    whole = np.issubdtype(values.dtype, np.integer)
    if whole and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    elif not whole and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    span = (high - low) or 1.0
    scaled = np.where(finite, (np.where(finite, wide, low) - low) * (255.0 / span), 0.0)
    return np.rint(scaled).astype(np.uint8)


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


def _upright(image: Image.Image) -> Image.Image:
    """Turns a picture the way up that its EXIF data ask for; a copy that needs no open file."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        orientation = None  # damaged EXIF data say nothing about the pixels
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image.copy()


def _unidentified(source: str | io.BytesIO) -> str:
    """Says why Pillow does not know a file: the reasons that downloads really have."""
    if isinstance(source, str):
        with Path(source).open("rb") as file:
            head = file.read(16)
    else:
        head = source.getvalue()[:16]
    if not head:
        return "the file is empty; fetch it again"
    if head.lstrip()[:1] == b"<":
        return f"not an image but a web page or XML (it begins with {head!r}); fetch it again"
    return f"not an image format that Pillow knows (it begins with {head!r})"
