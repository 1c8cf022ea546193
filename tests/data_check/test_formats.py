from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from data_check_trees import dirty_tree, jpeg_bytes, picture, put

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.readers.files import split_in_name
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


def own_rows(n: int = 4) -> list[dict[str, str]]:
    split = ("train", "test")
    return [
        {
            "image": f"{i}.png",
            "caption": f"Scan {i}.",
            "patient_id": f"p{i // 2}",
            "split": split[i % 2],
        }
        for i in range(n)
    ]


def groups(place: Path) -> tuple[str, set[tuple[str, str | None]]]:
    chosen, records = read_place(place, ReadReport("mine"))
    return chosen.name, {(record.split, record.group_id) for record in records}


OWN = {("train", "p0"), ("test", "p0"), ("train", "p1"), ("test", "p1")}


@pytest.mark.parametrize("name", ["data.json", "captions.json"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_an_own_json_list_keeps_its_splits_and_patients(tmp_path, name, as_folder):
    path = put(tmp_path / name, json.dumps(own_rows()))
    assert groups(tmp_path if as_folder else path) == ("table", OWN)


def test_own_json_lines_are_no_manifest(tmp_path):
    rows = [{**row, "captions": [row.pop("caption")]} for row in own_rows()]
    path = put(tmp_path / "data.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert groups(path) == ("table", OWN)


def own_csv(path: Path, numbers: range) -> Path:
    lines = [f"{i}.png,Scan {i}.,p{i % 2}\n" for i in numbers]
    return put(path, "image,caption,patient_id\n" + "".join(lines))


def test_own_tables_named_as_those_of_rocov2(tmp_path):
    own_csv(tmp_path / "train_captions.csv", range(2))
    own_csv(tmp_path / "test_captions.csv", range(2, 4))
    assert groups(tmp_path) == ("table", OWN)


@pytest.mark.parametrize("caption", ["caption", "report"])
def test_own_parquet_files_named_as_those_of_rocov2(tmp_path, caption):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for split in ("train", "test"):
        path = tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        cells = {
            "image": [{"bytes": jpeg_bytes(picture(i)), "path": None} for i in range(2)],
            "image_id": [f"{split}{i}" for i in range(2)],
            caption: ["A scan.", "Another."],
            "patient_id": ["p0", "p1"],
        }
        pq.write_table(pa.table(cells), path)
    assert groups(tmp_path) == ("table", OWN)


def test_the_split_of_a_single_table_is_in_its_name(tmp_path):
    report = ReadReport("mine")
    _, records = read_place(own_csv(tmp_path / "test.csv", range(2)), report)
    assert {record.split for record in records} == {"test"}
    assert report.notes["records whose split the file's name tells"] == 2


@pytest.mark.parametrize("as_folder", [False, True])
def test_karpathys_own_file(tmp_path, as_folder):
    images = [
        {
            "filepath": "val2014",
            "sentids": [i],
            "filename": f"COCO_val2014_{i:012d}.jpg",
            "imgid": i,
            "split": split,
            "sentences": [{"tokens": ["a"], "raw": f"Picture {i}.", "imgid": i, "sentid": i}],
        }
        for i, split in enumerate(("train", "restval", "val", "test", "test"))
    ]
    content = json.dumps({"images": images, "dataset": "coco"})
    path = put(tmp_path / "dataset_coco.json", content)
    expected = ("coco", {"train": 2, "val": 1, "test": 2})
    assert read(tmp_path if as_folder else path) == expected
