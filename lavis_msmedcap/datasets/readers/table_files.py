"""Which files an own data set consists of: one table, one per split, or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Callable, Optional, Union

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import split_word
from lavis_msmedcap.datasets.records import MedCapRecord

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet")

DROPPED_SUFFIX = ".dropped.jsonl"  # what a clean manifest leaves out stands beside it

_START = 1 << 16  # characters
# a table of somebody's own may have some of them; a manifest of data without splits has no split
_MANIFEST_KEYS = {entry.name for entry in fields(MedCapRecord)} - {"split"}

Value = Union[str, Iterable[str], None]
# by split; None for tables that hold several splits, or all of whose rows are to be split
Tables = dict[Optional[str], list[Path]]


def find_tables(
    value: Value | Mapping[str, Value], locate: Callable[[str], Path], key: str
) -> Tables:
    """Returns the tables that a configuration names.

    Args:
        value: A file or folder, several of them, or these by split. Of several files, and in a
            folder, each belongs to the split that its name tells, as ``train-00000.parquet`` and
            ``captions_test.csv`` do.
        locate: Turns a place of the configuration into a path.
        key: The configuration key, for messages.

    Raises:
        DataError: If something does not exist, a folder holds no table or a clean manifest beside
            others, or only some tables have a split.
    """
    tables: Tables = {}
    by_split = value.items() if isinstance(value, Mapping) else [(None, value)]
    for split, places in by_split:
        listed = [places] if isinstance(places, str) else list(places or ())
        for place in listed:
            path = locate(place)
            if not path.exists():
                raise DataError(f"{key}: no table at {path}; set it to where your table is")
            files = _all_of(path, key) if path.is_dir() else [path]
            several = path.is_dir() or len(listed) > 1
            for file in files:
                found = split_word(file.name) if several and split is None else split
                tables.setdefault(found, []).append(file)
    if None in tables and len(tables) > 1:
        raise DataError(
            f"{key}: {tables[None][0]} belongs to no split, other tables beside it do; write "
            "{train: …, val: …, test: …}, or name only the files that are meant"
        )
    return tables


def tables_in(folder: Path) -> list[Path]:
    """Returns the tables in a folder, or else in ``data/`` there; not what a manifest left out."""
    for place in (folder, folder / "data"):
        names = place.iterdir() if place.is_dir() else ()
        found = sorted(path for path in names if path.suffix.lower() in TABLE_SUFFIXES)
        kept = [p for p in found if not p.name.endswith(DROPPED_SUFFIX) and p.name[0] != "."]
        if kept:
            return kept
    return []


def is_manifest(place: Path) -> bool:
    """Tells whether a file begins as a manifest does that ``data check --fix`` wrote."""
    if place.suffix != ".jsonl" or not place.is_file():
        return False
    with place.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        line = file.readline(_START)
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and set(entry) >= _MANIFEST_KEYS


def _all_of(folder: Path, key: str) -> list[Path]:
    found = tables_in(folder)
    if not found:
        raise DataError(f"{key}: no table in {folder}; expected {', '.join(TABLE_SUFFIXES)}")
    if len(found) > 1:
        _refuse_manifests(found, key)
    return found


def _refuse_manifests(tables: Sequence[Path], key: str) -> None:
    """Refuses a manifest beside the tables it was made of: their rows would be read twice."""
    manifests = [path for path in tables if is_manifest(path)]
    if not manifests or (manifests == list(tables) and all(split_word(p.name) for p in tables)):
        return
    first = manifests[0]
    others = ", ".join(path.name for path in tables if path != first)
    raise DataError(
        f"{key}: the folder holds {first.name}, a clean manifest of data check --fix, beside "
        f"{others}, and its images would be read twice; name one file instead of the folder "
        f"({first}), or move the manifest elsewhere"
    )
