"""What is stored of an image: its file without metadata, or its pixels in a new file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from lavis_msmedcap.data_convert.metadata import without_metadata
from lavis_msmedcap.imaging.containers import read_byte_range, read_cell
from lavis_msmedcap.imaging.dicom_head import HEAD_BYTES, is_dicom
from lavis_msmedcap.imaging.nifti import is_nifti
from lavis_msmedcap.imaging.places import ImagePlace, parse_place
from lavis_msmedcap.imaging.raster import overlooked, read_raster
from lavis_msmedcap.imaging.read import DEFAULTS, ReadOptions, read_image
from lavis_msmedcap.imaging.views import make_sam_view

COPIED = "copied byte for byte"
STRIPPED = "copied without metadata"
# what every reader of a data set can be expected to read, and to read alike
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_JPEG_QUALITY = 95


class ImageSettings(NamedTuple):
    """What to do with images besides copying them.

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
        how: `COPIED`, `STRIPPED`, or why and as what it is stored anew.
    """

    data: bytes
    suffix: str
    how: str


def store_image(
    image: str, settings: ImageSettings, reading: ReadOptions = DEFAULTS
) -> StoredImage:
    """Decodes an image, which shows whether it is whole, and says what to store of it.

    Whatever a file says besides its picture, such as a patient's name in its EXIF data, stays
    where it is.

    Args:
        image: Its place.
        settings: Scaling and format.
        reading: Windows and limits of the training that is to see the same picture.

    Returns:
        The same bytes for the same arguments and version of Pillow.

    Raises:
        BadImageError: If it cannot be decoded.
    """
    picture = read_image(image, reading)
    place = parse_place(image)
    reason, form = _look(place)
    too_large = settings.max_side is not None and max(picture.size) > settings.max_side
    if not (reason or too_large or settings.reencode):
        with _open(place) as file:
            data = file.read()
        bare = _bare(data, form, picture)
        if bare is not None:
            return StoredImage(bare, _SUFFIXES[form], COPIED if bare == data else STRIPPED)
        reason = f"{form} of a form that cannot be copied without metadata"
    if settings.max_side is not None and too_large:
        picture = scale_down(picture, settings.max_side)
        reason = f"scaled down to {settings.max_side} px"
    kind = settings.reencode or "png"
    told = f"stored as {kind.upper()}: {reason or 'asked for'}"
    return StoredImage(_encode(picture, kind), ".jpg" if kind == "jpeg" else ".png", told)


def why_not_plain(image: str) -> str:
    """Says why other programs might not read an image as this package does; "" if they do.

    Args:
        image: Its place; it must be one that can be decoded.
    """
    return _look(parse_place(image))[0]


def scale_down(picture: Image.Image, side: int) -> Image.Image:
    """Scales the longer side of a picture to ``side`` pixels.

    As the SAM view of that size does it, so that it is the same to the bit when it is made of the
    smaller picture.
    """
    view, (height, width) = make_sam_view(picture, side)
    return Image.fromarray(view[:, :height, :width].permute(1, 2, 0).contiguous().numpy())


def _bare(data: bytes, form: str, picture: Image.Image) -> bytes | None:
    """Takes the metadata out of a file; None if that fails, or shows another picture."""
    try:
        bare = without_metadata(data, form)
        if bare == data:
            return data
        same = read_raster(io.BytesIO(bare), None, picture.width * picture.height)
    except (OSError, SyntaxError, ValueError):  # SyntaxError: of Pillow about damaged files
        return None
    return bare if same.tobytes() == picture.tobytes() else None


def _look(place: ImagePlace) -> tuple[str, str]:
    """Returns why an image cannot be copied, empty if it can, and its format."""
    if place.kind in ("frame", "slice") or is_nifti(place.file):
        return f"{place.kind or 'slice'} of a {Path(place.file).suffix} file", ""
    with _open(place) as file:
        if is_dicom(file.read(HEAD_BYTES)):
            return "DICOM", ""
        file.seek(0)
        with Image.open(file) as header:
            form, odd = str(header.format), overlooked(header)
            frames = getattr(header, "n_frames", 1)
    if form not in _SUFFIXES:
        return form, ""
    if frames > 1:
        return f"{form} of several frames", ""
    return (f"{form} {odd}", "") if odd else ("", form)


def _open(place: ImagePlace) -> BinaryIO:
    """Opens the bytes of an encoded image, wherever they are."""
    if place.kind == "bytes":
        return io.BytesIO(read_byte_range(place.file, place.value))
    if place.kind == "row":
        return io.BytesIO(read_cell(place.file, place.value))
    return Path(place.file).open("rb")


def _encode(picture: Image.Image, kind: str) -> bytes:
    """Writes pixels to a file in memory; what is grey in all of them, as grey."""
    red, green, blue = picture.split()
    picture = red if red.tobytes() == green.tobytes() == blue.tobytes() else picture.copy()
    picture.info.clear()  # Pillow would write comments and profiles of the old file
    buffer = io.BytesIO()
    if kind == "jpeg":
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()
