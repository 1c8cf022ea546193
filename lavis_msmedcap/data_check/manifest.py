"""A clean manifest: one JSON object per line and image, as the builder ``caption_table`` reads it.

{"image": "/data/a.png", "captions": ["…"], "image_id": "a", "split": "train",
 "group_id": "PMC1", "source": "roco", "domain": "medical"}

Of data that tell no splits there is no "split", so that training draws shares as it does of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import WITHOUT_SPLIT, ReadReport
from lavis_msmedcap.datasets.readers.rows import TableOptions, open_table
from lavis_msmedcap.datasets.readers.table import read_table
from lavis_msmedcap.datasets.readers.table_files import DROPPED_SUFFIX
from lavis_msmedcap.datasets.records import MedCapRecord

_KEYS = {entry.name for entry in fields(MedCapRecord)}


@dataclass
class CleanSet:
    """What is left of records, and what is not.

    Attributes:
        kept: Records, in their order.
        dropped: (record, reason) for the others.
        renamed: How many image ids had to be told apart.
    """

    kept: list[MedCapRecord]
    dropped: list[tuple[MedCapRecord, str]] = field(default_factory=list)
    renamed: int = 0


def clean(records: Sequence[MedCapRecord], reasons: Sequence[str]) -> CleanSet:
    """Divides records; image ids that stand for several images get a number behind them.

    Args:
        records: Any records.
        reasons: Why a record is to be dropped, "" for those that stay; in the same order.
    """
    result = CleanSet([])
    taken: dict[str, str] = {}
    for record, reason in zip(records, reasons):
        if reason:
            result.dropped.append((record, reason))
            continue
        name = _free_name(record, taken)
        result.renamed += name != record.image_id
        taken[name] = record.image
        result.kept.append(replace(record, image_id=name))
    return result


def _free_name(record: MedCapRecord, taken: dict[str, str]) -> str:
    name, number = record.image_id, 2
    while taken.get(name, record.image) != record.image:
        name = f"{record.source}-{record.image_id}" if number == 2 else f"{name}-{number}"
        number += 1
    return name


def write_manifest(path: Path, result: CleanSet, *, splits: bool = True) -> Path:
    """Writes the records that stay, and beside them those that do not, each with its reason.

    Args:
        path: The manifest; refused if it exists.
        result: From `clean`.
        splits: Whether to write the split of each record.

    Returns:
        The file with the dropped records: ``<name>.dropped.jsonl``.

    Raises:
        DataError: If one of the files exists, or cannot be written.
    """
    other = _beside(path)
    refuse_existing(path)
    dropped = ({**_row(record, splits), "reason": reason} for record, reason in result.dropped)
    _write_lines(path, (_row(record, splits) for record in result.kept))
    _write_lines(other, dropped)
    return other


def refuse_existing(path: Path) -> None:
    """Sees to it that a manifest takes the place of no other file.

    Raises:
        DataError: If it or the file beside it exists.
    """
    for target in (path, _beside(path)):
        if target.exists():
            raise DataError(f"--fix: {target} exists; choose another name, or delete it first")


def _row(record: MedCapRecord, splits: bool) -> dict[str, Any]:
    return {key: cell for key, cell in asdict(record).items() if splits or key != "split"}


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}{DROPPED_SUFFIX}")


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                # ASCII only: whoever reads it cannot stumble over odd line ends or encodings
                file.write(json.dumps(row, ensure_ascii=True) + "\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"--fix: {path} cannot be written: {error}") from error


def read_manifest(path: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    """Yields the records of a manifest: a table that says of each row what data set it is from.

    Args:
        path: The file.
        source: For records that do not say it themselves.
        report: Where to count.

    Raises:
        DataError: If it cannot be read; names the line.
    """
    jsonl = TableOptions(format="jsonl")
    divided = "split" in open_table(path, jsonl).columns
    columns = {"caption" if key == "captions" else key: key for key in _KEYS if key != "split"}
    for record in read_table(
        path,
        split=None if divided else "train",
        columns={**columns, "split": "split" if divided else None},
        options=jsonl,
        source=source,
        report=report,
    ):
        if not divided:
            report.notes[WITHOUT_SPLIT] += 1
        yield record
