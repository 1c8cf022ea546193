"""Choosing among records: splits by article, seeded subsets, images that are not there.

All choices are made by hashing a record's own name with a seed. They depend neither on the order of
a file nor on which other records there are, so that adding data moves no record to another split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import FolderIndex
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord
from lavis_msmedcap.imaging.places import parse_place

_SHOWN = 3


def split_by_group(
    records: Sequence[MedCapRecord],
    fractions: Mapping[str, float],
    seed: int,
    report: ReadReport | None = None,
) -> list[MedCapRecord]:
    """Assigns splits so that all images of an article or patient stand in the same one.

    Args:
        records: Records of any split; one without ``group_id`` is its own group.
        fractions: Share of the groups for each split; what is missing to 1 is left out.
        seed: Another seed gives another, unrelated split.
        report: Where to count.

    Returns:
        Copies with their split set, in the order given.

    Raises:
        DataError: If a split is unknown, a fraction negative, or their sum more than 1.
    """
    unknown = set(fractions) - set(SPLITS)
    total = sum(fractions.values())
    if unknown or min(fractions.values(), default=0) < 0 or total > 1 + 1e-9:
        raise DataError(
            f"split fractions {dict(fractions)} do not work; expected shares of at least 0 for "
            f"{', '.join(SPLITS)} that add up to at most 1"
        )
    assigned = []
    for record in records:
        position = _fraction("split", seed, record.group_id or record.image_id)
        edge = 0.0
        for split in SPLITS:
            edge += fractions.get(split, 0.0)
            if position < edge or edge > 1 - 1e-9:
                assigned.append(replace(record, split=split))
                break
    if report is not None:
        report.kept = Counter(record.split for record in assigned)
        report.dropped["outside the split fractions"] += len(records) - len(assigned)
    return assigned


def take_at_most(
    records: Sequence[MedCapRecord],
    limit: int | None,
    seed: int,
    report: ReadReport | None = None,
) -> list[MedCapRecord]:
    """Draws at most ``limit`` records, the same ones for the same seed, and keeps their order.

    Args:
        records: Records of one split.
        limit: Largest number; None for all.
        seed: Seed of the draw.
        report: Where to count.
    """
    if limit is None or len(records) <= limit:
        return list(records)
    ranked = sorted(
        range(len(records)), key=lambda i: (_fraction("draw", seed, records[i].image_id), i)
    )
    if report is not None:
        report.discard("above max_samples", len(records) - limit, records[0].split)
    return [records[i] for i in sorted(ranked[:limit])]


def drop_missing_images(
    records: Sequence[MedCapRecord], allowed: float, key: str, report: ReadReport | None = None
) -> list[MedCapRecord]:
    """Drops records whose image file is not there, up to a share.

    Args:
        records: Records of one split.
        allowed: Largest share that may be missing, 0 for none.
        key: Configuration key that sets ``allowed``, for the message.
        report: Where to count; records must have been counted as kept before.

    Raises:
        DataError: If more are missing; names the first of them.
    """
    index = FolderIndex()
    there = [record for record in records if index.has(parse_place(record.image).file)]
    missing = len(records) - len(there)
    if missing > allowed * len(records):
        found = set(map(id, there))
        first = [record.image for record in records if id(record) not in found][:_SHOWN]
        raise DataError(
            f"{missing:,} of {len(records):,} images of {records[0].source} "
            f"({records[0].split}) are missing, at most {allowed:.1%} may be: {', '.join(first)}"
            f"{', …' if missing > len(first) else ''}. Fetch them, or raise {key}"
        )
    if report is not None and missing:
        report.discard("image missing", missing, records[0].split)
    return there


def _fraction(*parts: object) -> float:
    """Hashes its arguments to a number in [0, 1)."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
