from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.framing import (
    Framing,
    find_framing,
    fits,
    named_width,
    open_rows,
)


def write(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "line_end", "separator"),
    [
        ("a,b\n1,2\n", "\n", None),
        ("a,b\r\n1,2\r\n", "\n", None),
        ("a,b\r\r\n1,2\r\r\n", "\n", None),  # a CRLF that was translated once too often
        ("a,b\r1,2\r", "\r", None),
        ("a,b\n1,x\ry\n", "\n", None),
        ("a,b\r1,x\ny\r", "\r", None),
        ('"a\nb",c\r1,2\r', "\r", None),  # a name of two lines
        ('"a\rb",c\n1,2\n', "\n", None),
        ("a,b", "\n", None),
        ("", "\n", None),
        ("sep=;\na;b\n", "\n", ";"),
        ("SEP=\t\r\na\tb\r\n", "\n", "\t"),
        ("sep=;\ra;b\r", "\r", ";"),
        ('"sep=|"\r\na|b\r\n', "\n", "|"),
        ("sep=;;;\na;b\n", "\n", ";"),
        ("separator,sep=;\n1,2\n", "\n", None),
        ("sep=a\n1\n", "\n", None),  # a letter separates nothing
        ("sep=;x\n1\n", "\n", None),
        ("sep=\n1\n", "\n", None),
        ("a;b\nsep=;\n", "\n", None),  # in the first line only
    ],
)
def test_what_ends_rows_and_separates_fields(
    tmp_path: Path, text: str, line_end: str, separator: str | None
) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        framing = find_framing(write(tmp_path, text, encoding), encoding)
        assert framing == (encoding, line_end, separator)
        assert framing.lines_before == (separator is not None)


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "größe\n", "cp1252")
    with pytest.raises(DataError, match=r"a\.csv is not utf-8: .*; set encoding"):
        find_framing(path, "utf-8")


@pytest.mark.parametrize(
    ("text", "framing", "lines"),
    [
        ("sep=;\na;b\r\n1;x\ry\n", Framing("utf-8", "\n", ";"), ["a;b\r\n", "1;x\ry\n"]),
        ("sep=;\ra;b\r1;x\ny\r", Framing("utf-8", "\r", ";"), ["a;b\r", "1;x\ny\r"]),
        ("a\n\u2028\n", Framing("utf-8"), ["a\n", "\u2028\n"]),
        ("", Framing("utf-8"), []),
    ],
)
def test_lines_are_as_in_the_file(
    tmp_path: Path, text: str, framing: Framing, lines: list[str]
) -> None:
    with open_rows(write(tmp_path, text), framing) as file:
        assert list(file) == lines


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_a_mark_that_the_encoding_leaves_is_no_part_of_a_name(
    tmp_path: Path, encoding: str
) -> None:
    for mark in ("", "\ufeff"):
        path = write(tmp_path, f"{mark}sep=;\na;b\n", encoding)
        framing = find_framing(path, encoding)
        assert framing.separator == ";"
        with open_rows(path, framing) as file:
            assert file.readline() == "a;b\n"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["a", "b"], True),
        (["", ""], True),
        (["a"], False),
        ([], False),
        (["a", "b", "", " \t"], True),
        (["a", "b", "", "c"], False),
    ],
)
def test_a_row_fits_two_columns(fields: list[str], expected: bool) -> None:
    assert fits(fields, 2) is expected


@pytest.mark.parametrize(
    ("header", "width"), [(["a", "b"], 2), (["", "b", " ", ""], 2), (["", " "], 0), ([], 0)]
)
def test_columns_without_a_name_at_the_end_are_none(header: list[str], width: int) -> None:
    assert named_width(header) == width
