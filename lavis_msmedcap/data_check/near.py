"""Finding pictures that are alike among hundreds of thousands, without looking at all pairs.

hashes ──proposed──▶ pairs that may be alike ──alike──▶ links between sets of pictures

Pictures that are linked already, however indirectly, are not compared again: of thousands of frames
that show the same, each is compared a few times and not with all others.

Dimensions: n pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from lavis_msmedcap.data_check.choices import MAX_NEAR
from lavis_msmedcap.data_check.likeness import (
    MIN_CORRELATION,
    Hashes,
    Indices,
    Pictures,
    bit_count,
    standardized,
)
from lavis_msmedcap.data_check.linking import Links

Pairs = list[tuple[int, int]]
# (split, data set)
Part = tuple[str, str]

_HASH_BITS = 64
_SPARE_BANDS = 3
_NEIGHBOURS = (1, 2, 4, 8, 16, 32)
_CHUNK = 1 << 16
_BLOCK = 1024  # rows of a product
_CELLS = 1 << 21  # of a product, or of a table of pairs: some MB
_ROUNDING = 1e-4  # of products in float32; who comes near is looked at exactly
_FEW = 16  # pictures of which all pairs are looked at


def near_links(pictures: Pictures, distance: int) -> Pairs:
    """Finds pairs of pictures that show the same, enough of them to link all that are alike.

    Two hashes that differ in at most k bits agree in at least m - k of m bands. So all pairs stand
    together in some list sorted by m - k bands, and no list of pairs that merely might agree is
    ever made: 200,000 pictures take seconds.

    Args:
        pictures: n pictures.
        distance: k, the most bits in which two hashes may differ, at most ``MAX_NEAR``.

    Returns:
        At most n - 1 pairs of indices, the smaller one first, ascending.

    Raises:
        ValueError: If ``distance`` is out of range.
    """
    if not 0 <= distance <= MAX_NEAR:
        raise ValueError(f"distance is {distance}; expected 0 to {MAX_NEAR} bits")
    if not len(pictures.hashes):
        return []
    return sorted(_Search(pictures, distance).pairs())


def near_partners(
    pictures: Pictures,
    distance: int,
    groups: Sequence[Sequence[int]],
    parts: Sequence[Mapping[Part, Any]],
) -> Pairs:
    """Finds, for pictures of a group, one that shows the same in each part of another split.

    Args:
        pictures: All pictures.
        distance: As for `near_links`.
        groups: Pictures that are linked, if only indirectly.
        parts: By picture, the splits and data sets that it stands in.

    Returns:
        (picture, partner): one pair at least for each part in which a picture has a partner, and
        of a large group not many more.
    """
    found: Pairs = []
    by_size: dict[int, list[Sequence[int]]] = {}
    for group in groups:
        if len(group) <= _FEW:
            by_size.setdefault(len(group), []).append(group)
            continue
        for part in dict.fromkeys(part for picture in group for part in parts[picture]):
            columns = [picture for picture in group if part in parts[picture]]
            rows = [p for p in group if any(split != part[0] for split, _ in parts[p])]
            found += _one_each(pictures, distance, np.array(rows), np.array(columns))
    for size, some in by_size.items():
        table = np.array(some, dtype=np.intp)  # (groups, size)
        first, second = np.triu_indices(size, 1)
        left, right = table[:, first].ravel(), table[:, second].ravel()
        alike = pictures.alike(left, right, distance)
        pairs = list(zip(left[alike].tolist(), right[alike].tolist()))
        found += [*pairs, *((other, one) for one, other in pairs)]
    return found


def _one_each(
    pictures: Pictures, distance: int, rows: Indices, columns: Indices
) -> Iterator[tuple[int, int]]:
    """Yields each row's first partner among the columns; most find theirs among the first few."""
    start, width = 0, 1
    while start < len(columns) and len(rows):
        block = columns[start : start + width]
        left, right = np.repeat(rows, len(block)), np.tile(block, len(rows))
        alike = pictures.alike(left, right, distance) & (left != right)
        table = alike.reshape(len(rows), len(block))
        has = table.any(axis=1)
        yield from zip(rows[has].tolist(), block[table[has].argmax(axis=1)].tolist())
        rows = rows[~has]
        start += width
        width = max(1, min(4 * width, _CELLS // max(1, len(rows))))


class _Search:
    """Links pictures that are alike, and keeps the pairs that did it."""

    def __init__(self, pictures: Pictures, distance: int) -> None:
        self._pictures, self._distance = pictures, distance
        self._links = Links(len(pictures.hashes))
        self._found: Pairs = []
        self._codes, code_of = np.unique(pictures.hashes, return_inverse=True)
        # pictures sorted by hash, and where each hash begins among them
        self._sorted = np.argsort(code_of, kind="stable")
        counts = np.bincount(code_of)
        self._begins = np.cumsum(counts) - counts
        self._members = np.split(self._sorted, self._begins[1:])
        self._alone = counts == 1

    def pairs(self) -> Pairs:
        # equal hashes agree in all bands, and would be proposed for every choice of them
        for group in self._members:
            if len(group) > 1:
                self._compare_within(group)
        firsts = self._sorted[self._begins]
        for left, right in _proposed(self._codes, self._distance, self._labels):
            plain = self._alone[left] & self._alone[right]
            self._offer(firsts[left[plain]], firsts[right[plain]])
            for one, other in zip(left[~plain].tolist(), right[~plain].tolist()):
                self._compare(self._members[one], self._members[other])
        return self._found

    def _labels(self) -> Indices:
        """Returns a number for each hash: equal ones if all of their pictures are linked."""
        roots = self._links.roots(self._sorted)
        lowest = np.minimum.reduceat(roots, self._begins)
        highest = np.maximum.reduceat(roots, self._begins)
        return np.where(lowest == highest, lowest, -1 - np.arange(len(self._codes)))

    def _offer(self, one: Indices, other: Indices) -> None:
        """Links the pairs that are alike, unless they are linked already."""
        for start in range(0, len(one), _CHUNK):
            left, right = one[start : start + _CHUNK], other[start : start + _CHUNK]
            apart = self._links.roots(left) != self._links.roots(right)
            left, right = left[apart], right[apart]
            alike = self._pictures.alike(left, right, self._distance)
            for pair in zip(left[alike].tolist(), right[alike].tolist()):
                if self._links.join(*pair):
                    self._found.append((min(pair), max(pair)))

    def _compare_within(self, group: Indices) -> None:
        while len(group) > 1:
            # those that are linked come together, and need no comparison among themselves
            group = group[np.argsort(self._links.roots(group), kind="stable")]
            rows = group[: _rows_of_block(len(group))]
            self._compare_block(rows, group)
            group = group[len(rows) :]

    def _compare(self, one: Indices, other: Indices) -> None:
        while len(one):
            one = one[np.argsort(self._links.roots(one), kind="stable")]
            rows = one[: _rows_of_block(len(other))]
            self._compare_block(rows, other)
            one = one[len(rows) :]

    def _compare_block(self, rows: Indices, columns: Indices) -> None:
        """Links pictures of two lists, of which only those are looked at that correlate.

        Of radiographs that share a hash there may be thousands; looked at pair by pair, they take
        minutes.
        """
        own = self._links.roots(rows)
        if own.min() == own.max():
            columns = columns[self._links.roots(columns) != own[0]]
        if not len(columns):
            return
        greys = self._pictures.greys
        product = standardized(greys[rows]) @ standardized(greys[columns]).T / greys.shape[1]
        close = product >= MIN_CORRELATION - _ROUNDING
        # where hundreds are alike, one pair of each row and of each column links them all
        for axis in (0, 1):
            close &= own[:, None] != self._links.roots(columns)
            (has,) = np.nonzero(close.any(axis=axis))
            first = close.argmax(axis=axis)[has]
            left, right = (first, has) if axis == 0 else (has, first)
            close[left, right] = False
            self._offer(rows[left], columns[right])
            own = self._links.roots(rows)
        close &= own[:, None] != self._links.roots(columns)
        left, right = np.nonzero(close)
        self._offer(rows[left], columns[right])


def _rows_of_block(columns: int) -> int:
    return max(1, min(_BLOCK, _CELLS // columns))


def _proposed(
    codes: Hashes, distance: int, labels: Callable[[], Indices]
) -> Iterator[tuple[Indices, Indices]]:
    """Yields pairs of hashes within the distance, in arrays of at most n pairs.

    Args:
        codes: n different hashes.
        distance: The most bits in which they differ.
        labels: Returns a number for each hash; those of one number need not be proposed. It is
            asked again and again.
    """
    bands = _bands(distance + _SPARE_BANDS)
    for chosen in combinations(range(len(bands)), _SPARE_BANDS):
        key = codes & np.bitwise_or.reduce(bands[list(chosen)])
        # a pair belongs to the first of the combinations that it agrees in
        earlier = [bands[b] for b in range(chosen[-1]) if b not in chosen]

        def close(left: Indices, right: Indices) -> tuple[Indices, Indices]:
            difference = codes[left] ^ codes[right]
            keep = bit_count(difference) <= distance
            for band in earlier:  # noqa: B023 - called in this turn only
                keep &= (difference & band) != 0
            return left[keep], right[keep]

        order = np.argsort(key, kind="stable")  # of sorted codes: likely ones are neighbours
        for step in _NEIGHBOURS:
            together = key[order[:-step]] == key[order[step:]]
            yield close(order[:-step][together], order[step:][together])
        for left, right in _other_labels(key, labels()):
            yield close(left, right)


def _other_labels(key: Hashes, label: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yields the pairs with equal keys and different labels, in arrays of at most n pairs."""
    order = np.lexsort((label, key))
    run, own = key[order], label[order]
    changes = np.flatnonzero((run[1:] != run[:-1]) | (own[1:] != own[:-1])) + 1
    edges = np.concatenate([[0], changes, [len(key)]])
    starts = np.arange(len(key))
    others = np.repeat(edges[1:], np.diff(edges))  # where the next label begins
    while len(starts):
        inside = others < len(key)
        starts, others = starts[inside], others[inside]
        same = run[starts] == run[others]
        starts, others = starts[same], others[same]
        yield order[starts], order[others]
        others = others + 1


def _bands(count: int) -> npt.NDArray[np.uint64]:
    """Cuts 64 bits into masks of about equal width; neighbours in a picture go to different ones.

    Steps side by side say much the same, and a black margin makes whole rows of them alike: bits
    dealt out in turn keep every band telling.
    """
    masks = [0] * count
    for bit in range(_HASH_BITS):
        masks[bit % count] |= 1 << bit
    return np.array(masks, dtype=np.uint64)
