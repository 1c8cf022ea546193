"""Lone surrogates of JSON ended in tracebacks; ids of images in Parquet cells had no cure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.selection import merge_repeated, split_by_group
from lavis_msmedcap.datasets.readers.table import read_table
from lavis_msmedcap.datasets.records import MedCapRecord

HALF = "\ud83d"
NOTE = "captions with half a character (a lone surrogate), replaced by U+FFFD"


def _lines(path: Path, **fields: str) -> Path:
    entries = [{"image": f"{i}.png", "caption": f"CT {i}", **fields} for i in range(6)]
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


def test_captions_patients_and_ids_are_whole_text(tmp_path: Path) -> None:
    path = _lines(tmp_path / "t.jsonl", caption=f"a {HALF} b", patient_id=f"p{HALF}")
    report = ReadReport("caption_table")
    records = list(read_table(path, report=report))
    assert {(r.captions, r.group_id) for r in records} == {(("a \ufffd b",), "p\ufffd")}
    assert report.notes[NOTE] == 6
    assert len(split_by_group(records, {"train": 1.0}, 0)) == 6
    for record in records:
        repr(record).encode()


def test_coco_captions_are_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps([{"image": "a.jpg", "caption": f"A dog{HALF}"}]))
    report = ReadReport("coco2014_caption")
    (record,) = read_coco(path, tmp_path, "train", report=report)
    assert record.captions == ("A dog\ufffd",)
    assert report.notes == {NOTE: 1}


@pytest.mark.parametrize("name", [f"{HALF}.png", f"/{HALF}/1.png", f"x{HALF}/1.png"])
def test_a_file_name_that_cannot_be_is_an_error(tmp_path: Path, name: str) -> None:
    path = _lines(tmp_path / "t.jsonl", image=name)
    with pytest.raises(DataError, match=r"line 1: image file name .* half a character"):
        list(read_table(path))


def test_a_split_of_names_as_a_disk_may_have_them() -> None:
    record = MedCapRecord("/\udcfc.png", ("CT",), "\udcfc", "train", None, "x", "medical")
    assert split_by_group([record], {"test": 1.0}, 0)[0].split == "test"


@pytest.fixture
def cells(tmp_path: Path) -> list[Path]:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = []
    for number in range(2):
        images = [{"bytes": bytes([number, i]), "path": f"{i % 2}.png"} for i in range(4)]
        table = arrow.table({"image": images, "caption": [f"CT {number}{i}" for i in range(4)]})
        paths.append(tmp_path / f"train-{number}.parquet")
        parquet.write_table(table, paths[-1])
    return paths


def test_cells_of_one_name_are_told_apart(cells: list[Path]) -> None:
    records = merge_repeated(list(read_table(cells[0])))
    assert [r.image_id for r in records] == ["0.png", "1.png", "train-0-2", "train-0-3"]


def test_cells_of_several_files_can_be_told_apart(cells: list[Path]) -> None:
    with pytest.raises(DataError, match=r"stands for two images.*columns\.image_id: null"):
        merge_repeated([record for path in cells for record in read_table(path)])
    by_row = [r for path in cells for r in read_table(path, columns={"image_id": None})]
    assert [r.image_id for r in merge_repeated(by_row)] == [
        f"train-{number}-{i}" for number in range(2) for i in range(4)
    ]
