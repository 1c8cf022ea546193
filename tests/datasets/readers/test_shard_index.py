from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.shard_index import (
    FORMAT,
    VERSION,
    ShardEntry,
    ShardIndex,
    index_beside,
    read_index,
    write_index,
)

HEAD = {"format": FORMAT, "version": VERSION, "bytes": 10240}
ROW = {"member": "0.jpg", "offset": 512, "size": 3, "captions": ["CT."]}


def write(path: Path, *rows: Any) -> Path:
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = (
        ShardEntry("0.jpg", 512, 3, ("CT.\u2028\n", 'A "halo" \U0001fa7b', "\ud83e"), "Ä", "p1",
                   "roco", "medical", "val"),
        ShardEntry("1.png", 2048, 0, ("MRI.",)),
    )  # fmt: skip
    index = ShardIndex(entries, {"bytes": 10240, "sha256": "ab"}, {"no caption": 2}, {"odd": 1})
    path = tmp_path / "a.index.jsonl"
    write_index(path, index)
    assert read_index(path) == index
    assert len(path.read_text("ascii").splitlines()) == 3  # a caption's line ends are escaped
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_index_without_images(tmp_path: Path) -> None:
    write_index(tmp_path / "a", ShardIndex((), {"bytes": 1}))
    assert read_index(tmp_path / "a") == ShardIndex((), {"bytes": 1}, {}, {})


def test_what_an_index_need_not_tell(tmp_path: Path) -> None:
    index = read_index(write(tmp_path / "a", HEAD, ROW))
    assert index == ShardIndex((ShardEntry("0.jpg", 512, 3, ("CT.",)),), {"bytes": 10240})


@pytest.mark.parametrize(
    "head",
    [
        {**HEAD, "version": VERSION + 1},
        {**HEAD, "format": "wids"},
        {"bytes": 1},
        [FORMAT, VERSION],
        "no JSON",
        "",
    ],
)
def test_an_index_of_another_kind_is_none(tmp_path: Path, head: Any) -> None:
    assert read_index(write(tmp_path / "a", head, "whatever")) is None


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("gone", "gone/a", "file/a", "file", "binary"):
        assert read_index(tmp_path / name) is None


@pytest.mark.parametrize(
    "change",
    [
        {"captions": []},
        {"captions": "CT."},
        {"captions": ["CT.", None]},
        {"captions": None},
        {"offset": "512"},
        {"offset": None},
        {"size": 3.5},
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "a", HEAD, ROW, {**ROW, **change})
    with pytest.raises(DataError, match=r"/a, line 3 is broken; delete the file"):
        read_index(path)


def test_half_a_line_is_broken_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a", HEAD, {k: v for k, v in ROW.items() if k != "member"})
    with pytest.raises(DataError, match="line 2 is broken"):
        read_index(path)
    path = write(tmp_path / "a", HEAD, ROW, json.dumps(ROW)[:-5])
    with pytest.raises(DataError, match="line 3 is broken"):
        read_index(path)


def test_the_place_beside_a_shard() -> None:
    assert index_beside(Path("/d/a.tar.0.tar")) == Path("/d/a.tar.0.index.jsonl")
