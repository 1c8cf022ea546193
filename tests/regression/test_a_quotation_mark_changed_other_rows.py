"""One malformed quotation mark made text of all others, or swallowed rows with UUIDs for names."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.table import read_table

MALFORMED = 'x.png\t"Ring" lesion\n'


def _captions(path: Path, text: str) -> tuple[list[str], ReadReport]:
    path.write_text(text, encoding="utf-8")
    report = ReadReport("caption_table")
    return [record.captions[0] for record in read_table(path, report=report)], report


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("image\tcaption\n", '{}.png\t"a ""halo"" sign {}"\n'),
        ('"image"\t"caption"\n', '"{}.png"\t"halo sign {}"\n'),
        ("image\tcaption\n", '{}.png\t"halo sign {}"\n'),
    ],
)
def test_a_malformed_row_among_quoted_ones_is_named(tmp_path: Path, header: str, row: str) -> None:
    rows = "".join(row.format(i, i) for i in range(300))
    with pytest.raises(
        DataError, match=r"t\.tsv, line 302 or after: .*twice, or set quotes: false"
    ):
        _captions(tmp_path / "t.tsv", header + rows + MALFORMED)
    captions, report = _captions(tmp_path / "t.tsv", header + rows)
    assert captions == [row.format(i, i).split("\t")[1].strip('"\n').replace('""', '"')
                        for i in range(300)]  # fmt: skip
    assert not report.notes


def test_marks_that_are_text_are_told(tmp_path: Path) -> None:
    captions, report = _captions(tmp_path / "t.tsv", f"image\tcaption\n{MALFORMED}")
    assert captions == ['"Ring" lesion']
    assert report.notes["t.tsv read with quotation marks as text, not being well-formed"] == 1


def test_backslashes_before_quotation_marks(tmp_path: Path) -> None:
    text = 'image,caption\na.png,"The \\"halo\\" sign, T1 \\\\ T2"\nb.png,"CT, axial"\nc.png,MRI\n'
    captions, report = _captions(tmp_path / "t.csv", text)
    assert captions == ['The "halo" sign, T1 \\\\ T2', "CT, axial", "MRI"]
    assert not report.dropped


@pytest.mark.parametrize(
    "names",
    [
        [f"{hashlib.md5(bytes([i])).hexdigest()}.png" for i in range(6)],
        [str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))) for i in range(6)],
        [f"scan {'abcdef'[i]}.png" for i in range(6)],
        [f"Röntgen of {i} 1.dcm" for i in range(6)],
    ],
)
def test_a_stray_mark_swallows_no_rows_whatever_the_names(tmp_path: Path, names: list[str]) -> None:
    texts = ['"Ring lesion', "normal", "plain film", 'round mass of 2"', "nothing", "end"]
    rows = [f"{name},{text}\n" for name, text in zip(names, texts)]
    captions, report = _captions(tmp_path / "t.csv", "image,caption\n" + "".join(rows))
    assert captions == texts
    assert report.notes["t.csv read with quotation marks as text, not being well-formed"] == 1
