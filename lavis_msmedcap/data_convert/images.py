"""What is stored of an image: the bytes of its file untouched, or its pixels in a new file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.members import read_member
from lavis_msmedcap.imaging.places import parse_place
from lavis_msmedcap.imaging.read import read_image

COPIED = "copied byte for byte"
# what every reader of a data set can be expected to read, and to read alike
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_DEEP_MODES = ("I", "F")  # modes of 16 bits and more begin so
_JPEG_QUALITY = 95


class ImageSettings(NamedTuple):
    """What to do with images beside copying them.

    Attributes:
        max_side: Images with a longer side are scaled down to it, in pixels; None for never.
        reencode: "png" or "jpeg" stores every image anew; None only those that cannot be copied,
            or have to be scaled, as PNG.
    """

    max_side: int | None = None
    reencode: str | None = None


class StoredImage(NamedTuple):
    """An image as it is to be stored.

    Attributes:
        data: Content of the file.
        suffix: Ending of its name, with the dot.
        how: `COPIED`, or why and as what it is stored anew.
    """

    data: bytes
    suffix: str
    how: str


def store_image(image: str, settings: ImageSettings) -> StoredImage:
    """Decodes an image, which shows whether it is whole, and says what to store of it.

    Args:
        image: Its place.
        settings: Scaling and format.

    Returns:
        The same bytes for the same image, settings and version of Pillow.

    Raises:
        BadImageError: If it cannot be decoded.
    """
    picture = read_image(image)
    reason, suffix = _reason(image)
    too_large = settings.max_side is not None and max(picture.size) > settings.max_side
    if not (reason or too_large or settings.reencode):
        return StoredImage(_original(image), suffix, COPIED)
    if settings.max_side is not None and too_large:
        picture = scale_down(picture, settings.max_side)
        reason = f"scaled down to {settings.max_side} px"
    kind = settings.reencode or "png"
    told = f"stored as {kind.upper()}: {reason or 'asked for'}"
    return StoredImage(_encode(picture, kind), ".jpg" if kind == "jpeg" else ".png", told)


def why_not_plain(image: str) -> str:
    """Says why other programs might not read an image as this package does; "" if they do."""
    return _reason(image)[0]


def scale_down(picture: Image.Image, side: int) -> Image.Image:
    """Scales the longer side of a picture to ``side`` pixels.

    Size and filter are those of segment-anything, so that the SAM view of that very size is the
    same to the bit as that of the original.
    """
    scale = side / max(picture.size)
    width, height = (max(1, int(length * scale + 0.5)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def _reason(image: str) -> tuple[str, str]:
    """Returns why an image cannot be copied, empty if it can, and the suffix of its format."""
    place = parse_place(image)
    if place.kind not in ("", "bytes"):
        return f"{place.kind} of a {''.join(Path(place.file).suffixes[-1:]) or 'file'}", ""
    source = io.BytesIO(read_member(place)) if place.kind else place.file
    try:
        with Image.open(source) as header:
            form, mode = str(header.format), header.mode
            frames = getattr(header, "n_frames", 1)
    except Exception:  # noqa: BLE001 - `read_image` could read it, Pillow alone cannot
        return f"{Path(place.file).suffix or 'a format'} that needs more than Pillow", ""
    if form not in _SUFFIXES:
        return form, ""
    if frames > 1:
        return f"{form} of several frames", ""
    if mode.startswith(_DEEP_MODES):
        return f"{form} of 16 bits", ""
    return "", _SUFFIXES[form]


def _original(image: str) -> bytes:
    place = parse_place(image)
    if place.kind:
        return read_member(place)
    try:
        return Path(place.file).read_bytes()
    except OSError as error:
        raise BadImageError(image, error.strerror or str(error)) from error


def _encode(picture: Image.Image, kind: str) -> bytes:
    """Writes pixels to a file in memory; what is grey in all of them, as grey."""
    red, green, blue = picture.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        picture = red
    buffer = io.BytesIO()
    if kind == "jpeg":
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()
