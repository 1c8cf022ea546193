"""Tables of any kind as rows of named cells: CSV, TSV, JSON lines, a JSON list, Parquet."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Union

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import json_lines, read_json
from lavis_msmedcap.datasets.readers.framing import find_framing, fits, named_width, open_rows
from lavis_msmedcap.datasets.readers.parquet import FILES, parquet_columns, parquet_rows
from lavis_msmedcap.datasets.readers.sniffing import (
    FALLBACK,
    quoted_rows,
    sniff_encoding,
    sniff_layout,
    swallows_rows,
)

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")

Cells = Union[Mapping[str, Any], None]  # None: a row of another width than the header

_TOO_LONG = "field larger than field limit"  # how csv says it
_CONTAINERS = {
    b"PK\x03\x04": "an Excel or zip file; save it as CSV",
    b"\x1f\x8b": "packed; unpack it",
}


@dataclass(frozen=True)
class TableOptions:
    """What a user may say about a table; None and "auto" are found out.

    Attributes:
        format: One of ``FORMATS``, or "auto".
        separator: Between the fields of a text table.
        encoding: Of a text table.
        quotes: Whether double quotes hold separators and line ends together.
    """

    format: str = "auto"
    separator: str | None = None
    encoding: str | None = None
    quotes: bool | None = None


class Table(ABC):
    """A table on disk.

    Attributes:
        path: The file.
        columns: Names of its columns.
        unit: What a number of a row counts: "line" or "row".
        notes: What was found out about the file and is worth a word.
    """

    unit = "line"

    def __init__(self, path: Path, columns: Sequence[str], notes: Sequence[str] = ()) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.notes = tuple(notes)

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Cells]]:
        """Yields (number of line or row, cells); a cell that is not there is missing or None."""

    def where(self, number: int) -> str:
        """Names a row, for messages."""
        return f"{self.path}, {self.unit} {number}"

    def holds_files(self, column: str) -> bool:  # noqa: ARG002 - only of Parquet is it true
        """Tells whether the cells of a column are whole files."""
        return False


class TextTable(Table):
    """CSV, TSV and the like; the first row names the columns.

    Columns without a name behind the last one that has one, as spreadsheets leave them, are none.
    """

    def __init__(self, path: Path, options: TableOptions) -> None:
        encoding = options.encoding or sniff_encoding(path)
        self._framing = find_framing(path, encoding)
        separator = options.separator or self._framing.separator
        separator = separator or ("\t" if options.format == "tsv" else None)
        self._layout = sniff_layout(path, self._framing, separator, options.quotes)
        self._quotes_told = options.quotes is not None
        guessed = encoding == FALLBACK and not options.encoding
        notes = [f"{path.name} read as {FALLBACK}, not being UTF-8"] if guessed else []
        if not self._quotes_told and not self._layout.quotes:
            notes.append(f"{path.name} read with quotation marks as text, not being well-formed")
        line, header = next(self._fields(path), (1, []))
        columns = [name.strip() for name in header[: named_width(header)]]
        super().__init__(path, columns, notes)
        named = [name for name in columns if name]
        if len(set(named)) < len(named) or not named:
            raise DataError(
                f"{path}, line {line}: expected a row that names the columns, each once; it reads "
                f"{', '.join(columns) or 'empty'}"
            )

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Cells]]:
        """Yields (line that the row ends on, cells).

        Raises:
            DataError: If a row seems to be several that a quotation mark joins.
        """
        places = [(name, self.columns.index(name)) for name in columns]
        width, end = len(self.columns), self._framing.line_end
        for number, fields in islice(self._fields(self.path), 1, None):
            if not self._quotes_told and swallows_rows(fields, self._layout.separator, width, end):
                lines = sum(field.count(end) for field in fields)
                raise DataError(
                    f"{self.path}, line {number - lines}: a field in quotes goes on for "
                    f"{lines + 1:,} lines, to line {number}, some of which look like rows; set "
                    "quotes: false if a quotation mark is plain text, or quotes: true if all of "
                    "it is one field"
                )
            if fits(fields, width):
                yield number, {name: fields[place] for name, place in places}
            else:
                yield number, None

    def _fields(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Yields (line, fields) of the rows that are not blank.

        Only what ends the first row ends a row, as `sniff_layout` reads it too: of line feed and
        carriage return the other one stands inside captions.
        """
        before = number = self._framing.lines_before
        try:
            with open_rows(path, self._framing) as file:
                if not self._layout.quotes:
                    for number, line in enumerate(file, before + 1):
                        fields = line.rstrip("\r\n").split(self._layout.separator)
                        if any(map(str.strip, fields)):
                            yield number, fields
                    return
                for line_num, fields in quoted_rows(file, self._layout):
                    number = before + line_num
                    if any(fields):
                        yield number, fields
        except csv.Error as error:
            if _TOO_LONG in str(error):
                raise DataError(
                    f"{path}, line {number + 1}: a field of the row that begins there is longer "
                    f"than {csv.field_size_limit():,} characters; most likely a quotation mark "
                    "opens it and none closes it: close it, or set quotes: false if quotation "
                    "marks are plain text"
                ) from error
            raise DataError(
                f"{path}, line {number + 1} or after: {error}; write a quotation mark inside a "
                "quoted field twice, or set quotes: false if they are plain text"
            ) from error
        except UnicodeError as error:
            raise DataError(
                f"{path} is not {self._framing.encoding}: {error}; set encoding"
            ) from error


class LinesTable(Table):
    """JSON lines: one object per line."""

    def __init__(self, path: Path) -> None:
        # all of them: a patient may be told from some later line on only
        super().__init__(path, _keys(entry for _, entry in json_lines(path)))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Cells]]:  # noqa: ARG002
        """Yields (line, object)."""
        yield from json_lines(self.path)


class ListTable(Table):
    """A JSON file that is a list of objects, as LAVIS' own annotations are."""

    unit = "entry"

    def __init__(self, path: Path) -> None:
        content = read_json(path)
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            raise DataError(
                f"{path} is no list of objects; expected [{{image, caption}}, …] (a COCO captions "
                "file is read by the dataset coco2014_caption)"
            )
        self._entries: list[dict[str, Any]] = content
        super().__init__(path, _keys(content))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Cells]]:  # noqa: ARG002
        """Yields (entry, counted from 0; object)."""
        yield from enumerate(self._entries)


class ParquetTable(Table):
    """A Parquet file, see `parquet_rows`."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self._kinds = parquet_columns(path)
        super().__init__(path, list(self._kinds))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Cells]]:
        """Yields (row, counted from 0; cells)."""
        yield from parquet_rows(self.path, columns)

    def holds_files(self, column: str) -> bool:
        """Tells whether the cells of a column are whole files."""
        return self._kinds[column] == FILES


def open_table(path: Path, options: TableOptions | None = None) -> Table:
    """Opens a table and reads the names of its columns.

    Args:
        path: The file.
        options: What is known about it.

    Raises:
        DataError: If it cannot be read in its format.
    """
    options = TableOptions() if options is None else options
    kind = detect_format(path) if options.format == "auto" else options.format
    if kind == "parquet":
        return ParquetTable(path)
    if kind == "jsonl":
        return LinesTable(path)
    if kind == "json":
        return ListTable(path)
    return TextTable(path, options)


def detect_format(path: Path) -> str:
    """Finds out the format of a table from how the file begins; ``.tsv`` also from its name.

    Raises:
        DataError: If it is a file of another program.
    """
    with path.open("rb") as file:
        head = file.read(2**16)
    if head.startswith(b"PAR1"):
        return "parquet"
    for magic, what in _CONTAINERS.items():
        if head.startswith(magic):
            raise DataError(f"{path} is {what} first")
    text = head.decode("utf-8-sig", "replace").lstrip()
    if text.startswith("["):
        return "json"
    if text.startswith("{"):
        return "jsonl" if _is_object(text.split("\n", 1)[0]) or len(head) == 2**16 else "json"
    return "tsv" if path.suffix.lower() in (".tsv", ".tab") else "csv"


def _keys(entries: Iterable[dict[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for entry in entries:
        names.update(dict.fromkeys(entry))
    return list(names)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
