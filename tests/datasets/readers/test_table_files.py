from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.table_files import find_tables


def tables(root: Path, value: Any) -> dict[str | None, list[str]]:
    found = find_tables(value, lambda place: root / place, "datasets.mine.build_info.table")
    return {
        split: [str(path.relative_to(root)) for path in files] for split, files in found.items()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "all.csv",
        "train.csv",
        "hub/data/train-00001-of-00002.parquet",
        "hub/data/train-00000-of-00002.parquet",
        "hub/data/validation-00000-of-00001.parquet",
        "hub/README.md",
        "mixed/captions.TSV",
        "mixed/captions_test.tsv",
        "both/top.jsonl",
        "both/data/lower.jsonl",
        "plain/a.csv",
        "plain/b.csv",
        "none/notes.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all.csv", {None: ["all.csv"]}),
        ("train.csv", {None: ["train.csv"]}),  # a single file may hold any splits
        (["train.csv"], {None: ["train.csv"]}),
        (["train.csv", "mixed/captions_test.tsv"],
         {"train": ["train.csv"], "test": ["mixed/captions_test.tsv"]}),
        ({"val": "train.csv"}, {"val": ["train.csv"]}),  # what is told counts more than a name
        ({"train": "all.csv", "val": None, "test": ["plain/a.csv", "plain/b.csv"]},
         {"train": ["all.csv"], "test": ["plain/a.csv", "plain/b.csv"]}),
        ({"test": "hub"}, {"test": [
            "hub/data/train-00000-of-00002.parquet", "hub/data/train-00001-of-00002.parquet",
            "hub/data/validation-00000-of-00001.parquet"]}),
        ("hub", {
            "train": ["hub/data/train-00000-of-00002.parquet",
                      "hub/data/train-00001-of-00002.parquet"],
            "val": ["hub/data/validation-00000-of-00001.parquet"]}),
        ("both", {None: ["both/top.jsonl"]}),  # the folder itself before its "data"
        ("plain", {None: ["plain/a.csv", "plain/b.csv"]}),
        (None, {}),
        ({}, {}),
    ],
)  # fmt: skip
def test_which_files_are_read_as_what(root: Path, value: Any, expected: Any) -> None:
    assert tables(root, value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gone.csv", r"build_info\.table: no table at .*gone\.csv; set it to where"),
        ({"train": ["all.csv", "gone.csv"]}, r"no table at .*gone\.csv"),
        ("none", r"no table in .*none; expected \.csv, \.tsv"),
        ("mixed", r"captions\.TSV belongs to no split, other tables beside it do; write \{train"),
    ],
)
def test_what_is_wrong_is_told(root: Path, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tables(root, value)
