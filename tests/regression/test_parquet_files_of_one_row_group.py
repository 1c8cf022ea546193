"""Each process read a whole row group of a Parquet file, gigabytes of it, for a single picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap.imaging import parquet_copies
from lavis_msmedcap.imaging.containers import read_cell
from lavis_msmedcap.imaging.parquet_copies import ColumnKey, MappedColumn, copied_column

pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)  # may want a newer NumPy
parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)

ROWS = 150  # of more than two batches


@pytest.fixture(autouse=True)
def small_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parquet_copies, "LARGE", 10_000)


def content(seed: int, row: int) -> bytes:
    return f"{seed} {row} ".encode() * (50 + row)


def table(path: Path, seed: int = 0, rows_per_group: int = ROWS) -> str:
    cells = [{"bytes": content(seed, row), "path": None} for row in range(ROWS)]
    columns = {"image": cells, "image.thumbnail": [b"t"] * ROWS, "caption": ["CT."] * ROWS}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_per_group)
    return str(path)


def copies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "parquet_groups").glob("*.arrow"))


@pytest.mark.parametrize("rows_per_group", [ROWS, 80])
def test_every_row_is_read_from_one_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows_per_group: int
) -> None:
    path = table(tmp_path / "a.parquet", rows_per_group=rows_per_group)
    for row in (ROWS - 1, 0, 63, 64, 79, 80, 127, 128):
        assert read_cell(path, f"{row}@image") == content(0, row)
    made = copies(tmp_path)
    assert len(made) == -(-ROWS // rows_per_group)
    assert "`msmedcap data convert` writes shards that need no copy" in caplog.text
    times = [copy.stat().st_mtime_ns for copy in made]
    with parquet.ParquetFile(path) as file:
        key = ColumnKey(path, Path(path).stat().st_mtime_ns, 0, "image")
        assert isinstance(copied_column(file, key), MappedColumn)
        assert copied_column(file, key._replace(column="caption")) is None
    assert [copy.stat().st_mtime_ns for copy in copies(tmp_path)] == times


def test_a_table_written_anew_has_another_copy(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet")
    assert read_cell(path, "7@image") == content(0, 7)
    before = copies(tmp_path)
    table(tmp_path / "a.parquet", seed=1)
    os.utime(path, ns=(10**18, 10**18))
    assert read_cell(path, "7@image") == content(1, 7)
    assert len(copies(tmp_path)) == 1
    assert copies(tmp_path) != before


def test_without_a_place_for_the_copy_the_group_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("no folder")
    path = table(tmp_path / "a.parquet")
    assert read_cell(path, "7@image") == content(0, 7)
    assert "no copy can be kept in" in caplog.text


PROGRAM = """
import resource, sys
from lavis_msmedcap.imaging.containers import read_cell
read_cell(sys.argv[1], "3@image")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for row in (5, 700, 1500):
    assert len(read_cell(sys.argv[2], f"{row}@image")) == 80_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are in KiB on Linux")
def test_memory_does_not_grow_with_the_group(tmp_path: Path) -> None:
    small = table(tmp_path / "small.parquet")
    cells: list[Any] = [os.urandom(80_000) for _ in range(1600)]  # 128 MB
    large = str(tmp_path / "large.parquet")
    parquet.write_table(pyarrow.table({"image": cells}), large, compression="none")
    command = [sys.executable, "-c", PROGRAM, small, large]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60 * 1024
