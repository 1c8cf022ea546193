"""``._captions.csv``, which a Mac leaves beside each file, was read as a table of the data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.table_files import find_tables

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        "


def test_they_are_passed_over(tmp_path: Path) -> None:
    for name in ("captions_train.csv", "captions_val.csv"):
        (tmp_path / name).write_text("image,caption\na.png,CT.\n")
        (tmp_path / f"._{name}").write_bytes(APPLE_DOUBLE)
    (tmp_path / "._captions.csv").write_bytes(APPLE_DOUBLE)
    assert find_tables(str(tmp_path), Path, "table") == {
        "train": [tmp_path / "captions_train.csv"],
        "val": [tmp_path / "captions_val.csv"],
    }


def test_alone_they_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "._captions.csv").write_bytes(APPLE_DOUBLE)
    with pytest.raises(DataError, match="no table in"):
        find_tables(str(tmp_path), Path, "table")
