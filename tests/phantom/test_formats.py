"""The files are what readers of the real data sets expect."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.phantom import DEFAULT, parse_facets, phantom_key


def facts_of(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "facts.jsonl").read_text().splitlines()]


def test_coco_captions(tiny_set: Path) -> None:
    for split, count in (("train", 6), ("val", 3)):
        path = tiny_set / "coco" / "annotations" / f"captions_{split}2014.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        assert set(document) == {"info", "images", "licenses", "annotations"}
        assert len(document["images"]) == count
        assert len(document["annotations"]) == 5 * count
        assert len({entry["id"] for entry in document["annotations"]}) == 5 * count
        known = {entry["id"] for entry in document["images"]}
        assert {entry["image_id"] for entry in document["annotations"]} == known
        for entry in document["images"]:
            assert entry["file_name"] == f"COCO_{split}2014_{entry['id']:012d}.jpg"
            with Image.open(tiny_set / "coco" / f"{split}2014" / entry["file_name"]) as image:
                assert (image.format, image.mode) == ("JPEG", "RGB")
                assert image.size == (entry["width"], entry["height"])


@pytest.mark.parametrize(("split", "count"), [("train", 14), ("validation", 5), ("test", 6)])
def test_roco_files(tiny_set: Path, split: str, count: int) -> None:
    folder = tiny_set / "roco" / "data" / split / "radiology"
    raw = (folder / "captions.txt").read_bytes()
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    rows = [line.split("\t") for line in raw.decode("utf-8").rstrip("\n").split("\n")]
    assert len(rows) == count
    assert all(len(row) == 2 and row[1].startswith(" ") and row[1][1] != " " for row in rows)
    ids = [row[0] for row in rows]
    links = [line.split("\t") for line in (folder / "dlinks.txt").read_text().splitlines()]
    assert [row[0] for row in links] == ids
    assert all(row[1].startswith("wget -r ftp://") and row[2].endswith(".jpg") for row in links)
    with (folder / "licences.txt").open(encoding="utf-8", newline="") as file:
        licences = list(csv.DictReader(file))
    assert list(licences[0]) == ["ROCO_ID", "PMC_ID", "CC"]
    assert [row["ROCO_ID"] for row in licences] == ids
    for image_id in ids:
        with Image.open(folder / "images" / f"{image_id}.jpg") as image:
            assert image.format == "JPEG"
            assert image.mode in ("L", "RGB")
            assert 120 <= min(image.size) <= max(image.size) <= 200
            assert 0.74 < image.width / image.height < 1.34


def test_roco_splits_share_no_article_and_no_id(tiny_set: Path) -> None:
    seen: dict[str, set[str]] = {}
    for fact in facts_of(tiny_set):
        if fact["dataset"] == "roco":
            for key in (fact["group_id"], fact["image_id"]):
                seen.setdefault(key, set()).add(fact["split"])
    assert all(len(splits) == 1 for splits in seen.values())
    assert len(seen) > 20


def test_medicat_release(tiny_set: Path) -> None:
    release = tiny_set / "medicat" / "release"
    name = "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
    entries = [json.loads(line) for line in (release / name).read_text().splitlines()]
    assert len(entries) == 30
    modes = set()
    for entry in entries:
        assert set(entry) == {
            "pdf_hash", "fig_key", "fig_uri", "s2_caption", "s2orc_caption", "s2orc_references",
            "radiology", "scope", "predicted_type", "oa_info",
        }  # fmt: skip
        assert len(entry["pdf_hash"]) == 40
        assert entry["s2_caption"].lower().startswith("fig")
        with Image.open(release / "figures" / f"{entry['pdf_hash']}_{entry['fig_uri']}") as image:
            assert image.format == "PNG"
            modes.add(image.mode)
    assert {"RGB", "L"} <= modes <= {"RGB", "L", "RGBA", "P"}
    assert any(entry["s2orc_caption"] is None for entry in entries)
    assert any(entry["s2orc_references"] is None for entry in entries)
    assert any(isinstance(entry["s2orc_references"], list) for entry in entries)
    assert len({entry["pdf_hash"] for entry in entries}) < len(entries)


def test_facts_masks_and_captions_agree(tiny_set: Path) -> None:
    facts = facts_of(tiny_set)
    assert len(facts) == 64
    assert len({fact["image_id"] for fact in facts}) == 64
    for fact in facts:
        with Image.open(tiny_set / fact["image"]) as image:
            size = image.size
        assert Path(fact["image"]).stem == fact["image_id"]
        if fact["dataset"] == "coco2014_caption":
            assert fact["modality"] is None
            assert fact["mask"] is None
            continue
        read = parse_facets(fact["captions"][0])
        for name in ("modality", "organ", "lesion", "side", "position", "contrast", "size_mm"):
            assert getattr(read, name) == fact[name]
        assert (fact["mask"] is not None) == fact["lesion"]
        if fact["mask"]:
            with Image.open(tiny_set / fact["mask"]) as mask:
                assert mask.mode == "L"
                assert mask.size == size
                assert set(np.unique(np.asarray(mask))) == {0, 255}


@pytest.mark.parametrize(("word", "split", "count"), [("train", "train", 9), ("valid", "val", 3)])
def test_rocov2_files(further_set: Path, word: str, split: str, count: int) -> None:
    root = further_set / "rocov2"
    with (root / f"{word}_captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    facts = [f for f in facts_of(further_set) if (f["dataset"], f["split"]) == ("rocov2", split)]
    assert [row["ID"] for row in rows] == [fact["image_id"] for fact in facts]
    assert [[row["Caption"]] for row in rows] == [fact["captions"] for fact in facts]
    assert len(rows) == count
    with (root / "license_information.csv").open(encoding="utf-8", newline="") as file:
        articles = {row["ID"]: row["PMCID"] for row in csv.DictReader(file)}
    assert len(articles) == 16
    for fact in facts:
        assert articles[fact["image_id"]] == fact["group_id"]
        with Image.open(root / f"{word}_images" / word / f"{fact['image_id']}.jpg") as image:
            assert image.format == "JPEG"


def test_a_table(further_set: Path) -> None:
    with (further_set / "table" / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "caption", "patient_id"]
    facts = [fact for fact in facts_of(further_set) if fact["dataset"] == "caption_table"]
    assert len(rows) == len(facts) == 12
    for row, fact in zip(rows, facts):
        assert (row["image"], row["patient_id"]) == (fact["image_id"], fact["group_id"])
        assert parse_facets(row["caption"]).organ == fact["organ"]
        with Image.open(further_set / "table" / row["image"]) as image:
            assert image.format == "PNG"
    assert len({row["patient_id"] for row in rows}) < 12


def test_formats_that_came_later_change_no_set_of_before() -> None:
    assert phantom_key(0, DEFAULT) == "v1-seed0-625cfe09"
