from __future__ import annotations

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers import parquet
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.rocov2 import read_rocov2
from lavis_msmedcap.datasets.readers.rows import open_table
from lavis_msmedcap.datasets.readers.table import read_table

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:  # also where pyarrow and numpy do not fit together
    pytest.skip(f"pyarrow: {error}", allow_module_level=True)

HUB = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _hub_file(path, ids, captions, size=1000):
    """A file as the hub's converter writes it: whole images in a struct."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "image": pa.array([{"bytes": b"x" * size, "path": f"{i}.jpg"} for i in ids], HUB),
            "image_id": pa.array(ids, pa.string()),
            "caption": pa.array(captions, pa.string()),
            "cui": pa.array([["C1", "C2"]] * len(ids), pa.list_(pa.string())),
        }
    )
    pq.write_table(table, path, row_group_size=2)
    return path


def test_rocov2_names_the_cells(tmp_path):
    data = tmp_path / "data"
    first = _hub_file(data / "train-00000-of-00002.parquet", ["a", "b"], ["CT.", None])
    second = _hub_file(data / "train-00001-of-00002.parquet", ["c"], ["MRI of it."])
    _hub_file(data / "validation-00000-of-00001.parquet", ["v"], ["Val."])
    report = ReadReport("rocov2")
    records = list(read_rocov2(tmp_path, "train", report=report))
    assert [(r.image, r.image_id, r.captions) for r in records] == [
        (f"{first}::row=0@image", "a", ("CT.",)),
        (f"{second}::row=0@image", "c", ("MRI of it.",)),
    ]
    assert report.dropped == {"without caption": 1}
    assert [r.image_id for r in read_rocov2(tmp_path, "val")] == ["v"]


def test_only_the_columns_that_are_asked_for_are_in_memory(tmp_path):
    path = _hub_file(tmp_path / "t.parquet", [str(i) for i in range(64)], ["Text"] * 64, 2**19)
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    try:
        rows = parquet.parquet_rows(path, ["image", "caption"])
        assert next(rows) == (0, {"image": "0.jpg", "caption": "Text"})
        assert sum(1 for _ in rows) == 63
    finally:
        pa.set_memory_pool(usual)
    assert 0 < counted.max_memory() < 2**20  # of 32 MiB of images


def test_own_tables(tmp_path, make):
    make.save(tmp_path / "1.png")
    table = pa.table({"image": ["1", None], "captions": [["A.", "B."], ["C."]], "patient": [3, 4]})
    pq.write_table(table, tmp_path / "paths.parquet")
    report = ReadReport("caption_table")
    (record,) = read_table(tmp_path / "paths.parquet", report=report)
    assert (record.image, record.captions) == (str(tmp_path / "1.png"), ("A.", "B."))
    assert record.group_id == "3"
    assert report.dropped == {"without image": 1}
    bare = pa.table({"image": pa.array([b"x", b"y"], pa.binary()), "text": ["A.", "B."]})
    pq.write_table(bare, tmp_path / "bare.parquet")
    records = list(read_table(tmp_path / "bare.parquet"))
    assert [r.image_id for r in records] == ["bare-0", "bare-1"]
    assert records[1].image == f"{tmp_path / 'bare.parquet'}::row=1@image"


def test_kinds_of_columns(tmp_path):
    path = _hub_file(tmp_path / "t.parquet", ["a"], ["A."])
    assert parquet.parquet_columns(path) == {
        "image": parquet.FILES,
        "image_id": parquet.TEXT,
        "caption": parquet.TEXT,
        "cui": parquet.OTHER,
    }
    assert list(parquet.parquet_rows(path, ["cui"])) == [(0, {"cui": ["C1", "C2"]})]
    assert open_table(path).where(3) == f"{path}, row 3"


def test_half_a_file_is_told(tmp_path):
    path = _hub_file(tmp_path / "t.parquet", ["a", "b"], ["A.", "B."])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as Parquet"):
        list(read_table(path))
