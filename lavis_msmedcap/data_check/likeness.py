"""Pictures that show the same although their pixels differ: saved again, scaled, or recoloured.

A picture is reduced to 64 bits, of which each says whether a patch is brighter than its right
neighbour (a difference hash), and to a small grey copy. Two are alike if their hashes differ in a
few bits and their grey copies agree: many radiographs of one kind share a hash without being one.

Dimensions: n pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 16  # pixels of the grey copy
MIN_EDGES = 12
MIN_CORRELATION = 0.99
MAX_STRETCH = 1.02  # of width to height; a copy that was cropped is not found anyway
MAX_RESIDUAL = 0.4  # largest patch that may differ, in standard deviations of the picture

_FAINT = 2  # grey levels; a smaller step is noise of a compressed surface
_CHUNK = 1 << 16

Grey = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.intp]
Marks = npt.NDArray[np.bool_]


class Pictures(NamedTuple):
    """What n pictures are compared by.

    Attributes:
        hashes: Difference hashes, uint64 (n,).
        greys: Grey copies, uint8 (n, SIDE * SIDE).
        shapes: Logarithms of width to height, float64 (n,).
    """

    hashes: Hashes
    greys: Grey
    shapes: npt.NDArray[np.float64]

    def alike(self, one: Indices, other: Indices, distance: int) -> Marks:
        """Tells of pairs of pictures whether they show the same.

        Args:
            one: One picture of each pair.
            other: The other one.
            distance: The most bits in which two hashes may differ.

        Returns:
            bool, one value per pair; the order within a pair does not matter.
        """
        first, second = np.minimum(one, other), np.maximum(one, other)
        found: Marks = bit_count(self.hashes[first] ^ self.hashes[second]) <= distance
        found &= np.abs(self.shapes[first] - self.shapes[second]) <= np.log(MAX_STRETCH)
        (close,) = np.nonzero(found)
        for start in range(0, len(close), _CHUNK):
            part = close[start : start + _CHUNK]
            found[part] = _same_picture(self.greys[first[part]], self.greys[second[part]])
        return found


def reduced(hashes: Sequence[int], greys: Sequence[bytes], ratios: Sequence[float]) -> Pictures:
    """Puts together what is known of n pictures.

    Args:
        hashes: Of `difference_hash`.
        greys: Of `grey_copy`.
        ratios: Of width to height.
    """
    rows = np.frombuffer(b"".join(greys), dtype=np.uint8).reshape(len(hashes), SIDE * SIDE)
    shapes = np.log(np.array(ratios, dtype=np.float64))
    return Pictures(np.array(hashes, dtype=np.uint64), rows, shapes)


def difference_hash(image: Image.Image) -> tuple[int, int]:
    """Reduces a picture to a difference hash.

    Args:
        image: Any picture that Pillow can turn into grey.

    Returns:
        The hash, 64 bits, and how many of its bits stand for a step that can be seen. Of an empty
        or all but black picture there are few of them, and the rest is chance: with less than
        ``MIN_EDGES`` the hash is not to be compared.
    """
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    steps = np.diff(np.asarray(small, dtype=np.int16), axis=1)  # (8, 8)
    packed = np.packbits((steps > 0).ravel())
    return int.from_bytes(packed.tobytes(), "big"), int((np.abs(steps) >= _FAINT).sum())


def grey_copy(image: Image.Image) -> bytes:
    """Returns a picture squeezed to ``SIDE`` x ``SIDE`` grey values, row by row."""
    return image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def bit_count(values: Hashes) -> Indices:
    """Counts the bits that are 1."""
    octets = values.view(np.uint8).reshape(len(values), 8)
    counts: Indices = _BITS_OF_OCTET[octets].sum(axis=1)
    return counts


_BITS_OF_OCTET = np.array([bin(value).count("1") for value in range(256)], dtype=np.intp)


def _same_picture(one: Grey, other: Grey) -> Marks:
    """Compares grey copies row by row; brightness and contrast do not count.

    The correlation asks whether all of it agrees, the residual whether no single place differs, as
    a nodule does on a radiograph that is otherwise like another.
    """
    first, second = standardized(one), standardized(other)
    correlation = (first * second).mean(axis=1)
    residual = np.abs(second - correlation[:, None] * first).max(axis=1)
    alike: Marks = (correlation >= MIN_CORRELATION) & (residual <= MAX_RESIDUAL)
    return alike


def standardized(greys: Grey) -> npt.NDArray[np.float32]:
    """Returns grey copies with mean 0 and deviation 1, so that brightness and contrast are gone."""
    values = greys.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.maximum(values.std(axis=1, keepdims=True), 1e-6)
    return values
