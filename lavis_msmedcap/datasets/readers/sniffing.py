"""Finding out how a text table was written: encoding, separator, quotes."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import image_suffix
from lavis_msmedcap.datasets.readers.framing import Framing, fits, named_width, open_rows

SEPARATORS = (",", "\t", ";", "|")
FALLBACK = "cp1252"

_HEAD = 2**18  # characters that a guess is made from: a few hundred captions
_CHUNK = 2**20
_NAME = re.compile(r"\S*[\d.]\S*")  # a file or an id rather than a word
_DIGEST = re.compile(r"(?=\D*\d)[0-9a-f]{8,}(?:-[0-9a-f]{4,})*", re.IGNORECASE)  # a UUID, an MD5
# a field that is quoted as a whole; a quotation mark inside it is doubled, or has a backslash
_QUOTED = re.compile(r'"(?:[^"\\]|\\.|"")*"')
_DIGITS = re.compile(r"\d+")
_LETTERS = re.compile(r"[^\W\d_]+")
_UTF16_ZEROS = 0.08  # of every second byte, in a table with names in Latin letters
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Layout(NamedTuple):
    """How a text table is laid out.

    Attributes:
        separator: What stands between two fields, one character.
        quotes: Whether a field in double quotes may hold separators and line ends. Without, a
            quotation mark is text.
        backslashes: Whether a quotation mark inside quotes has a backslash before it, as Spark
            and MySQL write it, and is not doubled.
    """

    separator: str
    quotes: bool
    backslashes: bool = False


def sniff_encoding(path: Path) -> str:
    """Returns the encoding of a text file: that of its byte order mark, else UTF-8, else cp1252.

    UTF-8 hardly ever comes about by chance, so a file that decodes as UTF-8 is UTF-8. What Excel
    saves as plain CSV on Windows is cp1252.

    Raises:
        DataError: If it is none of these.
    """
    with path.open("rb") as file:
        head = file.read(_CHUNK)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    # UTF-16 without a mark: of Latin letters every second byte is 0; a few 0 are dirt
    odd, even = head[1::2].count(0), head[::2].count(0)
    if max(odd, even) > _UTF16_ZEROS * len(head) / 2:
        return "utf-16-le" if odd > even else "utf-16-be"
    for encoding in ("utf-8", FALLBACK):
        if _decodes(path, encoding):
            return encoding
    raise DataError(
        f"{path} is neither UTF-8 nor UTF-16 nor {FALLBACK}; tell its encoding (for example "
        "encoding: latin-1), or save it as UTF-8"
    )


def sniff_layout(
    path: Path, framing: Framing, separator: str | None, quotes: bool | None
) -> Layout:
    """Returns the layout under which the largest share of rows has as many fields as the first.

    Quotes count where they are well-formed in the whole file and make no row of several, see
    `swallows_rows`. Where not, they are text if every row fits without them and hardly a field is
    quoted as programs do it; else they count, so that reading on names the malformed row.

    Args:
        path: Text table whose first row names the columns.
        framing: Where its rows are.
        separator: The separator, if it is known.
        quotes: Whether quotes count, if that is known.

    Raises:
        DataError: If the head of the file cannot be decoded.
    """
    end = framing.line_end
    try:
        with open_rows(path, framing) as file:
            head = file.read(_HEAD)
            complete = not file.read(1)
    except UnicodeError as error:
        raise DataError(f"{path} is not {framing.encoding}: {error}; set encoding") from error
    if not complete:
        head = head[: head.rfind(end) + 1]
    lines = [f"{line}{end}" for line in head.split(end) if line]
    separators = (separator,) if separator else SEPARATORS
    layouts = [Layout(s, _quotes(lines, s) if quotes is None else quotes) for s in separators]
    best = max(layouts, key=lambda layout: _fit(lines, layout))  # the first of equals
    return _quoting(path, framing, best.separator) if quotes is None else best


def swallows_rows(fields: Sequence[str], separator: str, width: int, line_end: str = "\n") -> bool:
    """Tells whether a row that was read with quotes is several rows.

    A quotation mark that begins a caption and is text makes one field of all that follows, up to
    the next mark that ends one. A field that really has several lines does not look so: a line of
    it hardly ever has as many separators as a row, and beside that a name where the row has one.

    Args:
        fields: The row.
        separator: The separator of the table.
        width: Number of its columns up to the last one that has a name.
        line_end: What ends its rows.
    """
    if not any(line_end in field for field in fields):
        return False
    first, *others = separator.join(fields).split(line_end)
    shapes = [_shape(cell) for cell in first.split(separator)]
    for line in others:
        cells = line.split(separator)
        if fits(cells, width) and any(s and s == _shape(c) for c, s in zip(cells, shapes)):
            return True
    return False


def quoted_rows(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the line that it ends on, fields) of the rows of a table with quotes.

    Raises:
        csv.Error: If quotes are malformed.
    """
    if layout.backslashes:
        lines = (line.replace('\\"', '""') for line in lines)
    reader = csv.reader(lines, delimiter=layout.separator, strict=True)
    for fields in reader:
        yield reader.line_num, fields


def _shape(cell: str) -> str:
    """Returns what the names of a column have in common: "12-b" is "0-a"; "" for text."""
    name = cell.strip()
    suffix = image_suffix(name)
    if suffix:
        return suffix
    if _DIGEST.fullmatch(name):
        return "digest"
    if not _NAME.fullmatch(name):
        return ""
    return _LETTERS.sub("a", _DIGITS.sub("0", name))


def _quoting(path: Path, framing: Framing, separator: str) -> Layout:
    """Returns how quotes are meant in a whole file, given its separator."""
    try:
        for backslashes in (False, True):
            layout = Layout(separator, quotes=True, backslashes=backslashes)
            if _reads_well(path, framing, layout):
                return layout
        return Layout(separator, quotes=not _quotes_are_text(path, framing, separator))
    except UnicodeError as error:
        raise DataError(f"{path} is not {framing.encoding}: {error}; set encoding") from error


def _reads_well(path: Path, framing: Framing, layout: Layout) -> bool:
    """Tells whether quotes are well-formed and make no row of several."""
    with open_rows(path, framing) as file:
        rows = quoted_rows(file, layout)
        try:
            _, header = next(rows, (0, []))
            width = named_width(header)
            return not any(
                swallows_rows(row, layout.separator, width, framing.line_end) for _, row in rows
            )
        except csv.Error:
            return False


def _quotes_are_text(path: Path, framing: Framing, separator: str) -> bool:
    """Tells whether all rows of a file fit without quotes, and few fields are quoted as a whole."""
    quoted = other = 0
    with open_rows(path, framing) as file:
        header = file.readline().split(separator)
        width = named_width(header)
        if any(_QUOTED.fullmatch(cell.strip()) for cell in header):
            return False
        for line in file:
            if not line.strip():
                continue
            cells = line.split(separator)
            if not fits(cells, width):
                return False
            for cell in (cell.strip() for cell in cells if '"' in cell):
                if not _QUOTED.fullmatch(cell):
                    other += cell.startswith('"')
                elif '"' in cell[1:-1]:
                    return False  # nobody doubles a quotation mark that is text
                else:
                    quoted += 1
    return quoted <= other


def _quotes(lines: Sequence[str], separator: str) -> bool:
    """Tells whether quotes count, given the separator."""
    try:
        for _ in _rows(lines, Layout(separator, quotes=True), strict=True):
            pass
    except csv.Error:
        return _fit(lines, Layout(separator, quotes=False))[0] < 1
    return True


def _fit(lines: Sequence[str], layout: Layout) -> tuple[float, int]:
    """Returns the share of rows that are as wide as the first, and that width."""
    rows = list(_rows(lines, layout, strict=False))
    width = named_width(rows[0]) if rows else 0
    if width < 2:
        return -1.0, width
    return sum(fits(row, width) for row in rows) / len(rows), width


def _rows(lines: Sequence[str], layout: Layout, *, strict: bool) -> Iterator[list[str]]:
    """Yields the rows that are not empty; without ``strict`` those before a malformed one."""
    if not layout.quotes:
        yield from (line.split(layout.separator) for line in lines if line.strip())
        return
    reader = csv.reader(lines, delimiter=layout.separator, strict=strict)
    try:
        yield from (row for row in reader if row)
    except csv.Error:
        if strict:
            raise


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
