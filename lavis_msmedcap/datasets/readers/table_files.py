"""Which files an own data set consists of: one table, one per split, or a folder of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Callable, Optional, Union

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import split_word

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet")

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
        DataError: If something does not exist, a folder holds no table, or only some tables have a
            split.
    """
    tables: Tables = {}
    by_split = value.items() if isinstance(value, Mapping) else [(None, value)]
    for split, places in by_split:
        listed = [places] if isinstance(places, str) else list(places or ())
        for place in listed:
            path = locate(place)
            if not path.exists():
                raise DataError(f"{key}: no table at {path}; set it to where your table is")
            files = _tables_in(path, key) if path.is_dir() else [path]
            several = path.is_dir() or len(listed) > 1
            for file in files:
                found = split_word(file.name) if several and split is None else split
                tables.setdefault(found, []).append(file)
    if None in tables and len(tables) > 1:
        raise DataError(
            f"{key}: {tables[None][0]} belongs to no split, other tables beside it do; write "
            "{train: …, val: …, test: …}"
        )
    return tables


def _tables_in(folder: Path, key: str) -> list[Path]:
    for place in (folder, folder / "data"):
        names = place.iterdir() if place.is_dir() else ()
        tables = (path for path in names if path.suffix.lower() in TABLE_SUFFIXES)
        found = sorted(path for path in tables if path.name[0] != ".")  # "._a.csv", from a Mac
        if found:
            return found
    raise DataError(f"{key}: no table in {folder}; expected {', '.join(TABLE_SUFFIXES)}")
