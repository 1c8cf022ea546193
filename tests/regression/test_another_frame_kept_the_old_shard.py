"""A finished shard was kept though its rows named other frames: wrong pictures, "verified"."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_dicom, save

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_convert.check import check_shards
from lavis_msmedcap.data_convert.plan import ShardSettings
from lavis_msmedcap.data_convert.shards import write_shards
from lavis_msmedcap.datasets.readers.shards import read_shards
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.imaging.read import read_image

SETTINGS = ShardSettings(samples=4)


def record(image: str, number: int) -> MedCapRecord:
    return MedCapRecord(image, (f"CT {number}.",), f"s{number}", "train", None, "ward", "medical")


def assert_stored(records: list[MedCapRecord], out: Path) -> None:
    """Compares every image, not only the samples that a conversion reads back."""
    shards = sorted(out.glob("*.tar"))
    stored = {r.image_id: r.image for r in read_shards(shards, None, cache=out / "cache")}
    assert len(stored) == len(records)
    for record in records:
        before, after = read_image(record.image), read_image(stored[record.image_id])
        assert np.array_equal(np.asarray(before), np.asarray(after)), record.image_id


def with_pixels(file: Path, old: np.ndarray, new: np.ndarray) -> bytes:
    """Returns the content of a file with other pixels; new identifiers may have other lengths."""
    content = file.read_bytes()
    assert content.count(old.tobytes()) == 1
    return content.replace(old.tobytes(), new.tobytes())


@pytest.fixture
def cine(tmp_path: Path) -> str:
    frames = np.random.default_rng(0).integers(0, 4096, (8, 16, 16)).astype(np.int16)
    return save(make_dicom(frames, NumberOfFrames=8), tmp_path / "cine.dcm")


def test_other_frames_of_a_file(cine: str, tmp_path: Path) -> None:
    records = [record(f"{cine}::frame={number}", number) for number in range(8)]
    write_shards(records, tmp_path / "out", SETTINGS)
    assert_stored(records, tmp_path / "out")
    moved = [replace(r, image=f"{cine}::frame={(n + 1) % 8}") for n, r in enumerate(records)]
    report, _ = write_shards(moved, tmp_path / "out", SETTINGS)
    assert report.kept == 0
    assert_stored(moved, tmp_path / "out")
    assert write_shards(moved, tmp_path / "out", SETTINGS)[0].kept == 2


def test_other_files_of_one_size_and_time(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (2, 16, 16)).astype(np.int16)
    names = [save(make_dicom(pixels[0]), tmp_path / "0.dcm"), str(tmp_path / "1.dcm")]
    Path(names[1]).write_bytes(with_pixels(Path(names[0]), *pixels))
    for name in names:
        os.utime(name, ns=(10**18, 10**18))
    assert len({Path(name).stat().st_size for name in names}) == 1
    records = [record(name, number) for number, name in enumerate(names)]
    write_shards(records, tmp_path / "out", SETTINGS)
    swapped = [record(name, number) for number, name in enumerate(reversed(names))]
    write_shards(swapped, tmp_path / "out", SETTINGS)
    assert_stored(swapped, tmp_path / "out")


def test_a_picture_exchanged_under_its_name_is_told_as_that(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (2, 16, 16)).astype(np.int16)
    image = tmp_path / "a.dcm"
    save(make_dicom(pixels[0]), image)
    os.utime(image, ns=(10**18, 10**18))
    records = [record(str(image), 0)]
    write_shards(records, tmp_path / "out", SETTINGS)
    image.write_bytes(with_pixels(image, *pixels))
    os.utime(image, ns=(10**18, 10**18))
    _, shards = write_shards(records, tmp_path / "out", SETTINGS)
    with pytest.raises(DataError, match="was replaced and kept its size and time"):
        check_shards(shards, tmp_path / "out", SETTINGS)
