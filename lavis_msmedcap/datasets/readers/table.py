"""Reader of anybody's own table of images and captions."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.columns import ColumnMap, Columns, choose_columns
from lavis_msmedcap.datasets.readers.files import (
    require,
    split_of,
    split_word,
    usable_captions,
    whole_text,
)
from lavis_msmedcap.datasets.readers.lookup import ImageFinder
from lavis_msmedcap.datasets.readers.parquet import cell_place
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.rows import Table, TableOptions, open_table
from lavis_msmedcap.datasets.records import DOMAINS, MEDICAL, MedCapRecord

# what people and programs write into an empty cell
_EMPTY = frozenset({"", "-", "--", "nan", "na", "n/a", "n.a.", "#n/a", "<na>", "none", "null"})
_UNTOLD = _EMPTY | {"unknown"}  # of a patient or a caption; an image may be called so
_LIST_STARTS = ('["', "['", "[ ")
_LONGEST_LIST = 100_000  # characters
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_STRINGS = re.compile(rf"\[\s*{_STRING}(?:[\s,]+{_STRING})*\s*,?\s*\]", re.DOTALL)


def read_table(
    path: Path,
    images: Path | None = None,
    *,
    split: str | None = "train",
    columns: ColumnMap | None = None,
    options: TableOptions | None = None,
    source: str = "caption_table",
    domain: str = MEDICAL,
    report: ReadReport | None = None,
) -> Iterator[MedCapRecord]:
    """Yields one record per row, in the order of the file.

    Several rows of one image are several records of one ``image_id``; `merge_repeated` joins them.

    Args:
        path: CSV, TSV, JSON lines, a JSON list or Parquet.
        images: Folder that image names are relative to; by default that of the table. What is not
            there may be in a folder in it that is called like the split of the row, or like the one
            in the table's name: ``train/``, ``valid/``. Names such as ``../images/1.png`` are
            followed from the table's folder, into this one only.
        split: Split that the records get; None reads the split column.
        columns: Columns by what they hold; those not given are guessed from usual names. Without
            one for ``image_id`` an image is called as it is written; one in a cell by its row if
            the cell does not name it, names another row's image alike, or the column is None.
        options: What is known about the file; the rest is found out.
        source: Registered dataset name, of rows that do not tell it in a column that is given.
        domain: Domain of the records of rows that do not tell it in a column.
        report: Where to count.

    Raises:
        DataError: If the table cannot be read, a column is not found, an image name is unsafe, or
            a domain is unknown.
    """
    report = ReadReport(source) if report is None else report
    key = f"datasets.{source}.build_info"
    table = open_table(require(path, "the table", f"{key}.table"), options)
    chosen = choose_columns(table.columns, columns or {}, str(path), f"{key}.columns")
    for note in table.notes:
        report.notes[note] += 1
    if images is None:
        finder = ImageFinder(path.parent, key=f"{key}.images")
    else:
        folder = require(images, "the folder", f"{key}.images")
        finder = ImageFinder(folder, path.parent, f"{key}.images")
    guesses = chosen.guesses(columns or {})
    by_row = (columns or {}).get("image_id", "") is None
    reader = _RowReader(table, chosen, finder, split, source, domain, report, by_row)
    for number, cells in table.rows(chosen.all):
        if guesses:
            report.notes[f"rows with {guesses}, guessed"] += 1
        found = reader.read(number, cells)
        if isinstance(found, str):
            report.dropped[found] += 1
        else:
            report.kept[found.split] += 1
            yield found


def has_split_column(
    path: Path, columns: ColumnMap | None, options: TableOptions | None, source: str
) -> bool:
    """Tells whether a table says itself which split a row belongs to.

    Raises:
        DataError: As `read_table`.
    """
    table = open_table(path, options)
    key = f"datasets.{source}.build_info.columns"
    return choose_columns(table.columns, columns or {}, str(path), key).split is not None


def tell_splits(
    tables: Sequence[Path], columns: ColumnMap | None, options: TableOptions | None, source: str
) -> bool:
    """Tells whether the tables of one data set say themselves which split a row belongs to.

    Raises:
        DataError: If some do and others do not; and as `read_table`.
    """
    told = [has_split_column(path, columns, options, source) for path in tables]
    if any(told) and not all(told):
        some = ", ".join(str(path) for path, tells in zip(tables, told) if tells)
        others = ", ".join(str(path) for path, tells in zip(tables, told) if not tells)
        key = f"datasets.{source}.build_info"
        raise DataError(
            f"some tables of {source} tell the split of a row in a column ({some}), others do not "
            f"({others}), so the split of their rows is unknown; tell the split of each table "
            f"({key}.table: {{train: …, val: …, test: …}}), or have shares of all rows drawn "
            f"({key}.columns: {{split: null}})"
        )
    return any(told)


class _RowReader:
    """Makes records out of rows."""

    def __init__(
        self,
        table: Table,
        columns: Columns,
        images: ImageFinder,
        split: str | None,
        source: str,
        domain: str,
        report: ReadReport,
        by_row: bool,
    ) -> None:
        self._table, self._columns, self._images = table, columns, images
        self._split, self._source, self._domain = split, source, domain
        self._report = report
        self._in_cells = table.holds_files(columns.image)
        self._by_row = by_row
        self._split_in_name = split_word(table.path.name)
        self._names: set[str] = set()  # of images in cells

    def read(self, number: int, cells: Mapping[str, Any] | None) -> MedCapRecord | str:
        """Returns the record of a row, or the reason why there is none."""
        if cells is None:
            return "with another number of fields than the header"
        columns = self._columns
        split = self._split
        if split is None:
            word = as_text(cells.get(columns.split)) if columns.split else ""
            split = split_of(word)
            if split is None:
                return f"of split {word!r}" if word else "without split"
        captions = usable_captions(
            (
                text
                for name in columns.captions
                for text in _texts(cells.get(name))
                if not self._untold(text)
            ),
            self._report.notes,
        )
        if not captions:
            return "without caption"
        written = as_text(cells.get(columns.image))
        if self._in_cells:
            image = cell_place(self._table.path, number, columns.image)
            written = self._name_of_cell(written, number)
        elif not written:
            return "without image"
        else:
            where = self._table.where(number)
            image = self._images.find(written, where, (split, self._split_in_name))
        image_id = as_text(cells.get(columns.image_id)) if columns.image_id else ""
        group = as_text(cells.get(columns.group_id)) if columns.group_id else ""
        if columns.group_id and self._untold(cells.get(columns.group_id)):
            group = ""
        return MedCapRecord(
            image=image,
            captions=captions,
            image_id=whole_text(image_id or written),
            split=split,
            group_id=whole_text(group) or None,
            source=(as_text(cells.get(columns.source)) if columns.source else "") or self._source,
            domain=self._domain_of(number, cells),
        )

    def _name_of_cell(self, written: str, number: int) -> str:
        """Returns the id of an image in a cell: its name, or if it has none of its own, its row."""
        if not written or self._by_row or written in self._names:
            return f"{self._table.path.stem}-{number}"
        self._names.add(written)
        return written

    def _untold(self, cell: Any) -> bool:
        """Tells whether a cell is text that says that there is nothing; counts it."""
        text = cell.strip().lower() if isinstance(cell, str) else ""
        if not text or text not in _UNTOLD:
            return False
        self._report.notes["cells that say NA, unknown or the like, read as empty"] += 1
        return True

    def _domain_of(self, number: int, cells: Mapping[str, Any]) -> str:
        column = self._columns.domain
        word = as_text(cells.get(column)).lower() if column else ""
        if word and word not in DOMAINS:
            raise DataError(
                f"{self._table.where(number)}: {column} is {word!r}; expected "
                f"{' or '.join(DOMAINS)}. If the column tells something else, set "
                f"datasets.{self._source}.build_info.columns.domain: null"
            )
        return word or self._domain


def as_text(cell: Any) -> str:
    """Returns a cell as text, stripped; a whole number without its decimal point, "" for nothing.

    A column of numbers with a gap comes out of pandas as 12.0 and nan.
    """
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return ""
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if cell is None or isinstance(cell, (list, dict, tuple)):
        return ""
    text = str(cell).strip()
    return "" if text.lower() in _EMPTY else text


def _texts(cell: Any) -> Sequence[Any]:
    """Returns the captions of a cell: one, or those of a list, which in text is written out."""
    if isinstance(cell, (list, tuple)):
        return cell
    if not isinstance(cell, str):
        return ()
    text = cell.strip()
    if text.startswith(_LIST_STARTS) and text.endswith("]") and len(text) < _LONGEST_LIST:
        for parse in (json.loads, _written_strings):
            try:
                listed = parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(listed, list) and all(isinstance(item, str) for item in listed):
                return listed
    return (cell,)


def _written_strings(text: str) -> list[str]:
    """Reads strings as Python writes a list of them, and numpy, which puts no commas between them.

    Raises:
        ValueError: If the text is something else.
        SyntaxError: If a string holds an escape that is none.
    """
    if not _STRINGS.fullmatch(text):
        raise ValueError("no list of strings")
    return [ast.literal_eval(string) for string in re.findall(_STRING, text, re.DOTALL)]
