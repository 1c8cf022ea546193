"""Whole tables are in test_table.py; here is what is decided about them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.framing import Framing
from lavis_msmedcap.datasets.readers.sniffing import (
    Layout,
    quoted_rows,
    sniff_encoding,
    sniff_layout,
    swallows_rows,
)

TEXT = "image,caption\na.png,Größe „12 mm“\n"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode("utf-8"), "utf-8"),
        (TEXT.encode("utf-8-sig"), "utf-8-sig"),
        (TEXT.encode("cp1252"), "cp1252"),
        (TEXT.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("utf-16-le"), "utf-16-le"),
        (TEXT.encode("utf-16-be"), "utf-16-be"),
        (b"a,b\n\x00,1" + b"x" * 100, "utf-8"),  # one 0 is dirt
        (b"x" * (2**20 - 1) + "ä".encode(), "utf-8"),  # a letter across two chunks
        (b"x" * 2**20 + b"\xe4", "cp1252"),  # behind the head
        (b"", "utf-8"),
    ],
)
def test_encodings(tmp_path: Path, data: bytes, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    assert sniff_encoding(path) == encoding
    data.decode(encoding)


@pytest.mark.parametrize("data", [b"caf\xe9 \x81", b"\xc3\x9d \x9d"])
def test_no_encoding_fits(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"neither UTF-8 nor UTF-16 nor cp1252; .*latin-1"):
        sniff_encoding(path)


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("a,b\n1,2\n", Layout(",", True)),
        ("a;b\n1;x, y\n2;z, w\n", Layout(";", True)),
        ("a\tb,c\n1\tx\n", Layout("\t", True)),
        ("a|b\n1|x\n", Layout("|", True)),
        ('a,b\n1,"x, y"\n', Layout(",", True)),
        ('a,b\n1,"x\n2,y"\n', Layout(",", False)),  # would be one row of two
        ('a,b\n1,"x" is\n', Layout(",", False)),  # malformed, and fits as text
        ('a,b\n1,"x \\"y\\", z"\n', Layout(",", True, True)),
        ("a\n1\n", Layout(",", True)),  # one column: the first of all separators
        ("", Layout(",", True)),
    ],
)
def test_layouts(tmp_path: Path, text: str, layout: Layout) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert sniff_layout(path, Framing("utf-8"), None, None) == layout


def test_what_is_told_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a;b\n1;"x, y"\n2;z\n')
    framing = Framing("utf-8")
    assert sniff_layout(path, framing, ",", None).separator == ","
    assert sniff_layout(path, framing, None, False) == Layout(";", False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["1.png", "one line"], False),
        (["1.png", "two\nlines"], False),
        (["1.png", "two,\nlines, of text"], False),
        (["1.png", "x\n2.png,y"], True),
        (["12", "x\n13,y"], True),
        (["12-a", "x\n13,y"], False),  # a number where the row has another kind of name
        (["1.png", "x\n2.png,y,z"], False),  # not as wide as a row
        (["0f8fad5b-d9cb-469f", "x\n7c9e6679-7425-40de,y"], True),
        (["liver", "x\nknee,y"], False),  # words are no names
    ],
)
def test_rows_inside_a_row(fields: list[str], expected: bool) -> None:
    assert swallows_rows(fields, ",", 2) is expected


def test_rows_end_on_their_last_line() -> None:
    lines = ['a,"x\n', 'y"\n', 'b,"1 \\" z"\n']
    found = list(quoted_rows(lines, Layout(",", True, backslashes=True)))
    assert found == [(2, ["a", "x\ny"]), (3, ["b", '1 " z'])]
    with pytest.raises(csv.Error):
        list(quoted_rows(['a,"x" y\n'], Layout(",", True)))
