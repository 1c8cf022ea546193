"""A clean manifest: one JSON object per line and image, as the builder ``caption_table`` reads it.

{"image": "/data/a.png", "captions": ["…"], "image_id": "a", "split": "train",
 "group_id": "PMC1", "source": "roco", "domain": "medical"}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import text_lines, usable_captions
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import DOMAINS, MEDICAL, SPLITS, MedCapRecord

_START = 1 << 16  # characters
# a table of somebody's own may have some of them, and columns besides that a manifest has not
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


def write_manifest(path: Path, result: CleanSet) -> Path:
    """Writes the records that stay, and beside them those that do not, each with its reason.

    Args:
        path: The manifest; refused if it exists.
        result: From `clean`.

    Returns:
        The file with the dropped records: ``<name>.dropped.jsonl``.

    Raises:
        DataError: If one of the files exists, or cannot be written.
    """
    other = path.with_name(f"{path.stem}.dropped.jsonl")
    refuse_existing(path)
    dropped = ({**asdict(record), "reason": reason} for record, reason in result.dropped)
    _write_lines(path, map(asdict, result.kept))
    _write_lines(other, dropped)
    return other


def refuse_existing(path: Path) -> None:
    """Sees to it that a manifest takes the place of no other file.

    Raises:
        DataError: If it or the file beside it exists.
    """
    for target in (path, path.with_name(f"{path.stem}.dropped.jsonl")):
        if target.exists():
            raise DataError(f"--fix: {target} exists; choose another name, or delete it first")


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


def is_manifest(place: Path) -> bool:
    """Tells whether a file begins as a manifest does."""
    if place.suffix != ".jsonl" or not place.is_file():
        return False
    with place.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        line = file.readline(_START)
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and set(entry) >= _KEYS


def read_manifest(path: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    """Yields the records of a manifest.

    Args:
        path: The file.
        source: For records that do not say it themselves.
        report: Where to count.

    Raises:
        DataError: If a line is not a record; names the line.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where} is not JSON: {error}; is the file complete?") from error
        record = _record(entry, path.parent, source, where)
        if not record.captions:
            report.dropped["without caption"] += 1
            continue
        report.kept[record.split] += 1
        yield record


def _record(entry: Any, folder: Path, source: str, where: str) -> MedCapRecord:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise DataError(f"{where}: expected an object with the key image, a path")
    captions = entry.get("captions")
    if not isinstance(captions, list):
        raise DataError(f"{where}: captions is {captions!r}; expected a list of texts")
    values = {"split": entry.get("split"), "domain": entry.get("domain", MEDICAL)}
    for key, known in (("split", SPLITS), ("domain", DOMAINS)):
        if values[key] not in known:
            wanted = ", ".join(known)
            raise DataError(f"{where}: {key} is {values[key]!r}; expected one of {wanted}")
    group = entry.get("group_id")
    image = os.path.join(folder.absolute(), entry["image"])  # noqa: PTH118 - may name a part
    return MedCapRecord(
        image=image,
        captions=usable_captions(captions),
        image_id=str(entry.get("image_id") or entry["image"]),
        split=str(values["split"]),
        group_id=None if group is None else str(group),
        source=str(entry.get("source") or source),
        domain=str(values["domain"]),
    )
