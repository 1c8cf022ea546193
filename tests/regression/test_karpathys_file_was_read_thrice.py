"""Karpathy's file was parsed once per split, and images of unknown splits vanished uncounted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_check_trees import put
from omegaconf import OmegaConf

from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.builders.coco import COCO2014CaptionBuilder
from lavis_msmedcap.datasets.readers import coco
from lavis_msmedcap.datasets.readers.report import ReadReport

WORDS = ("train", "restval", "val", "test", "test", "testdev", "", "testdev")
KEPT = {"train": 2, "val": 1, "test": 2}
DROPPED = {"of split 'testdev'": 2, "of split ''": 1}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    images = [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{number:012d}.jpg",
            "split": word,
            "sentences": [{"raw": f"Picture {number}."}],
        }
        for number, word in enumerate(WORDS)
    ]
    return put(tmp_path / "dataset_coco.json", json.dumps({"images": images, "dataset": "coco"}))


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are parsed, as they are."""
    files: list[Path] = []
    read_json = coco.read_json

    def noting(path: Path) -> Any:
        files.append(path)
        return read_json(path)

    monkeypatch.setattr(coco, "read_json", noting)
    return files


def test_of_a_check(file: Path, parsed: list[Path]) -> None:
    report = ReadReport("coco")
    _, records = read_place(file, report)
    assert len(records) == 5
    assert parsed == [file]
    assert report.kept == KEPT
    assert report.dropped == DROPPED
    assert "2 of split 'testdev'" in report.summary()


def test_of_a_training(file: Path, parsed: list[Path]) -> None:
    storage = {"storage": str(file)}
    info = {
        "annotations": {"train": storage, "val": storage, "test": storage},
        "images": {"storage": str(file.parent)},
    }
    settings = {"data_type": "images", "domain": "general", "build_info": info}
    report = ReadReport("coco2014_caption")
    builder = COCO2014CaptionBuilder(OmegaConf.create(settings))
    read = builder._read(settings, report)
    assert {split: len(found) for split, found in read.items()} == KEPT
    assert list(read) == ["train", "val", "test"]
    assert parsed == [file]
    assert report.dropped == DROPPED


def test_one_split_tells_the_unknown_ones_too(file: Path) -> None:
    report = ReadReport("coco2014_caption")
    (record,) = coco.read_coco(file, file.parent, "val", report=report)
    assert record.split == "val"
    assert report.dropped == DROPPED
