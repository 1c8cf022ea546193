from __future__ import annotations

import json

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.selection import merge_repeated


def _annotations(coco_tree):
    return coco_tree / "annotations" / "captions_train2014.json"


def test_captions_are_grouped_by_image(coco_tree):
    report = ReadReport("coco2014_caption")
    records = list(read_coco(_annotations(coco_tree), coco_tree, "train", report=report))
    assert [record.image_id for record in records] == [
        "COCO_train2014_000000000009",
        "COCO_train2014_000000000025",
        "COCO_train2014_000000000030",
    ]
    first = records[0]
    assert first.captions == ("A bowl of food.", "Lunch on a table.")
    assert first.image == str(coco_tree / "train2014" / "COCO_train2014_000000000009.jpg")
    assert (first.split, first.group_id, first.domain) == ("train", None, "general")
    assert report.dropped == {"without caption": 1}
    assert report.n_read == 4
    assert report.summary() == (
        "coco2014_caption: read 4, kept 3 (train 3) | dropped 1: 1 without caption | "
        "1 empty captions beside others, left out"
    )


def test_images_may_lie_in_the_image_folder_itself(coco_tree):
    records = list(read_coco(_annotations(coco_tree), coco_tree / "train2014", "train"))
    assert records[0].image == str(coco_tree / "train2014" / "COCO_train2014_000000000009.jpg")


def test_names_without_the_folder_take_it_from_the_annotation_file(tmp_path, make):
    content = {
        "images": [{"id": 1, "file_name": "000000000009.jpg"}],
        "annotations": [{"image_id": 1, "caption": "A dog."}],
    }
    path = make.write(tmp_path / "captions_train2017.json", json.dumps(content))
    make.save(tmp_path / "train2017" / "000000000009.jpg")
    (record,) = read_coco(path, tmp_path, "train")
    assert record.image == str(tmp_path / "train2017" / "000000000009.jpg")


def test_missing_image_keeps_its_expected_place(coco_tree):
    (coco_tree / "train2014" / "COCO_train2014_000000000025.jpg").unlink()
    records = list(read_coco(_annotations(coco_tree), coco_tree, "train"))
    assert records[1].image.endswith("train2014/COCO_train2014_000000000025.jpg")


def test_lavis_lists_in_both_forms(tmp_path, make):
    image = "val2014/COCO_val2014_000000522418.jpg"
    make.save(tmp_path / image)
    train = [
        {"caption": "A woman cuts a cake. ", "image": image, "image_id": "coco_522418"},
        {"caption": "A cake.", "image": image, "image_id": "coco_522418"},
    ]
    path = make.write(tmp_path / "coco_karpathy_train.json", json.dumps(train))
    (record,) = read_coco(path, tmp_path, "train")
    assert record.captions == ("A woman cuts a cake.", "A cake.")
    assert record.image_id == "COCO_val2014_000000522418"
    assert record.image == str(tmp_path / image)
    test = [{"image": image, "caption": ["One.", "Two."]}]
    path = make.write(tmp_path / "coco_karpathy_test.json", json.dumps(test))
    (record,) = read_coco(path, tmp_path, "test")
    assert record.captions == ("One.", "Two.")


def test_images_of_one_name_in_two_folders_are_two(tmp_path, make):
    """Whether the list gives ids, as LAVIS' for training do, or not."""
    names = ["p0/000.png", "p1/000.png", "p1/001.png"]
    for seed, name in enumerate(names):
        make.save(tmp_path / name, seed=seed)
    listed = [{"image": name, "caption": f"Scan {name}."} for name in names]
    path = make.write(tmp_path / "mine.json", json.dumps(listed))
    records = list(read_coco(path, tmp_path, "train"))
    assert [r.image_id for r in records] == ["p0/000", "p1/000", "001"]
    for number, entry in enumerate(listed):
        entry["image_id"] = [f"P{number}", number][number % 2]
    listed.append({**listed[0], "caption": "Another text."})
    make.write(path, json.dumps(listed))
    records = merge_repeated(list(read_coco(path, tmp_path, "train")))
    assert [r.image_id for r in records] == ["P0", "1", "P2"]
    assert records[0].captions == ("Scan p0/000.png.", "Another text.")


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", "C:\\x.jpg", ""])
def test_names_that_leave_the_folder_are_refused(tmp_path, make, name):
    path = make.write(tmp_path / "x.json", json.dumps([{"image": name, "caption": "A."}]))
    with pytest.raises(DataError, match="refused"):
        list(read_coco(path, tmp_path, "train"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("3", "neither COCO captions"),
        ('{"images": []}', "lacks a field"),
        ('[{"caption": "A."}]', "lacks a field"),
        ('{"images": [], "annotations": [{"image_id": 7, "caption": "A."}]}', "unknown image"),
    ],
)
def test_broken_files_are_named(tmp_path, make, text, message):
    path = make.write(tmp_path / "x.json", text)
    with pytest.raises(DataError, match=message) as caught:
        list(read_coco(path, tmp_path, "train"))
    assert str(path) in str(caught.value)


def test_missing_file_names_the_key(tmp_path):
    with pytest.raises(DataError) as caught:
        list(read_coco(tmp_path / "no.json", tmp_path, "train"))
    assert "datasets.coco2014_caption.build_info.annotations.train.storage" in str(caught.value)
    assert str(tmp_path / "no.json") in str(caught.value)


def test_karpathys_own_file_has_all_splits(tmp_path, make):
    def entry(number, split, year="val2014"):
        name = f"COCO_{year}_{number:012d}.jpg"
        make.save(tmp_path / year / name)
        sentences = [{"raw": f"Text {number}. "}, {"raw": "Another."}, {"raw": ""}]
        image = {"filepath": year, "filename": name, "cocoid": number}
        return {**image, "split": split, "sentences": sentences}

    images = [
        entry(1, "train", "train2014"), entry(2, "restval"), entry(3, "val"), entry(4, "test"),
    ]  # fmt: skip
    path = make.write(
        tmp_path / "dataset_coco.json", json.dumps({"images": images, "dataset": "coco"})
    )
    found = {s: list(read_coco(path, tmp_path, s)) for s in ("train", "val", "test")}
    assert {s: [r.image_id[-1] for r in records] for s, records in found.items()} == {
        "train": ["1", "2"],
        "val": ["3"],
        "test": ["4"],
    }
    assert found["train"][1].captions == ("Text 2.", "Another.")
    assert found["train"][1].image == str(tmp_path / "val2014" / "COCO_val2014_000000000002.jpg")


def test_lavis_lists_train_on_val2014_and_evaluate_without_ids(tmp_path, make):
    """One entry per caption with an id to train on, one per image without to evaluate."""
    name = "val2014/COCO_val2014_000000522418.jpg"
    make.save(tmp_path / name)
    train = [
        {"caption": f"{text} ", "image": name, "image_id": "coco_522418"} for text in ("A.", "B.")
    ]
    make.write(tmp_path / "coco_karpathy_train.json", json.dumps(train))
    make.write(
        tmp_path / "coco_karpathy_val.json",
        json.dumps([{"image": name, "caption": ["A.", "B.", "C.", "D.", "E."]}]),
    )
    for split, captions in (("train", ("A.", "B.")), ("val", ("A.", "B.", "C.", "D.", "E."))):
        (record,) = read_coco(tmp_path / f"coco_karpathy_{split}.json", tmp_path, split)
        assert record.captions == captions
        assert record.image == str(tmp_path / name)
        assert record.image_id == "COCO_val2014_000000522418"
