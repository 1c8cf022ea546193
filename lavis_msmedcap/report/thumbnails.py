"""Images small enough to live inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.imaging.read import read_image

SIDE = 320  # pixels of the longer side
_QUALITY = 82


@dataclass(frozen=True)
class Thumbnail:
    """An image for a page.

    Attributes:
        uri: ``data:`` URI of a JPEG.
        width: Pixels.
        height: Pixels.
    """

    uri: str
    width: int
    height: int


def make_thumbnail(path: str) -> Thumbnail | None:
    """Reads an image and shrinks it; a larger image loses detail, a smaller one stays as it is.

    Args:
        path: As written in a prediction: absolute, ``package:``, or relative to the current folder.

    Returns:
        The image, or None if it cannot be read: a page about results must not fail for one file.
    """
    if not path:
        return None
    try:
        image = read_image(resolve_path(path))
    except BadImageError:
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if _is_grey(image):
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{data}", image.width, image.height)


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = (channel.tobytes() for channel in image.split())
    return red == green == blue
