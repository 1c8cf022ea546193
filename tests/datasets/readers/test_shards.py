from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers import shards as module
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.shard_index import index_beside, read_index, write_index
from lavis_msmedcap.datasets.readers.shards import read_shards
from lavis_msmedcap.imaging.read import read_image


def pack(path: Path, samples) -> Path:
    """Samples are (key, shade, facts)."""
    with tarfile.open(path, "w") as archive:
        for key, shade, facts in samples:
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "PNG")
            for name, data in ((f"{key}.png", buffer.getvalue()), (f"{key}.json", facts)):
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def foreign(tmp_path: Path) -> list[Path]:
    return [
        pack(tmp_path / f"laion-{shard}.tar", [
            (f"{number:04d}", 10 * shard + number, {"caption": f"Scan {shard}.{number}."})
            for number in range(3)
        ])
        for shard in range(2)
    ]  # fmt: skip


def test_foreign_shards(foreign, cache) -> None:
    report = ReadReport("x")
    records = list(read_shards(foreign, "train", cache=cache, report=report))
    assert [record.image_id for record in records] == [
        f"laion-{shard}-{number:04d}" for shard in range(2) for number in range(3)
    ]
    for record, shade in zip(records, (0, 1, 2, 10, 11, 12)):
        assert read_image(record.image).getpixel((4, 4)) == (shade, 0, 0)
        assert (record.split, record.domain, record.source) == (
            "train", "medical", "webdataset_caption",
        )  # fmt: skip
        assert record.group_id is None
    assert report.summary() == "x: read 6, kept 6 (train 6)"


def test_headers_are_read_once_and_nothing_is_written_beside_the_data(
    foreign, cache, monkeypatch
) -> None:
    beside = sorted(foreign[0].parent.iterdir())
    first = list(read_shards(foreign, "train", cache=cache))
    assert sorted(p for p in foreign[0].parent.iterdir() if p != cache) == beside
    assert len(list(cache.iterdir())) == 2

    def fail(path):
        raise AssertionError(path)

    monkeypatch.setattr(module, "scan_shard", fail)
    assert list(read_shards(foreign, "train", cache=cache)) == first


def test_a_changed_shard_is_read_anew(foreign, cache) -> None:
    list(read_shards(foreign, "train", cache=cache))
    facts = foreign[0].stat()
    samples = [(f"{number:04d}", 7, {"caption": f"Fine {number}.X"}) for number in range(3)]
    pack(foreign[0], samples)
    os.utime(foreign[0], ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    found = list(read_shards(foreign, "train", cache=cache))
    assert found[0].captions == ("Fine 0.X",)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(foreign, tmp_path) -> None:
    (tmp_path / "file").touch()
    records = list(read_shards(foreign, "train", cache=tmp_path / "file" / "below"))
    assert len(records) == 6


def test_an_index_beside_a_shard_has_to_fit_it(foreign, cache) -> None:
    index = module.shard_index(foreign[0], cache)
    write_index(index_beside(foreign[0]), index)
    assert read_index(index_beside(foreign[0])) == index
    assert len(list(read_shards(foreign, "train", cache=cache))) == 6
    with foreign[0].open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(DataError, match=r"laion-0\.index\.jsonl is about \d+; fetch both again"):
        list(read_shards(foreign, "train", cache=cache))


def test_a_broken_index_line_is_named(foreign, cache) -> None:
    path = index_beside(foreign[0])
    write_index(path, module.shard_index(foreign[0], cache))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1], lines[2][:40]]) + "\n")
    with pytest.raises(DataError, match=r"laion-0\.index\.jsonl, line 3 is broken; delete"):
        list(read_shards(foreign, "train", cache=cache))


@pytest.mark.parametrize("content", ["", "[]\n", '{"format": "other"}\n', "\udcff"])
def test_a_foreign_file_of_that_name_is_passed_over(foreign, cache, content) -> None:
    index_beside(foreign[0]).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert len(list(read_shards(foreign, "train", cache=cache))) == 6


def test_a_sample_says_its_own_split(tmp_path, cache) -> None:
    samples = [
        (str(i), i, {"text": "A.", "split": s}) for i, s in enumerate(["train", "val", "test"])
    ]
    shard = pack(tmp_path / "a.tar", samples)
    assert [r.split for r in read_shards([shard], None, cache=cache)] == ["train", "val", "test"]
    again = read_shards([shard], "val", cache=cache)
    assert [record.split for record in again] == ["train", "val", "test"]


def test_a_sample_without_a_split_is_not_guessed(foreign, cache) -> None:
    with pytest.raises(
        DataError, match=r"laion-0\.tar, 0000\.png does not say.*build_info\.shards"
    ):
        list(read_shards(foreign, None, cache=cache))


def test_images_of_the_other_domain_are_refused(tmp_path, cache) -> None:
    shard = pack(tmp_path / "a.tar", [("0", 0, {"text": "A cat.", "domain": "general"})])
    with pytest.raises(DataError, match=r"a\.tar, 0\.png is a general image.*builder: webd"):
        list(read_shards([shard], "train", cache=cache))
    (record,) = read_shards([shard], "train", cache=cache, domain=None)
    assert record.domain == "general"


def test_what_the_shards_leave_out_is_in_the_report(tmp_path, cache) -> None:
    shard = pack(tmp_path / "a.tar", [("0", 0, {"text": "A."}), ("1", 0, {}), ("2", 0, b"{")])
    for _ in range(2):  # from the headers, then from the cache
        report = ReadReport("x")
        assert len(list(read_shards([shard], "train", cache=cache, report=report))) == 1
        assert report.summary() == (
            "x: read 3, kept 1 (train 1) | dropped 2: 1 without caption; "
            "1 with a text that cannot be read"
        )
