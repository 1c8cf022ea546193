from __future__ import annotations

import io
import multiprocessing
import os
import sys
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging import containers
from lavis_msmedcap.imaging.read import read_image


def _png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 255 - value)).save(buffer, "PNG")
    return buffer.getvalue()


def _red(name):
    return read_image(name).getpixel((0, 0))[0]


# --- tar ---------------------------------------------------------------------------------------


@pytest.fixture
def tar(tmp_path):
    path = tmp_path / "00001.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(_png(number))
            archive.addfile(member, io.BytesIO(_png(number)))
    return path


def test_members_of_a_tar_file(tar):
    with tarfile.open(tar) as archive:
        for number, member in enumerate(archive.getmembers()):
            assert _red(f"{tar}::bytes={member.offset_data}+{member.size}") == number


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("512", "expected bytes=OFFSET"),
        ("-1+5", "expected bytes=OFFSET"),
        ("512+0", "empty or beyond"),
        ("0+99999999", r"beyond the file's 10240 bytes; index the file again"),
        ("99999999999999999999+1", "beyond"),
        ("0+512", "not an image format"),
    ],
)
def test_wrong_ranges(tar, part, message):
    with pytest.raises(BadImageError, match=message) as caught:
        read_image(f"{tar}::bytes={part}")
    assert f"00001.tar::bytes={part}" in str(caught.value)


def test_file_of_a_range_must_exist(tmp_path):
    with pytest.raises(BadImageError, match=r"gone\.tar::bytes=0\+9: the file does not exist"):
        read_image(f"{tmp_path / 'gone.tar'}::bytes=0+9")


# --- parquet -----------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)  # the newest wants numpy 2
    parquet = pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": _png(i), "path": f"{i}.png"} for i in range(10)]
    images[8], images[9] = None, {"bytes": None, "path": "/somewhere/9.png"}
    columns = {
        "image": pa.array(images),
        "plain": pa.array([_png(100 + i) for i in range(10)]),
        "caption": pa.array(["CT."] * 10),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=3)
    return tmp_path / "t.parquet"


def test_cells_of_every_row_group(table):
    for row in (7, 0, 3, 2, 6):
        assert _red(f"{table}::row={row}@image") == row
        assert _red(f"{table}::row={row}@plain") == 100 + row


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("8@image", "the cell is empty"),
        ("9@image", "names a file instead of holding the picture"),
        ("10@image", "no row 10; the file has 10, counted from 0"),
        ("0@picture", "no column 'picture'; the file has image, plain, caption"),
        ("0@caption", "holds a str"),
        ("0", "expected row=NUMBER@COLUMN"),
        ("x@image", "expected row=NUMBER@COLUMN"),
    ],
)
def test_wrong_cells(table, part, message):
    with pytest.raises(BadImageError, match=message) as caught:
        read_image(f"{table}::row={part}")
    assert f"t.parquet::row={part}" in str(caught.value)


def test_a_file_that_is_no_table(tmp_path):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadImageError, match=r"t\.parquet::row=0@image"):
        read_image(f"{tmp_path / 't.parquet'}::row=0@image")


def test_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadImageError, match=r'pip install "lavis-msmedcap\[parquet\]"'):
        read_image(f"{tmp_path / 't.parquet'}::row=0@image")


def test_row_groups_are_kept_up_to_a_limit(table, monkeypatch):
    groups = containers._RowGroups()
    groups.cell(str(table), 0, "plain")
    groups.cell(str(table), 2, "plain")
    assert len(groups._columns) == 1  # one group of three rows
    groups.cell(str(table), 3, "plain")
    assert len(groups._columns) == 2
    monkeypatch.setattr(containers, "_CACHE_BYTES", 10)
    groups.cell(str(table), 6, "plain")
    assert len(groups._columns) == 1


def test_a_table_written_anew_is_read_anew(table):
    from pyarrow import parquet

    assert _red(f"{table}::row=0@plain") == 100
    data = parquet.read_table(table)
    parquet.write_table(data.slice(4), table)
    os.utime(table, ns=(1, 1))
    assert _red(f"{table}::row=0@plain") == 104


def test_threads_and_forked_workers_share_nothing_by_mistake(table):
    names = [f"{table}::row={row % 8}@image" for row in range(32)]
    found: list[int] = []

    def work():
        found.extend(_red(name) for name in names)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with multiprocessing.get_context("fork").Pool(2) as pool:  # while threads hold the lock
        assert pool.map(_red, names) == [row % 8 for row in range(32)]
    for thread in threads:
        thread.join()
    assert np.bincount(found).tolist() == [16] * 8
