from __future__ import annotations

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.roco_kaggle import kaggle_csv, read_roco_kaggle


@pytest.fixture
def kaggle_tree(tmp_path, make):
    """CSV files inside radiology/ in train, beside it in validation."""
    data = tmp_path / "all_data"
    rows = [
        "id,name,caption",
        'ROCO_00002,PMC111_a-g1.jpg," Computed tomography scan, axial.\n"',
        "ROCO_00003,PMC111_a-g2.jpg, Chest X-ray.",
        "ROCO_00004,PMC222_b-g1.jpg,",
        "ROCO_00005,odd.jpg,No article here.",
    ]
    make.write(data / "train/radiology/radiologytraindata.csv", "\n".join(rows) + "\n")
    for name in ("PMC111_a-g1.jpg", "PMC111_a-g2.jpg", "odd.jpg"):
        make.save(data / "train/radiology/images" / name)
    make.write(
        data / "train/non-radiology/nonradiologytraindata.csv",
        "id,name,caption\nROCO_9,PMC9_p.jpg,A photograph.\n",
    )
    make.save(data / "train/non-radiology/images/PMC9_p.jpg")
    make.write(
        data / "validation/radiologyvaldata.csv", "id,name,caption\nROCO_7,PMC3_k.jpg,MRI.\n"
    )
    make.save(data / "validation/radiology/images/PMC3_k.jpg")
    return tmp_path


def test_train_in_both_kinds(kaggle_tree):
    report = ReadReport("roco")
    records = list(
        read_roco_kaggle(kaggle_tree, "train", ["radiology", "non-radiology"], report=report)
    )
    assert [(r.image_id, r.group_id, r.captions[0]) for r in records] == [
        ("ROCO_00002", "PMC111", "Computed tomography scan, axial."),
        ("ROCO_00003", "PMC111", "Chest X-ray."),
        ("ROCO_00005", None, "No article here."),
        ("ROCO_9", "PMC9", "A photograph."),
    ]
    images = kaggle_tree / "all_data/train/radiology/images"
    assert records[0].image == str(images / "PMC111_a-g1.jpg")
    assert report.dropped == {"without caption": 1}
    assert report.notes == {"without article id": 1}


def test_a_table_beside_the_folder(kaggle_tree):
    (record,) = read_roco_kaggle(kaggle_tree / "all_data", "val")
    assert record.image == str(kaggle_tree / "all_data/validation/radiology/images/PMC3_k.jpg")
    assert record.split == "val"


def test_missing_split(kaggle_tree):
    assert kaggle_csv(kaggle_tree, "test", "radiology") is None
    with pytest.raises(DataError, match=r"no radiology…data\.csv of the test split"):
        list(read_roco_kaggle(kaggle_tree, "test"))
