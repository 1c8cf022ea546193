"""Where the pixels of an image are: a file, or a part of a file that holds many.

An image is named by one string, so that records, predictions and error messages can carry it:

=========================  ==========================================================
``/data/scan.png``         a file
``/data/scan.dcm::frame=3``  a frame of a DICOM file, a page of a TIFF, counted from 0
``/data/head.nii.gz::slice=40``  a slice of a volume
``/data/00001.tar::bytes=512+3456``  a member of a tar file: where it begins, how long it is
``/data/train-0.parquet::row=17@image``  a cell: row, counted from 0, and column
=========================  ==========================================================

A file that is really called so, ``a::frame=1.png``, is that file.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_PART = re.compile(r"^(?P<file>.+)::(?P<kind>frame|slice|bytes|row)=(?P<value>[^:]+)$", re.DOTALL)


# as readers of shards and of Parquet files write them, by the hundred thousand
_MADE = re.compile(r"(?:bytes=\d+\+\d+|row=\d+@.+)$", re.DOTALL)


class ImagePlace(NamedTuple):
    """An image's place, taken apart.

    Attributes:
        file: The file that has to exist.
        kind: "frame", "slice", "bytes" or "row"; empty for a whole file.
        value: What follows the equals sign.
    """

    file: str
    kind: str = ""
    value: str = ""

    def __str__(self) -> str:
        """The one string that names the place."""
        return f"{self.file}::{self.kind}={self.value}" if self.kind else self.file


def parse_place(image: str) -> ImagePlace:
    """Takes the name of an image apart; a file of that very name wins over its parts.

    Args:
        image: A path, or a path with a part, see the module. A path that happens to hold "::" and
            none of the known parts behind it is a path.
    """
    place = split_place(image)
    part = f"{place.kind}={place.value}"
    if place.kind and not _MADE.match(part) and os.path.lexists(image):
        return ImagePlace(image)
    return place


def split_place(image: str) -> ImagePlace:
    """Takes the name of an image apart without a look at the disk."""
    match = _PART.match(image)
    return ImagePlace(match["file"], match["kind"], match["value"]) if match else ImagePlace(image)
