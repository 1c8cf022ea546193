"""Tables that went through Excel were refused or lost rows: blank columns, ``sep=``, bare CR."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.rows import TableOptions, open_table
from lavis_msmedcap.datasets.readers.table import read_table

HEADER = ["image", "caption", "patient_id"]
ROWS = [
    ["1.png", "CT of the liver, portal phase; 0.37 cm.", "p1"],
    ["2.png", 'A "halo" sign, second line below.', "p1"],
    ["3.png", "Größe 12 mm", ""],
    ["4.png", "MRI of the knee.", "p3"],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, *_ in ROWS:
        Image.new("L", (4, 4)).save(tmp_path / name)
    return tmp_path


def _text(rows: list[list[str]], separator: str = ",", end: str = "\r\n") -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=separator, lineterminator=end).writerows(rows)
    return buffer.getvalue()


def _wide(blanks: int, end: str = "\r\n") -> str:
    return _text([[*row, *[""] * blanks] for row in [HEADER, *ROWS]], end=end)


PLAIN = [HEADER, *ROWS]
CASES = {
    "blank columns": (_wide(2), "utf-8"),
    "one blank column": (_wide(1), "utf-8-sig"),
    "blank columns, header without": (
        _text([HEADER, *([*row, "", ""] for row in ROWS)]),
        "utf-8",
    ),
    "blank columns, in some rows": (
        _text([HEADER, [*ROWS[0], ""], ROWS[1], [*ROWS[2], "", ""], ROWS[3]]),
        "utf-8",
    ),
    "blank rows at the end": (_wide(2) + ",,,,\r\n" * 3, "utf-8"),
    "separator told": ("sep=;\r\n" + _text(PLAIN, ";"), "utf-8-sig"),
    "separator told in quotes": ('"sep=|"\n' + _text(PLAIN, "|", "\n"), "utf-8"),
    "separator told and saved again": ("sep=,,,\r\n" + _wide(2), "utf-8"),
    "tabs told": ("sep=\t\r\n" + _text(PLAIN, "\t"), "utf-16"),
    "an uncommon separator told": ("sep=^\n" + _text(PLAIN, "^", "\n"), "utf-8"),
    "bare carriage returns": (_text(PLAIN, end="\r"), "utf-8"),
    "bare carriage returns, semicolons, told": ("sep=;\r" + _text(PLAIN, ";", "\r"), "cp1252"),
    "bare carriage returns, blank columns": (_wide(3, "\r"), "utf-8-sig"),
    "Unicode text": (_text(PLAIN, "\t"), "utf-16"),
    "big-endian": (_text(PLAIN, "\t"), "utf-16-be"),
    "two carriage returns": (_text(PLAIN, end="\r\r\n"), "utf-8"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_row_once(folder: Path, case: str) -> None:
    text, encoding = CASES[case]
    table = folder / "t.csv"
    table.write_bytes(text.encode(encoding))
    report = ReadReport("caption_table")
    records = list(read_table(table, report=report))
    found = [[Path(r.image).name, r.captions[0], r.group_id or ""] for r in records]
    assert found == ROWS
    assert not report.dropped
    assert all(Path(record.image).is_file() for record in records)


@pytest.mark.parametrize(("end", "inside"), [("\r", "\n"), ("\r\n", "\n"), ("\n", "\r")])
def test_the_other_line_end_stays_in_captions(folder: Path, end: str, inside: str) -> None:
    rows = [*ROWS[:1], ["2.png", f"first line{inside}second, line", "p2"], *ROWS[2:]]
    (folder / "t.csv").write_bytes(_text([HEADER, *rows], end=end).encode())
    captions = [record.captions[0] for record in read_table(folder / "t.csv")]
    assert captions == [row[1] for row in rows]


def test_lines_are_numbered_as_in_the_file(folder: Path) -> None:
    (folder / "t.csv").write_text('sep=;\nimage;caption\n1.png;CT\n"2.png";"MRI\nof the knee"\n')
    numbers = [number for number, _ in open_table(folder / "t.csv").rows(["image"])]
    assert numbers == [3, 5]


def test_text_behind_the_named_columns_drops_the_row(folder: Path) -> None:
    # read without it, a caption with a comma that nobody quoted would be cut short
    (folder / "t.csv").write_text("image,caption,,\n1.png,CT,,\n2.png,MRI, of the knee,\n")
    report = ReadReport("caption_table")
    assert [r.captions for r in read_table(folder / "t.csv", report=report)] == [("CT",)]
    assert report.dropped == {"with another number of fields than the header": 1}


def test_a_separator_of_the_user_counts_more(folder: Path) -> None:
    (folder / "t.csv").write_text("sep=;\nimage|caption\n1.png|CT; axial\n")
    (record,) = read_table(folder / "t.csv", options=TableOptions(separator="|"))
    assert record.captions == ("CT; axial",)


def test_a_repeated_name_names_its_line(folder: Path) -> None:
    (folder / "t.csv").write_text("sep=,\nimage,caption,caption,,\n1.png,CT,MRI,,\n")
    with pytest.raises(DataError, match=r"t\.csv, line 2: expected a row that names the columns"):
        open_table(folder / "t.csv")
