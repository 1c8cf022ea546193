"""Images that stand in a collection more than once, in groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lavis_msmedcap.data_check.images import ImageFacts
from lavis_msmedcap.data_check.leaks import Fingerprints
from lavis_msmedcap.data_check.likeness import Pictures, reduced
from lavis_msmedcap.data_check.linking import Links
from lavis_msmedcap.data_check.near import Part, near_links, near_partners
from lavis_msmedcap.datasets.records import MedCapRecord


@dataclass(frozen=True)
class Duplicates:
    """Groups of records with the same picture; a group lies in one or in several splits.

    Attributes:
        file: Groups with the same bytes.
        pixels: Groups with the same decoded picture in files that differ.
        near: Groups whose pictures differ and show the same, linked by likeness.
        unseen: Sound images with too little in them to be compared by what they show.
    """

    file: list[list[int]]
    pixels: list[list[int]]
    near: list[list[int]]
    unseen: int = 0


def fingerprints(
    own: Sequence[ImageFacts], records: Sequence[MedCapRecord], distance: int
) -> Fingerprints:
    """Collects what identifies the pictures of records.

    Args:
        own: Of the records' images, in the same order.
        records: The records.
        distance: Most bits in which the hashes of like pictures differ, see `likeness`.
    """
    by_pixels: dict[bytes, list[int]] = {}
    for index, fact in enumerate(own):
        if fact.hash is not None:
            by_pixels.setdefault(fact.pixels, []).append(index)
    groups = list(by_pixels.values())
    firsts = [own[indices[0]] for indices in groups]
    pictures = reduced(
        [fact.hash for fact in firsts if fact.hash is not None],
        [fact.grey for fact in firsts],
        [fact.width / fact.height for fact in firsts],
    )
    links = near_links(pictures, distance)
    near = {*_pairs_of_links(links, groups)}
    near.update(_pairs_across_splits(links, groups, records, pictures, distance))
    return Fingerprints([f.file for f in own], [f.pixels for f in own], sorted(near))


def _pairs_of_links(
    links: Sequence[tuple[int, int]], groups: Sequence[Sequence[int]]
) -> Iterator[tuple[int, int]]:
    """Yields pairs of records that link all records of linked pictures."""
    neighbours: dict[int, int] = {}
    for one, other in links:
        yield _ordered(groups[one][0], groups[other][0])
        neighbours.setdefault(one, other)
        neighbours.setdefault(other, one)
    for picture, neighbour in neighbours.items():
        for twin in groups[picture][1:]:
            yield _ordered(twin, groups[neighbour][0])


def _pairs_across_splits(
    links: Sequence[tuple[int, int]],
    groups: Sequence[Sequence[int]],
    records: Sequence[MedCapRecord],
    pictures: Pictures,
    distance: int,
) -> Iterator[tuple[int, int]]:
    """Yields a pair for each record and part of another split in which its picture is, too."""
    parts: list[dict[Part, int]] = []  # by picture, its first record in each part
    for indices in groups:
        own = ((records[i].split, records[i].source) for i in reversed(indices))
        parts.append(dict(zip(own, reversed(indices))))
    several = [
        group
        for group in linked(links, len(groups))
        if len({split for picture in group for split, _ in parts[picture]}) > 1
    ]
    for picture, partner in near_partners(pictures, distance, several, parts):
        for index in groups[picture]:
            for (split, _), other in parts[partner].items():
                if split != records[index].split:
                    yield _ordered(index, other)


def _ordered(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)


def find_duplicates(prints: Fingerprints, facts: Sequence[ImageFacts]) -> Duplicates:
    """Groups records by their pictures.

    Args:
        prints: Of the records.
        facts: Of the records' images, in the same order.
    """
    pixels = [g for g in _groups(prints.pixels) if len({prints.file[i] for i in g}) > 1]
    unseen = sum(not f.problem and f.hash is None for f in facts)
    return Duplicates(_groups(prints.file), pixels, linked(prints.near, len(facts)), unseen)


def _groups(keys: Iterable[bytes]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for index, key in enumerate(keys):
        if key:
            groups.setdefault(key, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def linked(pairs: Iterable[tuple[int, int]], count: int) -> list[list[int]]:
    """Joins pairs to groups: whoever is linked to a member is a member.

    Args:
        pairs: Of numbers below ``count``.
        count: How many there are.

    Returns:
        Groups, largest first, members ascending.
    """
    links = Links(count)
    for one, other in pairs:
        links.join(one, other)
    return links.groups()
