from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from filelock import FileLock

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.data_convert import shards as module
from lavis_msmedcap.data_convert.check import check_shards
from lavis_msmedcap.data_convert.images import ImageSettings
from lavis_msmedcap.data_convert.plan import ShardSettings
from lavis_msmedcap.data_convert.shards import SKIP, write_shards
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.shards import read_shards
from lavis_msmedcap.imaging.read import read_image

FIVE = ShardSettings(samples=5)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def tars(folder: Path) -> dict[str, bytes]:
    """The shards without their indexes, which hold when the images were changed last."""
    return {name: data for name, data in content(folder).items() if name.endswith(".tar")}


def facts(record):
    return replace(record, image="")


def read_back(folder: Path, cache: Path):
    return list(read_shards(sorted(folder.glob("*.tar")), None, cache=cache))


@pytest.fixture
def broken(records):
    path = Path(records[4].image)
    path.write_bytes(path.read_bytes()[:500])
    return records[4]


@pytest.mark.parametrize("with_index", [True, False])
def test_records_come_back_as_they_were(records, strange, tmp_path, with_index) -> None:
    odd = [
        replace(records[0], image=str(path), image_id=name, split="val")
        for name, path in strange.items()
    ]
    out = tmp_path / "out"
    write_shards([*records, *odd], out, FIVE, workers=2)
    if not with_index:
        for path in out.glob("*.index.jsonl"):
            path.unlink()
    found = {record.image_id: record for record in read_back(out, tmp_path / "cache")}
    assert len(found) == len(records) + len(odd)
    for record in [*records, *odd]:
        assert facts(found[record.image_id]) == facts(record)
        before, after = read_image(record.image), read_image(found[record.image_id].image)
        assert np.array_equal(np.asarray(before), np.asarray(after))


def test_the_webdataset_library_reads_them(records, tmp_path) -> None:
    write_shards(records, tmp_path / "out", FIVE)
    url = str(tmp_path / "out" / "roco-train-{000000..000002}.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False))
    by_id = {record.image_id: record for record in records}
    assert len(samples) == len(records)
    assert len({sample["__key__"] for sample in samples}) == len(records)
    for sample in samples:
        told = json.loads(sample["json"])
        record = by_id.pop(told["image_id"])
        assert tuple(told["captions"]) == record.captions
        assert told["group_id"] == record.group_id
        assert (told["source"], told["domain"], told["split"]) == ("roco", "medical", "train")
        suffix = Path(record.image).suffix[1:]
        assert sample[suffix] == Path(record.image).read_bytes()
    decoded = webdataset.WebDataset(url, shardshuffle=False).decode("rgb8")
    assert next(iter(decoded))["json"]["source"] == "roco"


def test_the_tar_files_name_no_time_place_or_person(records, tmp_path) -> None:
    write_shards(records, tmp_path / "out", FIVE)
    for path in (tmp_path / "out").glob("*.tar"):
        assert path.stat().st_size % 10240 == 0
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                assert (member.uname, member.gname, member.mode) == ("", "", 0o644)
    everything = b"".join(content(tmp_path / "out").values())
    assert str(tmp_path).encode() not in everything


def test_the_index_tells_the_hash_and_the_places(records, tmp_path) -> None:
    write_shards(records, tmp_path / "out", FIVE)
    head, *rows = (tmp_path / "out/roco-train-000000.index.jsonl").read_text().splitlines()
    data = (tmp_path / "out/roco-train-000000.tar").read_bytes()
    assert json.loads(head)["sha256"] == hashlib.sha256(data).hexdigest()
    by_id = {record.image_id: record for record in records}
    for row in map(json.loads, rows):
        inside = data[row["offset"] : row["offset"] + row["size"]]
        assert inside == Path(by_id[row["image_id"]].image).read_bytes()


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_nothing(records, tmp_path, workers) -> None:
    write_shards(records, tmp_path / "one", FIVE)
    write_shards(records, tmp_path / "many", FIVE, workers=workers)
    assert content(tmp_path / "one") == content(tmp_path / "many")


@pytest.mark.parametrize("images_done", [1, 6, 9, 11])
def test_an_interrupted_conversion_goes_on_to_the_same_bytes(
    records, tmp_path, monkeypatch, images_done
) -> None:
    write_shards(records, tmp_path / "whole", FIVE)
    out, real, calls = tmp_path / "out", module.store_image, []

    def stop_later(*args):
        calls.append(args)
        if len(calls) > images_done:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "store_image", stop_later)
    with pytest.raises(KeyboardInterrupt):
        write_shards(records, out, FIVE)
    assert len(list(out.glob("*.tar"))) == images_done // 5
    assert not list(out.glob("*.part*"))
    # what a kill leaves behind: half a file under another name, a shard whose index is missing
    (out / "roco-train-000002.tar.part-1-1").write_bytes(b"half")
    calls.clear()
    monkeypatch.setattr(module, "store_image", lambda *args: calls.append(args) or real(*args))
    report, _ = write_shards(records, out, FIVE)
    assert report.kept == images_done // 5
    assert len(calls) == 12 - 5 * (images_done // 5)
    assert content(out) == content(tmp_path / "whole")


def test_a_shard_is_made_again_when_an_image_is_newer(records, tmp_path) -> None:
    out = tmp_path / "out"
    write_shards(records, out, FIVE)
    before = tars(out)
    image = Path(records[0].image)
    data = bytearray(image.read_bytes())
    later = time.time() + 10
    image.write_bytes(data)
    os.utime(image, (later, later))
    report, _ = write_shards(records, out, FIVE)
    assert report.kept == 2
    assert tars(out) == before


def test_a_shard_is_made_again_when_an_image_is_replaced_by_an_older_one(records, tmp_path) -> None:
    """Another version of a picture, of the same size, copied with its time of long ago."""
    out = tmp_path / "out"
    write_shards(records, out, FIVE)
    image = Path(records[0].image)
    earlier = image.stat().st_mtime - 10_000
    os.utime(image, (earlier, earlier))
    report, _ = write_shards(records, out, FIVE)
    assert report.kept == 2
    assert write_shards(records, out, FIVE)[0].kept == 3


def test_broken_images_stop_it_and_name_the_file(broken, records, tmp_path) -> None:
    with pytest.raises(BadImageError, match=broken.image):
        write_shards(records, tmp_path / "out", FIVE, workers=3)
    assert not list((tmp_path / "out").glob("*.part*"))
    for path in (tmp_path / "out").glob("*.tar"):
        assert path.with_name(f"{path.stem}.index.jsonl").exists()


def test_broken_images_are_counted_if_asked_for(broken, records, tmp_path) -> None:
    out = tmp_path / "out"
    report, shards = write_shards(records, out, FIVE, on_bad=SKIP)
    part = report.parts["roco train"]
    assert (part.images, report.broken) == (11, 1)
    ((image_id, reason),) = part.broken
    assert image_id == broken.image_id
    assert "truncated" in reason
    assert any(image_id in line and "truncated" in line for line in report.lines())
    assert broken.image_id not in {record.image_id for record in read_back(out, tmp_path)}
    again, _ = write_shards(records, out, FIVE, on_bad=SKIP)
    assert again.kept == 3
    assert again.parts == report.parts
    assert check_shards(shards, out, FIVE) > 0


def test_the_report_counts_by_reason(records, strange, tmp_path) -> None:
    odd = [replace(records[0], image=str(p), image_id=name) for name, p in strange.items()]
    report, _ = write_shards([*records, *odd], tmp_path / "out", FIVE)
    part = report.parts["roco train"]
    assert part.how == Counter(
        {
            "copied byte for byte": 12,
            "stored as PNG: PNG of 16 bits": 1,
            "stored as PNG: GIF": 1,
            "stored as PNG: WEBP of several frames": 1,
            "stored as PNG: TIFF": 1,
            "stored as PNG: DICOM": 1,
        }
    )
    assert part.captions == sum(len(record.captions) for record in [*records, *odd])
    saved = json.loads((tmp_path / "out/report.json").read_text())
    assert saved["roco train"]["images"] == 17


def test_another_conversion_is_neither_mixed_nor_lost(records, tmp_path) -> None:
    out = tmp_path / "out"
    write_shards(records, out, FIVE)
    before = content(out)
    other = ShardSettings(samples=4, images=ImageSettings(max_side=20))
    with pytest.raises(DataError, match=r"holds 3 shards .*--overwrite"):
        write_shards(records[:6], out, other)
    assert content(out) == before
    write_shards(records[:6], out, other, overwrite=True)
    write_shards(records[:6], tmp_path / "fresh", other)
    assert content(out) == content(tmp_path / "fresh")


def test_shards_of_somebody_else_are_never_replaced(records, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "roco-train-000000.tar").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"name another folder$"):
        write_shards(records, out, FIVE, overwrite=True)
    assert (out / "roco-train-000000.tar").read_bytes() == b"precious"


def test_two_at_a_time_in_one_folder_are_refused(records, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".convert.lock"), pytest.raises(DataError, match="another process"):
        write_shards(records, out, FIVE)


def test_a_full_disk_is_told_before_anything_is_written(records, tmp_path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"9\.8 KiB free, but 3 shards of about"):
        write_shards(records, tmp_path / "out", FIVE)
    assert content(tmp_path / "out") == {}


def test_the_check_at_the_end_finds_a_damaged_member(records, tmp_path) -> None:
    out = tmp_path / "out"
    _, shards = write_shards(records, out, FIVE)
    assert check_shards(shards, out, FIVE) == 5  # the first shard and the last, which holds two
    path = out / "roco-train-000000.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"roco-train-000000\.tar, 000000000\."):
        check_shards(shards, out, FIVE)


def test_shards_of_shards(records, tmp_path) -> None:
    write_shards(records, tmp_path / "first", FIVE)
    report = ReadReport("x")
    places = sorted((tmp_path / "first").glob("*.tar"))
    middle = list(read_shards(places, "train", cache=tmp_path, report=report))
    write_shards(middle, tmp_path / "second", FIVE)
    assert tars(tmp_path / "first") == tars(tmp_path / "second")
