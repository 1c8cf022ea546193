"""``msmedcap data check`` found no leak between Parquet files that hold the very same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_check_trees import jpeg_bytes, manifest_lines, picture, put

from lavis_msmedcap.cli import main

pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)  # may want a newer NumPy
parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)


def table(path: Path, seeds: list[int]) -> Path:
    """Embeds the pictures of some seeds."""
    path.parent.mkdir(exist_ok=True)
    cells = [{"bytes": jpeg_bytes(picture(seed)), "path": None} for seed in seeds]
    captions = [f"{path.stem} caption {seed}." for seed in seeds]
    parquet.write_table(pyarrow.table({"image": cells, "caption": captions}), path)
    return path


def test_between_two_tables(tmp_path: Path, capsys: Any) -> None:
    table(tmp_path / "set" / "train.parquet", [0, 1, 2, 3])
    table(tmp_path / "set" / "test.parquet", [2, 3, 4])
    clean = tmp_path / "clean.jsonl"
    command = ["data", "check", str(tmp_path / "set")]
    assert main([*command, "--fix", str(clean)]) == 1
    assert "test images that train has too, byte for byte" in capsys.readouterr().out
    assert sorted(str(row["split"]) for row in manifest_lines(clean)) == [
        *["test"] * 3,
        *["train"] * 2,
    ]
    assert main(["data", "check", str(clean)]) == 0


def test_repeats_in_one_split_are_told(tmp_path: Path, capsys: Any) -> None:
    assert main(["data", "check", str(table(tmp_path / "train.parquet", [0, 1, 1]))]) == 0
    assert "images repeated within a split, byte for byte" in capsys.readouterr().out


def test_between_a_table_and_a_file(tmp_path: Path, capsys: Any) -> None:
    table(tmp_path / "set" / "train.parquet", [0, 1])
    put(tmp_path / "files" / "1.jpg", jpeg_bytes(picture(1)))
    put(tmp_path / "files" / "test.csv", "image,caption\n1.jpg,CT.\n")
    assert main(["data", "check", str(tmp_path / "set"), str(tmp_path / "files")]) == 1
    assert "test images that train has too, byte for byte" in capsys.readouterr().out
