"""A split whose captions were missing or unreadable was left out of a folder without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_check_trees import jpeg_bytes, picture, put, roco

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.readers.report import ReadReport

ROCO_SPLITS = ("train", "validation", "test")


def splits_of(folder: Path) -> list[str]:
    return [record.split for record in read_place(folder, ReadReport("mine"))[1]]


@pytest.fixture
def rocov2(tmp_path: Path) -> Path:
    for split in ("train", "valid", "test"):
        put(tmp_path / f"{split}_captions.csv", f"ID,Caption\n{split}_1,A scan.\n")
        put(tmp_path / f"{split}_images" / split / f"{split}_1.jpg", jpeg_bytes(picture(1)))
    return tmp_path


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_rocov2_without_a_header(rocov2: Path, split: str) -> None:
    assert splits_of(rocov2) == ["train", "val", "test"]
    table = put(rocov2 / f"{split}_captions.csv", f"{split}_1,A scan.\n{split}_2,Another.\n")
    with pytest.raises(DataError, match="expected the columns ID and Caption") as caught:
        splits_of(rocov2)
    assert str(table) in str(caught.value)


def test_rocov2_without_the_captions_of_a_split_that_has_images(rocov2: Path) -> None:
    (rocov2 / "valid_captions.csv").unlink()
    with pytest.raises(DataError, match=r"the val split of ROCOv2 not found .*_captions\.csv"):
        splits_of(rocov2)
    (rocov2 / "valid_images").rename(rocov2 / "elsewhere")
    assert splits_of(rocov2) == ["train", "test"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number, split in enumerate(ROCO_SPLITS):
        name = f"ROCO_{number}"
        roco(tmp_path, split, {name: (f"PMC{number}", "A scan.", jpeg_bytes(picture(number)))})
    return tmp_path


@pytest.mark.parametrize("inner", ["", "data"])
@pytest.mark.parametrize("split", ROCO_SPLITS)
def test_roco_without_captions_beside_images(tree: Path, inner: str, split: str) -> None:
    assert splits_of(tree / inner) == ["train", "val", "test"]
    captions = tree / "data" / split / "radiology" / "captions.txt"
    captions.unlink()
    with pytest.raises(DataError, match="the ROCO captions not found") as caught:
        splits_of(tree / inner)
    assert str(captions) in str(caught.value)


def test_roco_with_an_empty_folder_of_a_split(tree: Path) -> None:
    folder = tree / "data" / "validation"
    (folder / "radiology").rename(tree / "elsewhere")
    with pytest.raises(DataError, match=r"the ROCO folder not found: expected .*radiology"):
        splits_of(tree)
    folder.rmdir()
    assert splits_of(tree) == ["train", "test"]


@pytest.mark.parametrize("inner", ["", "all_data"])
def test_kaggles_copy_without_the_csv_of_a_split(tmp_path: Path, inner: str) -> None:
    for word, short in (("train", "train"), ("validation", "val")):
        folder = tmp_path / "all_data" / word / "radiology"
        put(folder / "images" / f"PMC5_{word}.jpg", jpeg_bytes(picture(1)))
        table = folder / f"radiology{short}data.csv"
        put(table, f"id,name,caption\nROCO_1,PMC5_{word}.jpg, A scan.\n")
    assert splits_of(tmp_path / inner) == ["train", "val"]
    table.unlink()
    with pytest.raises(DataError, match=r"no radiology…data\.csv of the val split in"):
        splits_of(tmp_path / inner)
