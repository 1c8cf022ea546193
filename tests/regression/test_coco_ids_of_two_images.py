"""An id of two images in a COCO file gave the captions of both to the second one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.coco import read_coco


def _write(folder: Path, content: object) -> Path:
    path = folder / "captions_train.json"
    path.write_text(json.dumps(content))
    return path


def test_an_id_of_two_images_is_an_error(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 1, "caption": "A dog."}],
    }
    path = _write(tmp_path, content)
    with pytest.raises(DataError, match=r"image id 1 stands for a\.jpg and b\.jpg.*give each"):
        list(read_coco(path, tmp_path, "train"))
    content["images"][1]["file_name"] = "a.jpg"  # said twice, which does no harm
    (record,) = read_coco(_write(tmp_path, content), tmp_path, "train")
    assert record.captions == ("A dog.",)


def test_karpathys_flickr_files_have_no_folder(tmp_path: Path) -> None:
    image = {"filename": "1.jpg", "split": "train", "sentences": [{"raw": "A dog."}], "imgid": 1}
    more = {**image, "sentences": [{"raw": "A cat."}]}
    path = _write(tmp_path, {"images": [image, more], "dataset": "flickr30k"})
    (record,) = read_coco(path, tmp_path, "train")
    assert record.image == str(tmp_path / "1.jpg")
    assert record.captions == ("A dog.", "A cat.")
