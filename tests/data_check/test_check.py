"""Counts by reason of a dirty tree, equal to what was put there; clean manifests of it."""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path

import pytest
from data_check_trees import dirty_tree, jpeg_bytes, leaking_trees, picture, put, roco
from PIL import Image

from lavis_msmedcap.data_check.cache import FactsCache
from lavis_msmedcap.data_check.check import DataCheck, check_data, reasons_to_drop
from lavis_msmedcap.data_check.choices import FIX_GROUP, FIX_IMAGE, FIX_NONE
from lavis_msmedcap.data_check.findings import NOTE, PROBLEM, WARNING
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.data_check.manifest import clean, write_manifest
from lavis_msmedcap.data_check.page import write_check
from lavis_msmedcap.data_check.text import describe
from lavis_msmedcap.datasets.readers.report import ReadReport


def checked(*places: Path) -> DataCheck:
    reports = [ReadReport(place.stem if place.is_file() else place.name) for place in places]
    records = [r for place, report in zip(places, reports) for r in read_place(place, report)[1]]
    return check_data("test", records, reports, {}, FactsCache(None), workers=1)


def counts(check: DataCheck, severity: str) -> dict[str, int]:
    return {f.kind: f.count for f in check.findings if f.severity == severity}


def test_dirt_is_counted_by_reason(tmp_path):
    check = checked(dirty_tree(tmp_path / "roco"))
    assert counts(check, PROBLEM) == {
        "image: missing": 1,
        "image: truncated": 1,
        "image: empty file": 1,
        "image: a web page or XML": 1,
        "image: not an image": 1,
    }
    assert counts(check, WARNING) == {
        "image: constant": 1,
        "image: tiny": 1,
        "duplicate: file": 1,
        "duplicate: pixels": 1,
        "left out: without caption": 1,
        "left out: without a tab between id and caption": 1,
    }
    assert counts(check, NOTE) == {
        "image: extreme aspect ratio": 1,
        "caption: very short": 1,
        "caption: with line breaks": 1,
        "caption: perhaps not in English": 1,
        "caption: naming a side": 1,
        "caption: with characters beyond ASCII": 2,
        "caption: on several images": 2,
    }
    assert not check.clean


def test_a_finding_names_its_images(tmp_path):
    check = checked(dirty_tree(tmp_path / "roco"))
    named = {
        finding.kind: [check.records[i].image_id for i in finding.indices]
        for finding in check.findings
        if finding.kind.startswith(("image:", "duplicate:"))
    }
    assert named == {
        "image: missing": ["ROCO_00004"],
        "image: truncated": ["ROCO_00005"],
        "image: empty file": ["ROCO_00006"],
        "image: a web page or XML": ["ROCO_00007"],
        "image: not an image": ["ROCO_00008"],
        "image: constant": ["ROCO_00009"],
        "image: tiny": ["ROCO_00010"],
        "image: extreme aspect ratio": ["ROCO_00011"],
        "duplicate: file": ["ROCO_00012"],
        "duplicate: pixels": ["ROCO_00014"],
    }


def test_leaks_within_and_across_data_sets(tmp_path):
    check = checked(*leaking_trees(tmp_path))
    leaks = {f.kind: (f.severity, f.count, f.of, f.by) for f in check.findings if "leak" in f.kind}
    assert leaks == {
        "leak: group test/train": (
            PROBLEM,
            2,
            4,
            {"roco test in roco train": 1, "roco test in rocov2 train": 1},
        ),
        "leak: file test/train": (PROBLEM, 1, 4, {"roco test in rocov2 train": 1}),
        "leak: near test/train": (PROBLEM, 1, 4, {"roco test in rocov2 train": 1}),
        "leak: caption test/train": (WARNING, 1, 4, {"roco test in rocov2 train": 1}),
    }


def test_near_black_images_are_not_thrown_together(tmp_path):
    noise = [
        jpeg_bytes(picture(seed).point(lambda value: value // 100), 95)  # grey levels 0, 1 and 2
        for seed in range(6)
    ]
    entries = {f"R_{i}": (f"PMC{i}", "A black image.", content) for i, content in enumerate(noise)}
    check = checked(roco(tmp_path / "roco", "train", entries))
    assert check.duplicates.unseen == 6
    assert check.duplicates.near == []


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (FIX_GROUP, {"ROCO_1", "B_1", "B_2", "B_3"}),
        (FIX_IMAGE, {"B_2", "B_3"}),
        (FIX_NONE, set()),
    ],
)
def test_train_yields_to_test(tmp_path, policy, expected):
    check = checked(*leaking_trees(tmp_path))
    reasons = reasons_to_drop(check, policy)
    dropped = {r.image_id for r, reason in zip(check.records, reasons) if reason}
    assert dropped == expected


def test_val_yields_to_test_and_train_to_val(tmp_path):
    root = tmp_path / "roco"
    for split, number in (("train", 1), ("validation", 2), ("test", 3)):
        roco(root, split, {f"R_{number}": ("PMC1", "A scan.", jpeg_bytes(picture(number)))})
    roco(root / "more", "train", {"R_4": ("PMC2", "A scan.", jpeg_bytes(picture(4)))})
    roco(root / "more", "validation", {"R_5": ("PMC2", "A scan.", jpeg_bytes(picture(5)))})
    check = checked(root, root / "more")
    told = dict(zip((r.image_id for r in check.records), reasons_to_drop(check)))
    assert told == {
        "R_1": "leaks into test: same article or patient",
        "R_2": "leaks into test: same article or patient",
        "R_3": "",
        "R_4": "leaks into val: same article or patient",
        "R_5": "",
    }


def test_a_clean_manifest_of_dirt_is_clean(tmp_path):
    root = dirty_tree(tmp_path / "roco")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    check = checked(root)
    result = clean(check.records, reasons_to_drop(check))
    write_manifest(tmp_path / "clean.jsonl", result)
    reasons = Counter(reason for _, reason in result.dropped)
    assert reasons == {
        "image: missing": 1,
        "image: truncated": 1,
        "image: empty file": 1,
        "image: a web page or XML": 1,
        "image: not an image": 1,
        "image: constant": 1,
        "repeats an image of its split": 2,
    }
    again = checked(tmp_path / "clean.jsonl")
    assert again.clean
    assert [r.image_id for r in again.records] == [
        f"ROCO_{number:05d}" for number in (1, 2, 3, 10, 11, 13)
    ]
    assert not {"image: constant", "duplicate: file", "duplicate: pixels"} & {
        finding.kind for finding in again.findings
    }
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_clean_manifest_of_leaks_is_clean(tmp_path):
    check = checked(*leaking_trees(tmp_path))
    assert not check.clean
    result = clean(check.records, reasons_to_drop(check))
    write_manifest(tmp_path / "clean.jsonl", result)
    again = checked(tmp_path / "clean.jsonl")
    assert again.clean
    assert set(again.records) == set(result.kept)
    assert sum(r.split == "test" for r in again.records) == 4


def test_huge_images_are_noted(tmp_path):
    image = put(tmp_path / "big.png", Image.new("1", (8000, 5001)))
    entries = {"R_1": ("PMC1", "A slide.", image.read_bytes())}
    check = checked(roco(tmp_path / "roco", "train", entries))
    assert "image: huge" in counts(check, NOTE)


def test_what_the_reader_decided_is_told_in_text_and_page(tmp_path):
    put(tmp_path / "one.png", picture(1))
    check = checked(put(tmp_path / "captions.csv", "image,caption\none.png,a lesion\n"))
    note = "captions: records without a split of their own, taken as train (1)"
    assert f"how the files were read:\n  {note}\n" in describe(check)
    write_check(tmp_path / "page.html", check)
    assert note in html.unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
