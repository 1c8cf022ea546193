"""What stands in two splits at once: articles, patients, images, captions; across data sets too.

A figure of a test article among the training images makes the figures of a paper too good. ROCO's
own splits share articles, and ROCOv2 contains ROCO's test images under other names and ids.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from lavis_msmedcap.datasets.caption_text import squeeze
from lavis_msmedcap.datasets.readers.identity import ImageKeys, groups_of
from lavis_msmedcap.datasets.records import MedCapRecord

# from the surest sign to the weakest
GROUP, SCAN, FILE, PIXELS, NEAR, CAPTION = "group", "scan", "file", "pixels", "near", "caption"
KINDS = (GROUP, SCAN, FILE, PIXELS, NEAR, CAPTION)
# (split that is measured on, split that must not know it)
PAIRS = (("test", "train"), ("val", "train"), ("test", "val"))
# "Chest X-ray." is written a hundred times without anybody copying
TELLING_WORDS = 6

# as articles are numbered: no zeros in front, no sign between, and never less than five digits
_PMC = re.compile(r"(?:https?://\S+/)?PMC([1-9]\d{4,})/?", re.IGNORECASE)
_PMC_NAME = re.compile(r"PMC([1-9]\d{4,})(?![0-9A-Za-z])", re.IGNORECASE)
# with a letter, as nearly all have: "10.2024/00017" may be the number of an examination
_DOI = re.compile(
    r"(?:https?://(?:dx\.)?doi\.org/|doi:\s*)?(10\.\d{4,9}/\S*[a-z]\S*)", re.IGNORECASE
)
_HASH = re.compile(r"[0-9a-f]{32,64}")
_MEDICAT_HASH = re.compile(r"[0-9a-f]{40}")
_MEDICAT_FIGURE = re.compile(r"_\d+-(?:Figure|Table)")


class Leak(NamedTuple):
    """Something that records of different splits share.

    Attributes:
        kind: One of ``KINDS``.
        key: The article or patient, or the caption; empty for images.
        indices: The records, ascending.
    """

    kind: str
    key: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Overlap:
    """How much of one split is known from another.

    Attributes:
        kind: One of ``KINDS``.
        split: The split that is measured on.
        other: The split that shares something with it.
        images: Records of ``split`` that share something.
        of: All records of ``split``.
        keys: Number of articles, images or captions that are shared.
        datasets: ``images`` by (data set of the record, data set of what it shares with).
    """

    kind: str
    split: str
    other: str
    images: int
    of: int
    keys: int
    datasets: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True)
class LeakReport:
    """All leaks of a collection of records.

    Attributes:
        leaks: In the order of ``KINDS``, then as the records come.
        overlaps: One per kind and pair of splits with something in common; worst first.
    """

    leaks: list[Leak]
    overlaps: list[Overlap]

    def of_kind(self, kind: str) -> list[Leak]:
        """Returns the leaks of one kind."""
        return [leak for leak in self.leaks if leak.kind == kind]


@dataclass(frozen=True)
class Fingerprints:
    """What is known of the pictures of records, in the records' order.

    Attributes:
        file: Digest of each image's bytes, empty where it cannot be read.
        pixels: Digest of each decoded picture, empty where it cannot be decoded.
        near: Pairs of records whose different pictures show the same, smaller index first. Not all
            of them: enough to link all that are alike, and to give each record a partner in every
            other split and each of its data sets where it has one.
    """

    file: Sequence[bytes]
    pixels: Sequence[bytes]
    near: Sequence[tuple[int, int]] = ()


def leaks(records: Sequence[MedCapRecord], fingerprints: Fingerprints | None = None) -> LeakReport:
    """Finds what stands in more than one split.

    Args:
        records: Of any number of data sets and splits.
        fingerprints: Of their images; without them only one file named twice is noticed.
    """
    found = [
        *_shared(GROUP, list(map(group_keys, records)), records),
        *_scan_leaks(records),
        *_image_leaks(records, fingerprints),
        *_shared(CAPTION, [set(map(caption_key, r.captions)) - {""} for r in records], records),
    ]
    return LeakReport(found, _overlaps(found, records))


def group_keys(record: MedCapRecord) -> set[str]:
    """Returns the articles or patients of a record so that they can be compared across data sets.

    Articles and hashes mean the same everywhere; any other id ("patient 12") only within its data
    set. Where a record has no group, a PMC id at the start of its own id or file name tells the
    article.

    Returns:
        The keys, several if rows of one image name several; none if nothing is known.
    """
    groups = groups_of(record)
    if groups:
        return {_comparable(group, record) for group in groups}
    names = (record.image_id, PurePosixPath(record.image).name)
    article = next(filter(None, map(_PMC_NAME.match, names)), None)
    return {f"PMC{article[1]}"} if article else set()


def _comparable(group: str, record: MedCapRecord) -> str:
    # ROCO's column PMC_ID holds names of files: PMC4608653_cro-0008-0385-g01.jpg
    named = _PMC_NAME.match(group)
    if named:
        return f"PMC{named[1]}"
    if _HASH.fullmatch(group):
        return group
    return article_id(group, record) or f"{record.source}: {group}"


def article_id(group: str, record: MedCapRecord) -> str:
    """Returns the article that a group is, in one spelling: what everybody may see.

    A hash is an article in MedICaT only. Elsewhere it may be one of a patient's number, and all
    numbers are soon tried.

    Args:
        group: One of a record's groups.
        record: The record.

    Returns:
        A PMC id, a DOI or the hash of a MedICaT article; empty for any other id.
    """
    article = _PMC.fullmatch(group)
    if article:
        return f"PMC{article[1]}"
    doi = _DOI.fullmatch(group)
    if doi:
        return doi[1].casefold()
    return group if _MEDICAT_HASH.fullmatch(group) and _is_medicat(record, group) else ""


def _is_medicat(record: MedCapRecord, group: str) -> bool:
    """Tells by its name or by those of its figures: ``<hash>_2-Figure1-1``."""
    name = record.image_id
    return record.source == "medicat" or (
        name.startswith(group) and bool(_MEDICAT_FIGURE.match(name, len(group)))
    )


def caption_key(caption: str) -> str:
    """Returns a caption for comparison: case and blanks do not count.

    Returns:
        The key, empty if the caption is too short to tell a copy from a coincidence.
    """
    plain = caption.isascii() and caption.isprintable()  # most are, and need no squeezing
    text = (" ".join(caption.split()) if plain else squeeze(caption)).casefold()
    return text if text.count(" ") + 1 >= TELLING_WORDS else ""


def _scan_leaks(records: Sequence[MedCapRecord]) -> list[Leak]:
    """Finds scans of which one split has some slices or frames and another one others."""
    keys = ImageKeys()
    shared = _shared(SCAN, [{keys.scan(record)} for record in records], records, named=False)
    # one and the same image in two splits is told as a file that both have
    return [leak for leak in shared if len({keys.image(records[i]) for i in leak.indices}) > 1]


def _image_leaks(records: Sequence[MedCapRecord], prints: Fingerprints | None) -> list[Leak]:
    if prints is None:
        return _shared(FILE, [{record.image} for record in records], records, named=False)
    same_file = _shared(FILE, list(map(_present, prints.file)), records, named=False)
    same_pixels = [
        leak
        for leak in _shared(PIXELS, list(map(_present, prints.pixels)), records, named=False)
        if len({prints.file[i] for i in leak.indices}) > 1
    ]
    near = [
        Leak(NEAR, "", (one, other))
        for one, other in prints.near
        if records[one].split != records[other].split
    ]
    return [*same_file, *same_pixels, *near]


def _present(key: str | bytes) -> set[str | bytes]:
    return {key} if key else set()


def _shared(
    kind: str,
    keys: Sequence[Iterable[str | bytes]],
    records: Sequence[MedCapRecord],
    named: bool = True,
) -> list[Leak]:
    """Finds the keys that records of more than one split have."""
    first: dict[str | bytes, int] = {}
    several: dict[str | bytes, list[int]] = {}
    for index, own in enumerate(keys):
        for key in own:
            start = first.setdefault(key, index)
            if start != index:
                several.setdefault(key, [start]).append(index)
    return [
        Leak(kind, str(key) if named else "", tuple(indices))
        for key, indices in several.items()
        if len({records[index].split for index in indices}) > 1
    ]


def _overlaps(found: Sequence[Leak], records: Sequence[MedCapRecord]) -> list[Overlap]:
    sizes = Counter(record.split for record in records)
    by_kind: dict[str, list[Leak]] = {}
    for leak in found:
        by_kind.setdefault(leak.kind, []).append(leak)
    overlaps = [
        overlap
        for kind, leaks_of_kind in by_kind.items()
        for split, other in PAIRS
        if (overlap := _overlap(kind, split, other, leaks_of_kind, records, sizes[split])).images
    ]
    order = {(kind, pair): rank for rank, (pair, kind) in enumerate(_ranked())}
    return sorted(overlaps, key=lambda o: order[o.kind, (o.split, o.other)])


def _ranked() -> list[tuple[tuple[str, str], str]]:
    return [(pair, kind) for pair in PAIRS for kind in KINDS]


def _overlap(
    kind: str,
    split: str,
    other: str,
    found: Sequence[Leak],
    records: Sequence[MedCapRecord],
    size: int,
) -> Overlap:
    touched: set[int] = set()
    between: set[tuple[int, str]] = set()
    keys = 0
    for leak in found:
        held = [index for index in leak.indices if records[index].split == split]
        sources = {records[i].source for i in leak.indices if records[i].split == other}
        if not held or not sources:
            continue
        keys += 1
        touched.update(held)
        between.update((index, source) for index in held for source in sources)
    datasets = Counter((records[index].source, source) for index, source in between)
    return Overlap(kind, split, other, len(touched), size, keys, datasets)
