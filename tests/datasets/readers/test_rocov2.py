from __future__ import annotations

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.rocov2 import image_folder, read_rocov2


def _id(word, number):
    return f"ROCOv2_2023_{word}_{number:06d}"


@pytest.fixture
def rocov2_tree(tmp_path, make):
    """The publisher's files: double folders in train, a single one in valid, quoted captions."""
    root = tmp_path / "rocov2"
    train = [_id("train", i) for i in range(1, 6)]
    make.write(
        root / "train_captions.csv",
        "ID,Caption\r\n"
        f'{train[0]},"CT, axial, with ""halo""."\r\n'
        f'{train[1]},"Two lines\nof a caption."\r\n'
        f"{train[2]},\r\n"
        f"{train[3]},XXX.\r\n"
        f"{train[0]},Another caption of it.\r\n"
        f"{train[4]}.jpg,With the extension.\r\n",
    )
    make.write(root / "valid_captions.csv", f"\ufeffID,Caption\n{_id('valid', 1)},MRI.\n")
    make.write(root / "test_captions.csv", f"ID,Caption\n{_id('test', 1)},X-ray.\n")
    make.write(
        root / "license_information.csv",
        "ID,Link,License\n"
        f"{train[0]},https://x/articles/PMC111/figure/1,CC BY\n"
        f"{train[1]},https://x/articles/PMC111/figure/2,CC BY\n"
        f"{train[4]},none,CC BY\n"
        f"{_id('valid', 1)},PMC222,CC BY\n",
    )
    for image_id in train:
        make.save(root / "train_images" / "train" / f"{image_id}.jpg")
    make.save(root / "valid_images" / f"{_id('valid', 1)}.jpg")
    make.save(root / "test" / f"{_id('test', 1)}.png")
    return root


def test_captions_images_and_articles(rocov2_tree):
    report = ReadReport("rocov2")
    records = list(read_rocov2(rocov2_tree, "train", report=report))
    ids = [_id("train", i) for i in (1, 2, 4, 1)]
    assert [r.image_id for r in records] == [*ids, f"{_id('train', 5)}.jpg"]
    assert [r.captions[0] for r in records] == [
        'CT, axial, with "halo".',
        "Two lines\nof a caption.",
        "XXX.",
        "Another caption of it.",
        "With the extension.",
    ]
    folder = rocov2_tree / "train_images" / "train"
    assert [r.image for r in records] == [
        *(str(folder / f"{image_id}.jpg") for image_id in ids),
        str(folder / f"{_id('train', 5)}.jpg"),
    ]
    assert [r.group_id for r in records] == ["PMC111", "PMC111", None, "PMC111", None]
    assert report.kept == {"train": 5}
    assert report.dropped == {"without caption": 1}
    assert report.notes == {"without article id": 2}


def test_words_and_folders_of_the_other_splits(rocov2_tree):
    (val,) = read_rocov2(rocov2_tree, "val")
    assert (val.split, val.group_id) == ("val", "PMC222")
    assert val.image == str(rocov2_tree / "valid_images" / f"{val.image_id}.jpg")
    (test,) = read_rocov2(rocov2_tree, "test")
    assert test.image == str(rocov2_tree / "test" / f"{test.image_id}.png")
    assert image_folder(rocov2_tree / "nowhere", "val").parts[-2:] == (
        "validation_images",
        "validation",
    )


def test_what_is_missing_is_named(rocov2_tree, tmp_path):
    with pytest.raises(DataError, match=r"datasets\.rocov2\.build_info\.root"):
        list(read_rocov2(tmp_path / "nowhere", "train"))
    (rocov2_tree / "valid_captions.csv").unlink()
    with pytest.raises(
        DataError, match=r"val split of ROCOv2 not found .*validation_captions\.csv"
    ):
        list(read_rocov2(rocov2_tree, "val"))
    with pytest.raises(DataError, match=r"expected data/train-….parquet"):
        list(read_rocov2(rocov2_tree, "train", layout="parquet"))


def test_the_licence_file_may_name_its_columns_otherwise(rocov2_tree, make):
    make.write(rocov2_tree / "license_information.csv", f"id,url\n{_id('test', 1)},x/PMC9/y\n")
    (test,) = read_rocov2(rocov2_tree, "test")
    assert test.group_id == "PMC9"


def test_columns_that_are_not_there_are_told(rocov2_tree, make):
    make.write(rocov2_tree / "test_captions.csv", "name,text\na,CT\n")
    with pytest.raises(DataError, match="expected the columns ID and Caption; it has: name, text"):
        list(read_rocov2(rocov2_tree, "test"))
