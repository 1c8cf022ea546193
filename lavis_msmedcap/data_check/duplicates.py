"""Images that stand in a collection more than once, in groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lavis_msmedcap.data_check.images import ImageFacts
from lavis_msmedcap.data_check.leaks import Fingerprints
from lavis_msmedcap.data_check.likeness import near_pairs


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


def fingerprints(own: Sequence[ImageFacts], distance: int) -> Fingerprints:
    """Collects what identifies the pictures of records.

    Args:
        own: Of the records' images, in the same order.
        distance: Most bits in which the hashes of like pictures differ, see `likeness`.
    """
    members: dict[bytes, list[int]] = {}
    for index, fact in enumerate(own):
        if fact.hash is not None:
            members.setdefault(fact.pixels, []).append(index)
    firsts = [own[indices[0]] for indices in members.values()]
    pairs = near_pairs(
        [fact.hash for fact in firsts if fact.hash is not None],
        [fact.grey for fact in firsts],
        [fact.width / fact.height for fact in firsts],
        distance,
    )
    groups = list(members.values())
    near = [
        (min(one, other), max(one, other))
        for left, right in pairs
        for one in groups[left]
        for other in groups[right]
    ]
    return Fingerprints([f.file for f in own], [f.pixels for f in own], sorted(near))


def find_duplicates(prints: Fingerprints, facts: Sequence[ImageFacts]) -> Duplicates:
    """Groups records by their pictures.

    Args:
        prints: Of the records.
        facts: Of the records' images, in the same order.
    """
    pixels = [g for g in _groups(prints.pixels) if len({prints.file[i] for i in g}) > 1]
    unseen = sum(not f.problem and f.hash is None for f in facts)
    return Duplicates(_groups(prints.file), pixels, linked(prints.near), unseen)


def _groups(keys: Iterable[bytes]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for index, key in enumerate(keys):
        if key:
            groups.setdefault(key, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def linked(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Joins pairs to groups: whoever is linked to a member is a member.

    Returns:
        Groups, largest first, members ascending.
    """
    root: dict[int, int] = {}

    def find(member: int) -> int:
        while root.setdefault(member, member) != member:
            root[member] = root[root[member]]
            member = root[member]
        return member

    for one, other in pairs:
        root[find(other)] = find(one)
    groups: dict[int, list[int]] = {}
    for member in sorted(root):
        groups.setdefault(find(member), []).append(member)
    return sorted(groups.values(), key=len, reverse=True)
