"""Any image to 8-bit RGB: the one reader that training, evaluation and tools share.

An image is named by a string, see `lavis_msmedcap.imaging.places`; what it is, its content decides.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.containers import read_byte_range, read_cell
from lavis_msmedcap.imaging.dicom_head import HEAD_BYTES, is_dicom
from lavis_msmedcap.imaging.dicom_head import SUFFIXES as DICOM_SUFFIXES
from lavis_msmedcap.imaging.limits import MAX_PIXELS
from lavis_msmedcap.imaging.nifti import is_nifti, read_nifti
from lavis_msmedcap.imaging.places import ImagePlace, parse_place
from lavis_msmedcap.imaging.raster import read_raster
from lavis_msmedcap.imaging.windows import Window

_LONGEST_REASON = 400  # characters; decoders may quote what they found

_flag_lock = threading.Lock()
_flag_users = 0
_flag_before = False


@dataclass(frozen=True)
class ReadOptions:
    """What may be chosen about reading.

    Attributes:
        window: Which values of scans become black and white.
        max_pixels: Largest accepted size of a picture.
    """

    window: Window = field(default_factory=Window)
    max_pixels: int = MAX_PIXELS


DEFAULTS = ReadOptions()


def read_image(image: str | os.PathLike[str], options: ReadOptions = DEFAULTS) -> Image.Image:
    """Reads an image.

    Of an animation or a multi-page file the first frame is taken, of a DICOM series and of a NIfTI
    volume the middle one, unless the name says which. See `raster`, `dicom` and `nifti` in this
    folder for colours, depths and orientation.

    Args:
        image: A file, or a part of one, by name.
        options: Windows and limits.

    Returns:
        The picture in mode "RGB", detached from the file.

    Raises:
        BadImageError: If it is missing, empty, truncated, damaged, too large, or not an image. It
            names the image, and what to do.
    """
    name = os.fspath(image)
    place = parse_place(name)
    try:
        with strict_decoding():
            return _read(place, options)
    except FileNotFoundError as error:
        raise BadImageError(name, "the file does not exist") from error
    except IsADirectoryError as error:
        raise BadImageError(name, "this is a folder, not an image file") from error
    except Exception as error:
        # decoders raise anything from struct.error to ZeroDivisionError on damaged bytes
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        cure = "; fetch the file again" if "truncated" in reason else ""
        raise BadImageError(name, reason + cure) from error


@contextmanager
def strict_decoding() -> Iterator[None]:
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


def _read(place: ImagePlace, options: ReadOptions) -> Image.Image:
    _check_file(place.file)
    number = _number(place) if place.kind in ("frame", "slice") else None
    if place.kind == "slice" or (not place.kind and is_nifti(place.file)):
        if not is_nifti(place.file):
            raise ValueError("slices are of .nii and .nii.gz files; of others, write ::frame=N")
        return read_nifti(place.file, number, options.window, options.max_pixels)
    with _open(place) as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if is_dicom(head):
            from lavis_msmedcap.imaging.dicom import read_dicom  # pydicom takes its time

            return read_dicom(file, number, options.window, options.max_pixels)
        try:
            return read_raster(file, number, options.max_pixels)
        except UnidentifiedImageError as error:
            raise ValueError(_unidentified(place.file, head)) from error


def _check_file(path: str) -> None:
    """Refuses what cannot be read to its end, such as a pipe that nobody writes to."""
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(path)
    if not stat.S_ISREG(mode):
        raise ValueError("not a regular file but a pipe, socket or device")


def _number(place: ImagePlace) -> int:
    if not place.value.isdecimal():
        raise ValueError(f"{place.kind}={place.value} is no number; expected 0 or more")
    return int(place.value)


def _open(place: ImagePlace) -> BinaryIO:
    if place.kind == "bytes":
        return io.BytesIO(read_byte_range(place.file, place.value))
    if place.kind == "row":
        return io.BytesIO(read_cell(place.file, place.value))
    return open(place.file, "rb")  # noqa: PTH123 - the hot path of a loader


def _unidentified(path: str, head: bytes) -> str:
    """Says why a file is not known: the reasons that downloads really have."""
    start = head[:16]
    if not start:
        return "the file is empty; fetch it again"
    if start.lstrip()[:1] == b"<":
        return f"not an image but a web page or XML (it begins with {start!r}); fetch it again"
    if path.lower().endswith(DICOM_SUFFIXES):
        return "named like a DICOM file, but there is no DICM at byte 128; fetch it again"
    return f"not an image format that can be read here (it begins with {start!r})"
