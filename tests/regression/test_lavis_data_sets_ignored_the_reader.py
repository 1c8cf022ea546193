"""LAVIS' caption data sets read 16-bit images as white, ignored EXIF, and were not checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.datasets.builders.foreign import build_foreign, read_foreign_records
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.imaging.read import read_image
from lavis_msmedcap.imaging.views import unpack_views
from lavis_msmedcap.run_config import register_plugin

NAMES = ("deep.png", "turned.jpg")


@pytest.fixture
def section(tmp_path: Path) -> Any:
    register_plugin()
    deep = (np.arange(600).reshape(20, 30) * 6).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (30, 20), 90).save(tmp_path / "turned.jpg", exif=exif)
    entries = [
        {"image": name, "caption": f" a {word} thing", "image_id": name}
        for name in NAMES
        for word in ("big", "small")
    ]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    views = {"image_size": 32, "sam_image_size": 32}
    info = {
        "annotations": {
            "train": {"storage": str(tmp_path / "train.json"), "url": "http://x.invalid"}
        },
        "images": {"storage": str(tmp_path)},
    }
    return OmegaConf.create(
        {
            "data_type": "images",
            "domain": "general",
            "build_info": info,
            "vis_processor": {"train": {"name": "msmedcap_image_train", **views}},
            "text_processor": {"train": {"name": "msmedcap_caption"}},
        }
    )


@pytest.mark.parametrize("name", ["vg_caption", "coco_caption"])
def test_one_reader_for_all(section: Any, tmp_path: Path, name: str) -> None:
    data = build_foreign(name, registry.get_builder_class(name), section)["train"]
    processor = data.inner.vis_processor
    assert data.vis_processor is processor
    for index, file in ((0, "deep.png"), (2, "turned.jpg")):
        picture = read_image(str(tmp_path / file))
        sample = data[index]
        assert sample["image"].equal(processor(picture))
        assert sample["text_input"] == "a big thing"
        assert data.read_picture(sample["image_path"]).tobytes() == picture.tobytes()
    deep = unpack_views(data[0]["image"]).clip
    assert (deep == 255).float().mean() < 0.1
    assert unpack_views(data[2]["image"]).original_sizes.tolist() == [[30, 20]]
    (tmp_path / "deep.png").write_bytes(b"<html>")
    data.on_bad = "error"
    with pytest.raises(BadImageError, match=r"deep\.png"):
        data[0]


def test_their_records_are_checked_without_a_download(section: Any) -> None:
    builder_cls = registry.get_builder_class("vg_caption")
    report = ReadReport("vg_caption")
    records = read_foreign_records("vg_caption", builder_cls, section, report)
    assert records is not None
    assert [(r.image_id, r.captions) for r in records["train"]] == [
        (name, ("a big thing", "a small thing")) for name in NAMES
    ]
    assert report.kept == {"train": 2}
    section.build_info.annotations.train.storage = "nowhere.json"
    assert read_foreign_records("vg_caption", builder_cls, section, report) is None
