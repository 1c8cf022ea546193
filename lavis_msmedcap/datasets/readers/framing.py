"""Where the rows of a text table begin and what ends them, as spreadsheets leave it.

Excel ends rows with a bare carriage return if asked for "CSV (Macintosh)", and takes a first line
``sep=;`` for the separator, which other programs write for its sake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from lavis_msmedcap.common.errors import DataError

_HEAD = 2**18  # characters, in which the first row ends
_HINT = re.compile(r'"?sep=([^\w\s"]|\t)"?[,;\t|]*\r*$', re.IGNORECASE)
_FIRST_ROW = re.compile(r'(?:[^"\r\n]+|"[^"]*")*')


class Framing(NamedTuple):
    """How the rows of a text table lie in its file.

    Attributes:
        encoding: Of the characters.
        line_end: What ends a row: a line feed, after which carriage returns are left over, or a
            bare carriage return.
        separator: What the first line says; None if the first line names the columns.
    """

    encoding: str
    line_end: str = "\n"
    separator: str | None = None

    @property
    def lines_before(self) -> int:
        """Number of lines before the one that names the columns."""
        return int(self.separator is not None)


def find_framing(path: Path, encoding: str) -> Framing:
    """Finds out what ends the rows of a text table and whether it begins with ``sep=``.

    A table whose first row ends in a line feed may hold carriage returns inside captions, and the
    other way round.

    Raises:
        DataError: If the head of the file cannot be decoded.
    """
    try:
        with path.open(encoding=encoding, newline="") as file:
            head = file.read(_HEAD).lstrip("\ufeff")
    except UnicodeError as error:
        raise DataError(f"{path} is not {encoding}: {error}; set encoding") from error
    first = _FIRST_ROW.match(head)
    rest = head[first.end() :] if first else ""
    line_end = "\r" if rest.startswith("\r") and not rest.lstrip("\r").startswith("\n") else "\n"
    hint = _HINT.match(head.partition(line_end)[0])
    return Framing(encoding, line_end, hint.group(1) if hint else None)


@contextmanager
def open_rows(path: Path, framing: Framing) -> Iterator[TextIO]:
    """Opens a text table at the row that names the columns; its lines are read untranslated."""
    with path.open(encoding=framing.encoding, newline=framing.line_end) as file:
        if file.read(1) != "\ufeff":
            file.seek(0)
        for _ in range(framing.lines_before):
            file.readline()
        yield file


def fits(fields: Sequence[str], width: int) -> bool:
    """Tells whether a row has a field for each named column, and nothing but blanks behind them.

    Args:
        fields: Of the row.
        width: Number of columns up to the last one that has a name.
    """
    return len(fields) == width or (len(fields) > width and not any(map(str.strip, fields[width:])))


def named_width(header: Sequence[str]) -> int:
    """Returns the number of columns up to the last one that has a name."""
    return max((place for place, name in enumerate(header, 1) if name.strip()), default=0)
