"""A column ``group`` won over ``patient_id``, and columns from row 101 on did not exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavis_msmedcap.datasets.readers.columns import choose_columns
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.table import has_split_column, read_table


@pytest.mark.parametrize("other", ["group", "study_id"])
def test_the_patient_is_the_group(other: str) -> None:
    for found in (["image", "caption", other, "patient_id"], ["file", "PatientID", other, "text"]):
        assert choose_columns(found, {}, "t.csv", "key").group_id in ("patient_id", "PatientID")
    assert choose_columns(["image", "caption", other], {}, "t.csv", "key").group_id == other


def test_the_summary_says_which_columns_were_guessed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Scan,path,text,subject\n1,1.png,CT,a\n2,2.png,MRI,b\n")
    report = ReadReport("caption_table")
    assert [r.group_id for r in read_table(tmp_path / "t.csv", report=report)] == ["a", "b"]
    told = "2 rows with image from 'path', caption from 'text', group_id from 'subject', guessed"
    assert told in report.summary()
    report = ReadReport("caption_table")
    given = {"image": "path", "caption": ["text"], "group_id": None}
    assert [r.group_id for r in read_table(tmp_path / "t.csv", columns=given, report=report)] == [
        None,
        None,
    ]
    assert not report.notes


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize("columns", [{}, {"group_id": "patient_id"}])
def test_a_column_may_begin_late(tmp_path: Path, suffix: str, columns: dict[str, str]) -> None:
    entries = [{"image": f"{i}.png", "caption": "CT of the chest"} for i in range(200)]
    for i in range(150, 200):
        entries[i].update(patient_id=f"p{i}", split="test")
    path = tmp_path / f"t.{suffix}"
    lines = suffix == "jsonl"
    path.write_text("\n".join(map(json.dumps, entries)) if lines else json.dumps(entries))
    groups = [record.group_id for record in read_table(path, columns=columns)]
    assert groups == [None] * 150 + [f"p{i}" for i in range(150, 200)]
    assert has_split_column(path, columns, None, "caption_table")
