from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lavis.datasets.datasets.coco_caption_datasets import COCOCapDataset, COCOCapEvalDataset
from pycocotools.coco import COCO

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.data_convert.lavis_json import file_names, stock_image_id, write_lavis_json
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.imaging.read import read_image


def load(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def splits(records):
    return [*records[:8], *(replace(record, split="val") for record in records[8:])]


def test_the_stock_training_data_set_reads_it(splits, tmp_path) -> None:
    out = tmp_path / "out"
    write_lavis_json(splits, out)
    root = tmp_path / "roco" / "train"
    data = COCOCapDataset(np.asarray, str, str(root), [str(out / "roco_train.json")])
    expected = [
        (record, caption)
        for record in splits
        if record.split == "train"
        for caption in record.captions
    ]
    assert len(data) == len(expected)
    for sample, (record, caption) in zip((data[i] for i in range(len(data))), expected):
        assert sample["text_input"] == caption
        assert np.array_equal(sample["image"], np.asarray(read_image(record.image)))


@pytest.mark.parametrize("images", ["keep", "copy"])
def test_the_stock_evaluation_and_its_references_agree_on_ids(splits, tmp_path, images) -> None:
    out = tmp_path / "out"
    splits = [record for record in splits if record.image.endswith(".jpg")]
    report = write_lavis_json(splits, out, images=images)
    root = out / "images" if images == "copy" else tmp_path / "roco" / "train"
    data = COCOCapEvalDataset(np.asarray, str, str(root), [str(out / "roco_val.json")])
    samples = [data[i] for i in range(len(data))]
    predicted = [{"image_id": int(s["image_id"]), "caption": "a scan"} for s in samples]
    truth = COCO(str(out / "roco_val_gt.json"))
    results = tmp_path / "results.json"
    results.write_text(json.dumps(predicted), encoding="utf-8")
    truth.loadRes(str(results))  # refuses ids that it does not know
    references = {
        image_id: [a["caption"] for a in annotations]
        for image_id, annotations in truth.imgToAnns.items()
    }
    evaluated = [record for record in splits if record.split == "val"]
    assert list(references.values()) == [list(record.captions) for record in evaluated]
    assert sorted(references) == sorted(p["image_id"] for p in predicted)
    assert not report.notes


def test_our_own_reader_reads_it(splits, tmp_path) -> None:
    out = tmp_path / "out"
    write_lavis_json(splits, out, images="copy")
    for split in ("train", "val"):
        found = list(read_coco(out / f"roco_{split}.json", out / "images", split, domain="medical"))
        wanted = [record for record in splits if record.split == split]
        assert [r.image_id for r in found] == [r.image_id for r in wanted]
        # the reader leaves white space at both ends out, these captions have none
        assert [r.captions for r in found] == [r.captions for r in wanted]
        for copy, record in zip(found, wanted):
            assert Path(copy.image).read_bytes() == Path(record.image).read_bytes()


@pytest.mark.parametrize("name", ["PMC{}_x", "PMC_{}"])  # LAVIS takes "7.pn" from PMC_7.png
def test_names_without_a_number_are_told(splits, tmp_path, name) -> None:
    wanted = [replace(r, split="test", image_id=name.format(n)) for n, r in enumerate(splits)]
    report = write_lavis_json(wanted, tmp_path / "out", images="copy")
    assert len(report.notes) == 1
    truth = load(tmp_path / "out/roco_test_gt.json")
    assert [image["id"] for image in truth["images"]] == [record.image_id for record in wanted]


def test_stock_ids_are_taken_as_lavis_takes_them() -> None:
    assert stock_image_id("val2014/COCO_val2014_000000391895.jpg") == "000000391895"
    assert stock_image_id("PMC1_fig-g001.jpg") == "fi" + "g-g001"
    assert stock_image_id("PMC1_0001-gp.jpg") == "0001-"


def test_images_that_lavis_cannot_read_are_not_named_in_place(records, strange, tmp_path) -> None:
    odd = [replace(records[0], image=str(p), image_id=name[:-4]) for name, p in strange.items()]
    for number, record in enumerate(odd):
        odd[number] = replace(record, image_id=f"odd_{number}")
    with pytest.raises(DataError, match=r"1 PNG of 16 bits.*--images copy") as caught:
        write_lavis_json([*records, *odd], tmp_path / "out")
    assert "1 GIF" in str(caught.value)
    write_lavis_json([*records, *odd], tmp_path / "out", images="copy")
    entries = load(tmp_path / "out/roco_train.json")
    names = {entry["image_id"]: entry["image"] for entry in entries}
    assert names["odd_0"] == "roco/train/odd_0.png"
    for record in odd:
        copy = tmp_path / "out/images" / names[record.image_id]
        assert np.array_equal(np.asarray(read_image(copy)), np.asarray(read_image(record.image)))


def test_broken_images(records, tmp_path) -> None:
    path = Path(records[2].image)
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(BadImageError, match="web page"):
        write_lavis_json(records, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    report = write_lavis_json(records, tmp_path / "out", skip_bad=True, workers=2)
    assert report.broken == 1
    entries = load(tmp_path / "out/roco_train.json")
    assert records[2].image_id not in {entry["image_id"] for entry in entries}


@pytest.mark.parametrize(
    "image_id", ["../../x", "a/b", ".bashrc", "", "C:\\x", "x" * 300, "\u6d77"]
)
def test_ids_lead_nowhere_else(records, tmp_path, image_id) -> None:
    out = tmp_path / "out"
    write_lavis_json([replace(records[0], image_id=image_id)], out, images="copy")
    (entry, _) = load(out / "roco_train.json")
    assert entry["image_id"] == image_id
    assert (out / "images" / entry["image"]).parent == out / "images" / "roco" / "train"
    assert (out / "images" / entry["image"]).is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"roco", "out"}


def test_names_never_replace_each_other() -> None:
    ids = ["a/b", "a_b", "A_B", "a_b-2", "a_b", "\u6d77", "_", "..", ""]
    names = list(file_names(ids))
    assert names[:4] == ["a_b", "a_b-2", "A_B-3", "a_b-2-2"]
    assert len({name.lower() for name in names}) == len(ids)


def test_files_that_are_there_stay_unless_told(records, tmp_path) -> None:
    (tmp_path / "roco_train.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"roco_train\.json is there already.*--overwrite"):
        write_lavis_json(records, tmp_path)
    assert load(tmp_path / "roco_train.json") == []
    write_lavis_json(records, tmp_path, overwrite=True)
    assert len(load(tmp_path / "roco_train.json")) == 16
