"""CSV files that grow by rows and stay rectangular when a new column turns up."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lavis_msmedcap.common.whole_files import append_whole, write_whole


class CsvTable:
    """A CSV file with one header.

    Which losses exist is known only once each kind of batch was seen (a medical batch has no CLIP
    losses). A new column therefore rewrites the file with the longer header; columns are the fixed
    ones first, then the measured ones in alphabetical order, so that two runs of one configuration
    end with the same header. Cells without a value are empty.

    Args:
        path: File; it is made with the first row.
        fixed: Columns that always come first.
    """

    def __init__(self, path: Path, fixed: Sequence[str]) -> None:
        self.path = path
        self._fixed = list(fixed)
        self._columns: list[str] = []

    def append(self, row: Mapping[str, object]) -> None:
        """Adds a row and writes it out at once.

        Raises:
            StorageError: If the disk is full; the file is as it was then.
        """
        new = [name for name in row if name not in self._columns and name not in self._fixed]
        if new or not self._columns:
            self._extend(new)
        append_whole(self.path, self._lines([_texts(row)]))

    def cut(self, keep: Callable[[Mapping[str, str]], bool]) -> None:
        """Goes on with the file of an interrupted run, without the rows that will be written again.

        Args:
            keep: Tells of a row, all texts, whether it stays.
        """
        if not self.path.is_file():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if _whole(row) and keep(row)]
            self._columns = list(reader.fieldnames or [])
        self._write(rows)

    def _extend(self, new: Sequence[str]) -> None:
        rows: list[dict[str, str]] = []
        if self._columns:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        measured = sorted({*self._columns, *new} - set(self._fixed))
        self._columns = [*self._fixed, *measured]
        self._write(rows)

    def _write(self, rows: Sequence[Mapping[str, str]]) -> None:
        write_whole(self.path, [self._lines([dict(zip(self._columns, self._columns)), *rows])])

    def _lines(self, rows: Iterable[Mapping[str, str]]) -> str:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns).writerows(rows)
        return text.getvalue()


def _whole(row: Mapping[str, str]) -> bool:
    """Tells whether a row was written to its end."""
    return None not in row.values()


def _texts(row: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in row.items()}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.8g}" if math.isfinite(value) else str(value)
    return str(value)
