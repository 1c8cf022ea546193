"""Pictures that show the same although their pixels differ: saved again, scaled, or recoloured.

A picture is reduced to 64 bits, of which each says whether a patch is brighter than its right
neighbour (a difference hash), and to a small grey copy. Pairs whose hashes differ in a few bits are
proposed, and the grey copies decide: many radiographs of one kind share a hash without being one.

Dimensions: n pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from PIL import Image

from lavis_msmedcap.data_check.choices import MAX_NEAR

SIDE = 16  # pixels of the grey copy
MIN_EDGES = 12
MIN_CORRELATION = 0.99
MAX_STRETCH = 1.02  # of width to height; a copy that was cropped is not found anyway
MAX_RESIDUAL = 0.4  # largest patch that may differ, in standard deviations of the picture

_HASH_BITS = 64
_FAINT = 2  # grey levels; a smaller step is noise of a compressed surface
_SPARE_BANDS = 3
_CHUNK = 1 << 16
_BLOCK = 1024  # rows of a product: a few MB
_ROUNDING = 1e-4  # of products in float32; who comes near is looked at exactly

Grey = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]


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


def near_pairs(
    hashes: Sequence[int], greys: Sequence[bytes], shapes: Sequence[float], distance: int
) -> list[tuple[int, int]]:
    """Finds the pairs of pictures that show the same.

    Two hashes that differ in at most k bits agree in at least m - k of m bands. So all pairs stand
    together in some list sorted by m - k bands, and no list of pairs that merely might agree is
    ever made: 200,000 pictures take seconds.

    Args:
        hashes: n difference hashes.
        greys: n grey copies, see `grey_copy`.
        shapes: n ratios of width to height.
        distance: k, the most bits in which two hashes may differ, at most ``MAX_NEAR``.

    Returns:
        Pairs of indices, the smaller one first, ascending.

    Raises:
        ValueError: If ``distance`` is out of range.
    """
    if not 0 <= distance <= MAX_NEAR:
        raise ValueError(f"distance is {distance}; expected 0 to {MAX_NEAR} bits")
    codes, code_of = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    thumbs = np.frombuffer(b"".join(greys), dtype=np.uint8).reshape(len(hashes), SIDE * SIDE)
    stretch = np.log(np.array(shapes, dtype=np.float64))
    # equal hashes agree in all bands, and would be proposed for every choice of them
    members = np.split(np.argsort(code_of, kind="stable"), np.cumsum(np.bincount(code_of))[:-1])
    alone = np.array([len(group) == 1 for group in members], dtype=np.bool_)
    firsts = np.array([group[0] for group in members if len(group)], dtype=np.intp)
    found: list[tuple[int, int]] = []
    for one, other in _candidates(codes, distance, members, alone, firsts, thumbs):
        for start in range(0, len(one), _CHUNK):
            left, right = one[start : start + _CHUNK], other[start : start + _CHUNK]
            alike = np.abs(stretch[left] - stretch[right]) <= np.log(MAX_STRETCH)
            left, right = left[alike], right[alike]
            alike = _same_picture(thumbs[left], thumbs[right])
            low, high = np.minimum(left, right)[alike], np.maximum(left, right)[alike]
            found += zip(low.tolist(), high.tolist())
    return sorted(found)


def _candidates(
    codes: npt.NDArray[np.uint64],
    distance: int,
    members: Sequence[Indices],
    alone: npt.NDArray[np.bool_],
    firsts: Indices,
    thumbs: Grey,
) -> Iterator[tuple[Indices, Indices]]:
    """Yields each pair of pictures that may be alike once, in arrays."""
    for group in members:
        if len(group) > 1:
            yield from _correlated(group, group, thumbs)
    for left, right in _proposed(codes, distance):
        plain = alone[left] & alone[right]
        yield firsts[left[plain]], firsts[right[plain]]
        for one, other in zip(left[~plain], right[~plain]):
            yield from _correlated(members[one], members[other], thumbs)


def _correlated(one: Indices, other: Indices, thumbs: Grey) -> Iterator[tuple[Indices, Indices]]:
    """Yields the pairs of two lists whose grey copies correlate, by products of whole blocks.

    Of radiographs that share a hash there may be thousands; looked at pair by pair, they take
    minutes.
    """
    columns = _standardized(thumbs[other])
    for start in range(0, len(one), _BLOCK):
        rows = one[start : start + _BLOCK]
        product = _standardized(thumbs[rows]) @ columns.T / columns.shape[1]
        left, right = np.nonzero(product >= MIN_CORRELATION - _ROUNDING)
        if one is other:  # every pair comes in both orders, and each picture with itself
            keep = left + start < right
            left, right = left[keep], right[keep]
        yield rows[left], other[right]


def _proposed(
    codes: npt.NDArray[np.uint64], distance: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Yields each pair of hashes within the distance once, in arrays of at most n pairs."""
    bands = _bands(distance + _SPARE_BANDS)
    for chosen in combinations(range(len(bands)), _SPARE_BANDS):
        key = codes & np.bitwise_or.reduce(bands[list(chosen)])
        # a pair belongs to the first of the combinations that it agrees in
        earlier = [bands[b] for b in range(chosen[-1]) if b not in chosen]
        order = np.argsort(key, kind="stable")
        run = key[order]
        starts = np.arange(len(codes) - 1)
        step = 1
        while len(starts):
            starts = starts[starts + step < len(codes)]
            starts = starts[run[starts] == run[starts + step]]
            left, right = order[starts], order[starts + step]
            difference = codes[left] ^ codes[right]
            keep = _bit_count(difference) <= distance
            for band in earlier:
                keep &= (difference & band) != 0
            yield left[keep], right[keep]
            step += 1


def _bands(count: int) -> npt.NDArray[np.uint64]:
    """Cuts 64 bits into masks of about equal width; neighbours in a picture go to different ones.

    Steps side by side say much the same, and a black margin makes whole rows of them alike: bits
    dealt out in turn keep every band telling.
    """
    masks = [0] * count
    for bit in range(_HASH_BITS):
        masks[bit % count] |= 1 << bit
    return np.array(masks, dtype=np.uint64)


def _bit_count(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    octets = values.view(np.uint8).reshape(len(values), 8)
    counts: npt.NDArray[np.intp] = _BITS_OF_OCTET[octets].sum(axis=1)
    return counts


_BITS_OF_OCTET = np.array([bin(value).count("1") for value in range(256)], dtype=np.intp)


def _same_picture(one: Grey, other: Grey) -> npt.NDArray[np.bool_]:
    """Compares grey copies row by row; brightness and contrast do not count.

    The correlation asks whether all of it agrees, the residual whether no single place differs, as
    a nodule does on a radiograph that is otherwise like another.
    """
    first, second = _standardized(one), _standardized(other)
    correlation = (first * second).mean(axis=1)
    residual = np.abs(second - correlation[:, None] * first).max(axis=1)
    alike: npt.NDArray[np.bool_] = (correlation >= MIN_CORRELATION) & (residual <= MAX_RESIDUAL)
    return alike


def _standardized(greys: Grey) -> npt.NDArray[np.float32]:
    """Returns grey copies with mean 0 and deviation 1, so that brightness and contrast are gone."""
    values = greys.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.maximum(values.std(axis=1, keepdims=True), 1e-6)
    return values
