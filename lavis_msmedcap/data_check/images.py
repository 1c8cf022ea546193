"""One image looked at closely: can it be read, what is wrong with it, what does it look like."""

from __future__ import annotations

import hashlib
import warnings
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.data_check.likeness import MIN_EDGES, difference_hash, grey_copy
from lavis_msmedcap.imaging.containers import read_cell
from lavis_msmedcap.imaging.places import ImagePlace, parse_place
from lavis_msmedcap.imaging.read import DEFAULTS, ReadOptions, read_image

FACTS_VERSION = 2  # raise it when the same file would give other facts

MISSING = "missing"
EMPTY = "empty file"
TRUNCATED = "truncated"
WEB_PAGE = "a web page or XML"
NOT_AN_IMAGE = "not an image"
TOO_LARGE = "too large to decode"
CRASHED = "crashed the decoder"
BROKEN = "cannot be decoded"
PROBLEMS = (MISSING, EMPTY, TRUNCATED, WEB_PAGE, NOT_AN_IMAGE, TOO_LARGE, CRASHED, BROKEN)

_DIGEST_BYTES = 16
_BLOCK = 1 << 20


class ImageFacts(NamedTuple):
    """What a look at an image gave; of one that cannot be read, only the first two fields count.

    Attributes:
        problem: One of ``PROBLEMS``, empty for a sound image.
        reason: What the reader said.
        width: Pixels.
        height: Pixels.
        constant: Whether all pixels have one value.
        file: Digest of the bytes.
        pixels: Digest of the decoded RGB picture.
        hash: Difference hash, see `likeness`; None where there is too little to see.
        grey: Small grey copy, see `likeness`.
    """

    problem: str = ""
    reason: str = ""
    width: int = 0
    height: int = 0
    constant: bool = False
    file: bytes = b""
    pixels: bytes = b""
    hash: int | None = None
    grey: bytes = b""


ABSENT = ImageFacts(MISSING, "the file does not exist")


def examine(image: str, options: ReadOptions = DEFAULTS) -> ImageFacts:
    """Reads and decodes an image.

    Args:
        image: As in a record, see `lavis_msmedcap.imaging.places`.
        options: Windows and limits that it is read with.
    """
    place = parse_place(image)
    try:
        size = Path(place.file).stat().st_size
        file = file_digest(place) if size else b""
    except FileNotFoundError:
        return ABSENT
    except OSError as error:
        return ImageFacts(BROKEN, str(error))
    if not size:
        return ImageFacts(EMPTY, "the file is empty; fetch it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow about size; sizes are judged here
            picture = read_image(image, options)
    except BadImageError as error:
        return ImageFacts(_problem(error), error.reason, file=file)
    digest = hashlib.blake2b(repr(picture.size).encode(), digest_size=_DIGEST_BYTES)
    digest.update(picture.tobytes())
    code, edges = difference_hash(picture)
    return ImageFacts(
        width=picture.width,
        height=picture.height,
        constant=all(band[0] == band[1] for band in _extremes(picture)),
        file=file,
        pixels=digest.digest(),
        hash=code if edges >= MIN_EDGES else None,
        grey=grey_copy(picture),
    )


def file_digest(place: ImagePlace) -> bytes:
    """Digests the bytes that make an image.

    A frame of a file is told apart from its other frames. A cell of a table is its content, so that
    it has the digest of a file with the same bytes.

    Returns:
        16 bytes, or none for a cell that cannot be read.
    """
    if place.kind == "row":
        try:
            content = read_cell(place.file, place.value)
        except (OSError, ValueError):  # decoding will tell what is wrong with it
            return b""
        return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
    status = Path(place.file).stat()
    if place.kind == "bytes":
        start, _, length = place.value.partition("+")
        return _digest_of_file(place.file, int(start), int(length), status.st_mtime_ns)
    whole = _digest_of_file(place.file, 0, status.st_size, status.st_mtime_ns)
    if not place.kind:
        return whole
    part = f"{place.kind}={place.value}".encode()
    return hashlib.blake2b(whole + part, digest_size=_DIGEST_BYTES).digest()


@lru_cache(maxsize=4)  # the frames of one file come one after the other
def _digest_of_file(name: str, start: int, length: int, changed: int) -> bytes:  # noqa: ARG001
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    left = length
    with Path(name).open("rb") as file:
        file.seek(start)
        while left > 0:
            block = file.read(min(left, _BLOCK))
            if not block:
                break
            digest.update(block)
            left -= len(block)
    return digest.digest()


def _problem(error: BadImageError) -> str:
    """Sorts the reader's reasons into the few kinds that need different cures."""
    reason = error.reason.lower()
    if "does not exist" in reason:
        return MISSING
    if "web page" in reason:
        return WEB_PAGE
    if "truncat" in reason or "unexpected end" in reason:
        return TRUNCATED
    if "decompression bomb" in reason or "too large" in reason:
        return TOO_LARGE
    if isinstance(error.__cause__, UnidentifiedImageError) or "not an image" in reason:
        return NOT_AN_IMAGE
    return BROKEN


def _extremes(picture: Image.Image) -> list[tuple[int, int]]:
    """Returns the smallest and largest value of each band."""
    return [band.getextrema() for band in picture.split()]  # type: ignore[misc]  # whole numbers
