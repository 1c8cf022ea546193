"""A ROCOv2 folder whose CSV names its columns ``id,caption`` was refused, or read as a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_check_trees import jpeg_bytes, picture, put
from omegaconf import OmegaConf

from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.builders.rocov2 import ROCOv2Builder
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.rocov2 import is_rocov2, read_rocov2

NAMES = ["ID,Caption", "id,caption", "Id,CAPTION", "image_id,caption", "caption,ID"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "valid", "test"):
        put(tmp_path / f"{split}_images" / split / f"{split}_1.jpg", jpeg_bytes(picture(1)))
    put(tmp_path / "license_information.csv", "ID,Link\ntest_1,https://x/PMC123/x.jpg\n")
    return tmp_path


def write(folder: Path, names: str) -> None:
    for split in ("train", "valid", "test"):
        cells = [f"{split}_1", "A scan."]
        row = ",".join(reversed(cells) if names.startswith("caption") else cells)
        put(folder / f"{split}_captions.csv", f"{names}\n{row}\n")


@pytest.mark.parametrize("names", NAMES)
def test_read_by_name(folder: Path, names: str) -> None:
    write(folder, names)
    (record,) = read_rocov2(folder, "test")
    assert (record.image_id, record.captions, record.group_id) == ("test_1", ("A scan.",), "PMC123")
    assert record.image == str(folder / "test_images" / "test" / "test_1.jpg")
    assert Path(record.image).is_file()


@pytest.mark.parametrize("names", NAMES)
def test_recognized(folder: Path, names: str) -> None:
    write(folder, names)
    chosen, records = read_place(folder, ReadReport("mine"))
    assert chosen.name == "rocov2"
    assert [record.split for record in records] == ["train", "val", "test"]


def test_built(folder: Path) -> None:
    write(folder, "id,caption")
    settings = {"build_info": {"root": str(folder)}, "domain": "medical", "data_type": "images"}
    records = ROCOv2Builder(OmegaConf.create(settings)).read_records(ReadReport("rocov2"))
    assert [(split, len(found)) for split, found in records.items()] == [
        ("train", 1),
        ("val", 1),
        ("test", 1),
    ]


def test_own_tables_stay_tables(tmp_path: Path) -> None:
    for split in ("train", "test"):
        put(tmp_path / f"{split}_captions.csv", f"id,caption\n{split}.jpg,A scan.\n")
        put(tmp_path / f"{split}.jpg", jpeg_bytes(picture(1)))
    assert not is_rocov2(tmp_path)
    chosen, records = read_place(tmp_path, ReadReport("mine"))
    assert chosen.name == "table"
    assert all(Path(record.image).is_file() for record in records)
