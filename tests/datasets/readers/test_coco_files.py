from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap.datasets.readers.coco_files import coco_files, image_root, is_karpathy

COCO = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"caption": "A."}]}
KARPATHY = {"images": [{"filename": "1.jpg", "sentences": [{"raw": "A."}]}]}
LAVIS = [{"image": "1.jpg", "caption": "A."}]
OWN = [{"image": "1.jpg", "caption": "A.", "patient_id": "p1"}]


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("annotations/captions_train2014.json", COCO, True),
        ("captions_val2014.json", COCO, True),
        ("annotations/instances_val2014.json", COCO, False),
        ("dataset_coco.json", KARPATHY, True),
        ("mine_val.json", LAVIS, True),
        ("mine.json", LAVIS, False),
        ("captions_val.json", OWN, False),
        ("captions.txt", COCO, False),
    ],
)
def test_files_of_a_folder(tmp_path: Path, name: str, content: Any, found: bool) -> None:
    path = put(tmp_path / name, content)
    assert coco_files(tmp_path) == ([path] if found else [])
    assert is_karpathy(path) == (content is KARPATHY)


def test_a_file_by_its_content(tmp_path: Path) -> None:
    assert coco_files(put(tmp_path / "mine.json", LAVIS)) == [tmp_path / "mine.json"]
    assert coco_files(put(tmp_path / "own.json", OWN)) == []


def test_where_the_images_are(tmp_path: Path) -> None:
    file = put(tmp_path / "annotations" / "captions_val2014.json", COCO)
    assert image_root(file, tmp_path) == image_root(file, file) == tmp_path
    beside = put(tmp_path / "mine_val.json", LAVIS)
    assert image_root(beside, beside) == tmp_path
    (tmp_path / "images").mkdir()
    assert image_root(beside, beside) == tmp_path / "images"
