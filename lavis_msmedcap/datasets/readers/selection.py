"""Choosing among records: splits by article, seeded subsets, short captions, missing images.

All seeded choices are made by hashing a record's own name with a seed. They do not depend on the
order of a file, and adding data moves no record to another split, with two exceptions. Data that
join two groups, such as an image of two patients, put both where one of them was. And where a split
with a share would be empty, it is filled with groups of others (``fill``), which more data may move
back; the summary says so. A share of 10 % is empty in 1 of 3 draws of 10 groups, 1 of 200 of 50.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import FolderIndex
from lavis_msmedcap.datasets.readers.identity import (
    ImageKeys,
    groups_of,
    joined_groups,
    joined_ids,
)
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord
from lavis_msmedcap.imaging.places import split_place

_SHOWN = 3


def split_by_group(
    records: Sequence[MedCapRecord],
    fractions: Mapping[str, float],
    seed: int,
    report: ReadReport | None = None,
    *,
    fill: bool = False,
) -> list[MedCapRecord]:
    """Assigns splits so that all images of an article or patient stand in the same one.

    So do all records of one image, and groups that share one, see `joined_groups`.

    Args:
        records: Records of any split; one without ``group_id`` is its own group.
        fractions: Share of the groups for each split; what is missing to 1 is left out.
        seed: Another seed gives another, unrelated split.
        report: Where to count.
        fill: Give every split with a share at least one group, if there are enough. A dozen images
            may otherwise leave one empty.

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
    groups = joined_groups(records)
    positions = {group: _fraction("split", seed, group) for group in dict.fromkeys(groups)}
    splits = {group: _split_at(position, fractions) for group, position in positions.items()}
    filled = _fill_empty(splits, positions, fractions) if fill else 0
    assigned = [
        record if record.split == split else replace(record, split=split)
        for record, split in ((record, splits[group]) for record, group in zip(records, groups))
        if split is not None
    ]
    if report is not None:
        report.kept = Counter(record.split for record in assigned)
        report.dropped["outside the split fractions"] += len(records) - len(assigned)
        if filled:
            what = (
                f"of {len(splits):,} groups moved to fill an empty split; more data may move them"
            )
            report.notes[what] += filled
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


def merge_repeated(
    records: Sequence[MedCapRecord], report: ReadReport | None = None
) -> list[MedCapRecord]:
    """Makes one record of several of one image, with all their captions, each once.

    So that an image has all its references in evaluation, and in training one caption per epoch.
    The first ``image_id`` counts. Of ``group_id`` all count, see `groups_of`: a patient whom only
    the second row of an image names would be looked for in vain in the other splits.

    Args:
        records: Records of one split.
        report: Where to count; records must have been counted as kept before.

    Returns:
        One record per image, where the first of them stood.

    Raises:
        DataError: If an id names two images.
    """
    keys = ImageKeys()
    unique: dict[str, MedCapRecord] = {}
    named: dict[str, str] = {}  # image by id
    for record in records:
        key = keys.image(record)
        if named.setdefault(record.image_id, key) != key:
            other = unique[named[record.image_id]]
            raise DataError(
                f"{record.source}: image id {record.image_id} ({record.split}) stands for two "
                f"images, {other.image} and {record.image}; give each its own: in a column "
                "image_id, in Parquet files also with columns.image_id: null, or read files of "
                "different folders by sections of their own ({builder: ..., build_info: ...})"
            )
        first = unique.get(key)
        if first is None:
            unique[key] = record
            continue
        captions = tuple(dict.fromkeys([*first.captions, *record.captions]))
        same = record.group_id in (None, first.group_id)
        group = first.group_id if same else joined_ids([*groups_of(first), *groups_of(record)])
        if len(captions) > len(first.captions) or group != first.group_id:
            unique[key] = replace(first, captions=captions, group_id=group)
        if report is not None:
            report.discard("repeated image", 1, record.split)
            if len(captions) > len(first.captions):
                report.notes["repeated images with another caption, which was added"] += 1
    return list(unique.values())


def drop_short_captions(
    records: Sequence[MedCapRecord], min_words: int, report: ReadReport | None = None
) -> list[MedCapRecord]:
    """Drops captions of fewer words; they are kept, and counted, in splits for evaluation.

    A reference is what it is, but "TC." and "XXX." teach a model nothing.

    Args:
        records: Records of one split.
        min_words: Fewest words, counted between blanks, of a training caption.
        report: Where to count; records must have been counted as kept before.
    """
    kept, short = [], 0
    for record in records:
        long = tuple(text for text in record.captions if len(text.split()) >= min_words)
        short += len(record.captions) - len(long)
        if len(long) == len(record.captions) or record.split != "train":
            kept.append(record)
        elif long:
            kept.append(replace(record, captions=long))
    if report is not None and records:
        split, lost = records[0].split, len(records) - len(kept)
        report.discard(f"with captions of fewer than {min_words} words", lost, split)
        if short and split != "train":
            report.notes[f"{split} references of fewer than {min_words} words, kept"] += short
        elif short > lost:
            report.notes[f"captions of fewer than {min_words} words left out"] += short
    return kept


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
    there = [record for record in records if _is_there(record, index)]
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


def missing_key(split: str) -> tuple[str, float]:
    """Returns the key that says which share of a split's images may be missing, and its default."""
    return ("max_missing", 0.05) if split == "train" else ("max_missing_eval", 0.0)


def without_image(records: Sequence[MedCapRecord]) -> list[MedCapRecord]:
    """Returns the records whose image file is not there, the first one of each image."""
    index = FolderIndex()
    unique = {record.image: record for record in reversed(records)}
    return [r for r in reversed(unique.values()) if not _is_there(r, index)]


def _is_there(record: MedCapRecord, index: FolderIndex) -> bool:
    file = split_place(record.image).file
    return index.has(file) or (file != record.image and index.has(record.image))


def _split_at(position: float, fractions: Mapping[str, float]) -> str | None:
    """Returns the split whose share of [0, 1) a position falls into, None if none has it."""
    edge = 0.0
    for split in SPLITS:
        edge += fractions.get(split, 0.0)
        if position < edge or edge > 1 - 1e-9:
            return split
    return None


def _fill_empty(
    splits: dict[str, str | None], positions: Mapping[str, float], fractions: Mapping[str, float]
) -> int:
    """Moves to each empty split the group nearest to its share, from a split that has several.

    Returns:
        Number of groups that were moved.
    """
    edge, moved = 0.0, 0
    for split in SPLITS:
        middle = edge + fractions.get(split, 0.0) / 2
        edge += fractions.get(split, 0.0)
        counts = Counter(splits.values())
        spare = [group for group, of in splits.items() if of is None or counts[of] > 1]
        if fractions.get(split, 0.0) > 0 and not counts[split] and spare:
            nearest = min(spare, key=lambda group: (abs(positions[group] - middle), group))
            splits[nearest] = split
            moved += 1
    return moved


def _fraction(*parts: object) -> float:
    """Hashes its arguments to a number in [0, 1)."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
