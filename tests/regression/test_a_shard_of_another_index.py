"""A shard of equal size put under another's index gave that one's captions to its pictures."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_convert.plan import ShardSettings
from lavis_msmedcap.data_convert.shards import write_shards
from lavis_msmedcap.datasets.readers import shards as module
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.shard_index import index_beside
from lavis_msmedcap.datasets.readers.shards import read_shards
from lavis_msmedcap.datasets.records import MedCapRecord

NAME = "mine-train-000000.tar"


def _convert(folder: Path, seed: int, side: int = 20) -> Path:
    records = []
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(10 * seed + i).integers(0, 255, (side, side), np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path, compress_level=0)
        text = (f"Caption {seed}{i}.",)
        records.append(MedCapRecord(str(path), text, f"{i}", "train", None, "mine", "medical"))
    write_shards(records, folder / "out", ShardSettings())
    return folder / "out" / NAME


def _later(path: Path, than: Path, seconds: int) -> None:
    time = than.stat().st_mtime_ns + seconds * 10**9
    os.utime(path, ns=(time, time))


@pytest.fixture
def exchanged(tmp_path: Path) -> Path:
    shard, other = _convert(tmp_path / "a", 1), _convert(tmp_path / "b", 2)
    assert shard.stat().st_size == other.stat().st_size
    shard.write_bytes(other.read_bytes())
    _later(shard, index_beside(shard), 5)
    return shard


def test_it_is_noticed(exchanged: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has other bytes than the file that .*index\.jsonl is"):
        list(read_shards([exchanged], None, cache=tmp_path / "cache"))


def test_members_elsewhere_are_noticed_whatever_the_times(tmp_path: Path) -> None:
    shard = _convert(tmp_path / "a", 1)
    content = bytearray(shard.read_bytes())
    _later(shard, index_beside(shard), -5)
    shard.write_bytes(content[1024:] + content[:1024])
    _later(shard, index_beside(shard), -5)
    with pytest.raises(DataError, match=r"has no 00000000\d\.png where"):
        list(read_shards([shard], None, cache=tmp_path / "cache"))


def test_bytes_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = _convert(tmp_path / "a", 1)
    compared: list[Path] = []
    true = module._sha256
    monkeypatch.setattr(module, "_sha256", lambda path: compared.append(path) or true(path))
    for age, times in ((-5, 0), (5, 1), (5, 1), (6, 2)):
        _later(shard, index_beside(shard), age)
        assert len(list(read_shards([shard], None, cache=tmp_path / "cache"))) == 3
        assert len(compared) == times


def _pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_members_of_two_folders_have_two_ids(tmp_path: Path) -> None:
    members = {f"{folder}/1.{kind}": b"CT" for folder in "xy" for kind in ("png", "txt")}
    shard = _pack(tmp_path / "s.tar", {**members, "./2.png": b"MRI", "./2.txt": b"MRI"})
    records = read_shards([shard], "train", cache=tmp_path / "cache")
    assert [record.image_id for record in records] == ["s-x/1", "s-y/1", "s-2"]


def test_volumes_in_shards_are_counted(tmp_path: Path) -> None:
    members = {"1.nii.gz": b"v", "1.txt": b"CT", "2.png": b"i", "2.txt": b"MRI"}
    report = ReadReport("x")
    shard = _pack(tmp_path / "s.tar", members)
    (record,) = read_shards([shard], "train", cache=tmp_path / "cache", report=report)
    assert record.image_id == "s-2"
    assert report.dropped == {"with a NIfTI volume, which is not read from shards": 1}
