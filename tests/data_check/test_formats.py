from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from data_check_trees import dirty_tree, jpeg_bytes, picture, put

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.formats import read_place, split_in_name
from lavis_msmedcap.datasets.readers.report import ReadReport


def read(place, name=None):
    chosen, records = read_place(place, ReadReport("mine"), name)
    assert {record.source for record in records} == {"mine"}
    return chosen.name, Counter(record.split for record in records)


@pytest.mark.parametrize("inner", ["", "data"])
def test_a_roco_tree(tmp_path, inner):
    root = dirty_tree(tmp_path / "roco")
    folder = root / "data" / "train" / "non-radiology"
    put(folder / "captions.txt", "ROCO_9\t A photograph.\n")
    put(folder / "images" / "ROCO_9.jpg", jpeg_bytes(picture(9)))
    assert read(root / inner) == ("roco", {"train": 15})


def test_a_medicat_release(tmp_path):
    entry = {"pdf_hash": "a" * 40, "fig_uri": "1.png", "s2_caption": "Figure 1. A scan."}
    release = tmp_path / "release"
    path = put(release / "s2_full_figures_oa.jsonl", json.dumps(entry) + "\n")
    put(release / "figures" / f"{'a' * 40}_1.png", picture(1))
    report = ReadReport("medicat")
    for place in (tmp_path, release, path):
        assert read(place) == ("medicat", {"train": 1})
    read_place(tmp_path, report)
    assert report.notes == {"records without a split of their own, taken as train": 1}


def test_coco_captions(tmp_path):
    for split, year in (("train", "train2014"), ("val", "val2014")):
        name = f"COCO_{year}_000000000009.jpg"
        content = {
            "images": [{"id": 9, "file_name": name}],
            "annotations": [{"image_id": 9, "id": 1, "caption": f"In {split}."}],
        }
        put(tmp_path / "annotations" / f"captions_{year}.json", json.dumps(content))
        put(tmp_path / year / name, jpeg_bytes(picture(1)))
    assert read(tmp_path) == ("coco", {"train": 1, "val": 1})
    assert read(tmp_path / "annotations" / "captions_val2014.json") == ("coco", {"val": 1})


def test_rocov2(tmp_path):
    for split in ("train", "valid", "test"):
        name = f"ROCOv2_2023_{split}_000001"
        put(tmp_path / f"{split}_captions.csv", f"ID,Caption\n{name},A scan.\n")
        put(tmp_path / f"{split}_images" / split / f"{name}.jpg", jpeg_bytes(picture(1)))
    put(tmp_path / "license_information.csv", "ID,Link\nROCOv2_2023_test_000001,PMC123/x.jpg\n")
    assert read(tmp_path) == ("rocov2", {"train": 1, "val": 1, "test": 1})
    records = read_place(tmp_path, ReadReport("x"))[1]
    assert [(r.split, r.group_id) for r in records if r.group_id] == [("test", "PMC123")]
    assert all(Path(record.image).is_file() for record in records)


def test_roco_of_kaggle(tmp_path):
    folder = tmp_path / "all_data" / "validation" / "radiology"
    put(folder / "radiologyvaldata.csv", "id,name,caption\nROCO_1,PMC5_a.jpg, A scan.\n")
    put(folder / "images" / "PMC5_a.jpg", jpeg_bytes(picture(1)))
    assert read(tmp_path) == ("roco-kaggle", {"val": 1})


def test_a_table_of_ones_own(tmp_path):
    put(tmp_path / "a.png", picture(1))
    rows = "a.png,First.,test\na.png,Second.,test\nb.png,Third.,train\n"
    table = put(tmp_path / "mine.csv", f"image,caption,split\n{rows}")
    report = ReadReport("mine")
    chosen, records = read_place(table, report)
    assert chosen.name == "table"
    assert [(r.split, r.captions) for r in records] == [
        ("train", ("Third.",)),
        ("test", ("First.", "Second.")),
    ]
    assert report.n_read == 3
    put(table, "image,caption\na.png,First.\n")
    report = ReadReport("mine")
    assert [record.split for record in read_place(tmp_path, report)[1]] == ["train"]
    assert report.notes["records without a split of their own, taken as train"] == 1


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_train2014.json", "train"),
        ("captions_val2017.json", "val"),
        ("coco_karpathy_test.json", "test"),
        ("validation.json", "val"),
        ("contest.json", "train"),
        ("captions.json", "train"),
    ],
)
def test_the_split_is_in_the_name(name, split):
    assert split_in_name(name) == split


def test_what_is_no_data_set(tmp_path):
    put(tmp_path / "notes.txt", "hello")
    with pytest.raises(DataError, match=r"looks like no known format .*roco: a ROCO v1 tree"):
        read(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="--format rocco is unknown; did you mean roco"):
        read(tmp_path, "rocco")
    with pytest.raises(DataError, match="read as a ROCO v1 tree, has no image"):
        read(tmp_path, "roco")
