from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap.imaging import parquet_copies
from lavis_msmedcap.imaging.parquet_copies import ColumnKey, MappedColumn, copied_column

pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parquet_copies, "LARGE", 100)
    return tmp_path / "cache" / "parquet_groups"


def write(path: Path, cells: list[Any], **options: Any) -> ColumnKey:
    parquet.write_table(pyarrow.table({"image": cells}), path, **options)
    return ColumnKey(str(path), path.stat().st_mtime_ns, 0, "image")


def copied(key: ColumnKey) -> MappedColumn | None:
    with parquet.ParquetFile(key.path) as file:
        return copied_column(file, key)


def test_rows_across_chunks_of_any_length(tmp_path: Path) -> None:
    batches = [["a", "b"], [], ["c"], [], [], ["d", None, "f"], []]
    schema = pyarrow.schema([("image", pyarrow.string())])
    path = tmp_path / "a.arrow"
    with pyarrow.ipc.new_file(str(path), schema) as writer:
        for cells in batches:
            writer.write_batch(pyarrow.record_batch([pyarrow.array(cells, "string")], ["image"]))
    column = MappedColumn(path)
    assert [column[row].as_py() for row in range(6)] == ["a", "b", "c", "d", None, "f"]
    assert column[5].as_py() == "f"  # again, and not in order
    with pytest.raises(IndexError):
        column[6]


def test_the_limit_is_of_decompressed_bytes(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write(
        tmp_path / "a.parquet", [b"\0" * 5000] * 4, compression="zstd", use_dictionary=False
    )
    with parquet.ParquetFile(key.path) as file:
        column = file.metadata.row_group(0).column(0)
        size = column.total_uncompressed_size
        assert column.total_compressed_size < size / 4
    monkeypatch.setattr(parquet_copies, "LARGE", size)
    assert copied(key) is None
    assert not folder.exists()
    monkeypatch.setattr(parquet_copies, "LARGE", size - 1)
    column = copied(key)
    assert column is not None
    assert column[3].as_py() == b"\0" * 5000


def test_files_groups_and_columns_never_share_a_copy(tmp_path: Path, folder: Path) -> None:
    keys = []
    for name in "ab":
        path = tmp_path / f"{name}.parquet"
        columns = {c: [f"{name} {c} {row} ".encode() * 40 for row in range(4)] for c in ("x", "y")}
        parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
        keys += [ColumnKey(str(path), 7, group, c) for group in (0, 1) for c in ("x", "y")]
    for key in keys:
        column = copied(key)
        assert column is not None
        name, row = Path(key.path).stem, 2 * key.group
        assert column[0].as_py().startswith(f"{name} {key.column} {row} ".encode())
    assert len(list(folder.glob("*.arrow"))) == len(keys)


def test_a_changed_file_takes_its_old_copies_with_it_and_no_others(
    tmp_path: Path, folder: Path
) -> None:
    other = write(tmp_path / "b.parquet", [b"b" * 200])
    key = write(tmp_path / "a.parquet", [b"old" * 100])
    for each in (other, key):
        copied(each)
    stays = sorted(folder.glob(f"*-{other.changed}-0-*.arrow"))
    key = write(tmp_path / "a.parquet", [b"new" * 100])._replace(changed=key.changed + 1)
    column = copied(key)
    assert column is not None
    assert column[0].as_py() == b"new" * 100
    assert len(list(folder.glob("*.arrow"))) == 2
    assert set(stays) <= set(folder.glob("*.arrow"))


def test_all_who_come_at_once_get_the_same_copy(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = write(tmp_path / "a.parquet", [f"{row} ".encode() * 50 for row in range(100)])
    found: list[Any] = []

    def look() -> None:
        column = copied(key)
        found.append(column and column[99].as_py())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"99 " * 50] * 4
    assert len(list(folder.glob("*.arrow"))) == 1
    assert caplog.text.count("has a row group of") == 1


def test_half_a_copy_is_not_left_behind(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.parquet"
    key = write(path, [bytes([row]) * 3000 for row in range(90)], compression="none")
    with parquet.ParquetFile(path) as file:
        data = path.read_bytes()
        at = data.index(b"\x50" * 3000)
        path.write_bytes(data[: at - 5000] + b"\xff" * 10_000 + data[at + 5000 :])
        assert copied_column(file, key) is None  # whoever loads the group is told
    assert not list(folder.glob("*.arrow*"))
