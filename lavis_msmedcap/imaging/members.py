"""The bytes of images that lie inside a larger file, ``/data/00001.tar::bytes=512+3456``."""

from __future__ import annotations

import re
from pathlib import Path

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.places import ImagePlace

_RANGE = re.compile(r"^(\d{1,18})\+(\d{1,18})$")


def read_member(place: ImagePlace) -> bytes:
    """Reads the bytes that a place of kind "bytes" names, and nothing else of the file.

    Args:
        place: A file, and "begin+length" in bytes.

    Returns:
        Exactly as many bytes as were named.

    Raises:
        BadImageError: If the range is not one, or the file is missing or ends before it.
    """
    begin, length = member_range(place)
    try:
        with Path(place.file).open("rb") as file:
            file.seek(begin)
            data = file.read(length)
    except OSError as error:
        raise BadImageError(str(place), error.strerror or str(error)) from error
    if len(data) != length:
        raise BadImageError(
            str(place), f"the file ends {length - len(data):,} bytes too early; fetch it again"
        )
    return data


def member_range(place: ImagePlace) -> tuple[int, int]:
    """Returns where a member begins and how long it is, both in bytes.

    Raises:
        BadImageError: If the place says something else.
    """
    match = _RANGE.match(place.value)
    if match is None:
        raise BadImageError(str(place), f"bytes={place.value} is not begin+length, as in 512+3456")
    return int(match[1]), int(match[2])
