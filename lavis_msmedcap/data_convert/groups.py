"""Patients in what is handed on: numbers instead of ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lavis_msmedcap.data_check.leaks import article_id
from lavis_msmedcap.datasets.readers.identity import groups_of, joined_ids
from lavis_msmedcap.datasets.records import MedCapRecord

Parts = Mapping[tuple[str, str], Sequence[MedCapRecord]]


def number_groups(parts: Parts) -> dict[tuple[str, str], list[MedCapRecord]]:
    """Replaces the ids of groups by numbers, so that images of one patient still belong together.

    Ids of articles are public and stay, in one spelling, see `article_id`. A number cannot be
    turned back into an id by trying all of them, as a hash could.

    Args:
        parts: Records by (source, split). Numbers follow their order, part by part by name; a
            group has the same number in all splits of its source.

    Returns:
        The records in the same order: a group becomes ``PMC123`` or ``<source>-<number>``.
    """
    numbers: dict[tuple[str, str], str] = {}
    counts: dict[str, int] = {}
    for source, split in sorted(parts):
        own = ((group, record) for record in parts[source, split] for group in groups_of(record))
        for group, record in own:
            if (source, group) in numbers:
                continue
            name = article_id(group, record)
            if not name:
                counts[source] = counts.get(source, 0) + 1
                name = f"{source}-{counts[source]}"
            numbers[source, group] = name
    return {
        (source, split): [
            record
            if record.group_id is None
            else replace(
                record,
                group_id=joined_ids(numbers[source, group] for group in groups_of(record)),
            )
            for record in records
        ]
        for (source, split), records in parts.items()
    }


def is_number(group: str, source: str) -> bool:
    """Tells whether a group of a data set looks as if `number_groups` had made it."""
    return re.fullmatch(rf"{re.escape(source)}-\d+", group) is not None
