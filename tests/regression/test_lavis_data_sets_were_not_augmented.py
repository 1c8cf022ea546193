"""Augmentation asked for in the section of a LAVIS data set had no effect, and nothing said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lavis.common.registry import registry
from lavis.datasets.datasets.caption_datasets import CaptionDataset
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.datasets.builders.foreign import ForeignDataset, build_foreign
from lavis_msmedcap.imaging.augment import sample_rng
from lavis_msmedcap.run_config import register_plugin
from lavis_msmedcap.run_relations.datasets import dataset_problems

CAPTIONS = ("The Left lung.", "A bus.", "Cyst of the l kidney.", "two dogs")
FLIP = {"flip": True, "swap_laterality": True}
STILL = {"rotation": 0, "crop": 1, "brightness": 0, "contrast": 0, "gamma": 0}


@pytest.fixture
def section(tmp_path: Path) -> Any:
    register_plugin()
    entries = []
    for number, caption in enumerate(CAPTIONS):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        entries.append({"image": f"{number}.png", "caption": caption, "image_id": str(number)})
    (tmp_path / "train.json").write_text(json.dumps(entries))
    (tmp_path / "val.json").write_text(json.dumps([{**e, "caption": ["x"]} for e in entries]))
    annotations = {
        split: {"storage": str(tmp_path / f"{split}.json"), "url": "http://x.invalid"}
        for split in ("train", "val")
    }
    processors = {
        part: {"name": "msmedcap_image_train", "image_size": 32, "sam_image_size": 32}
        for part in ("train", "eval")
    }
    text = {"name": "msmedcap_caption", "lower": True}
    return OmegaConf.create(
        {
            "data_type": "images",
            "domain": "general",
            "build_info": {
                "annotations": {"train": annotations["train"]},
                "images": {"storage": str(tmp_path)},
            },
            "val_annotations": annotations["val"],
            "vis_processor": processors,
            "text_processor": {"train": text, "eval": text},
        }
    )


def _build(section: Any, name: str = "vg_caption", **augment: Any) -> Any:
    section = section.copy()
    if augment:
        section.vis_processor.train.augment = augment
    return build_foreign(name, registry.get_builder_class(name), section)


@pytest.mark.parametrize("name", ["vg_caption", "coco_caption"])
def test_pictures_and_captions_change_together(section: Any, name: str) -> None:
    data = _build(section, name, **FLIP, **STILL)["train"]
    plain = _build(section, name)["train"]
    assert plain[0]["text_input"] == "the left lung."
    told = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        same = data[0]["image"].equal(plain[0]["image"])
        told.add((data[0]["text_input"], same))
        assert data[2]["image"].equal(plain[2]["image"])  # a side that cannot be swapped
    assert told == {("the left lung.", True), ("the right lung.", False)}


def test_the_samples_own_random_numbers_decide(section: Any) -> None:
    data = _build(section, rotation=20, flip=True)["train"]
    processor = data.vis_processor
    data.set_epoch(3)
    picture, _ = processor.augment(
        processor.read(data[1]["image_path"]), CAPTIONS[1], sample_rng(0, 3, 1)
    )
    assert data[1]["image"].equal(processor(picture))
    assert not data[1]["image"].equal(processor(processor.read(data[1]["image_path"])))
    alone = [data[index]["image"] for index in range(len(data))]
    for workers in (0, 2):
        loader = DataLoader(data, batch_size=1, num_workers=workers, collate_fn=data.collater)
        assert all(batch["image"][0].equal(image) for batch, image in zip(loader, alone))
    data.set_epoch(4)
    assert not data[1]["image"].equal(alone[1])


def test_a_text_without_a_processor_follows_its_picture(section: Any) -> None:
    inner = _build(section, **FLIP, **STILL)["train"].inner
    data = ForeignDataset(inner, name="vg_caption", split="train", domain="general")
    told = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        told.add(data[0]["text_input"])
    assert told == {"The Left lung.", "The Right lung."}


def test_evaluation_is_never_augmented(section: Any) -> None:
    section.build_info.annotations.val = section.val_annotations
    section.build_info.annotations.test = section.val_annotations
    section.vis_processor.eval.augment = {"rotation": 45}
    data = _build(section, "coco_caption")["val"]
    processor = data.vis_processor
    image = data[0]["image"]
    assert image.equal(processor(processor.read(data[0]["image_path"])))


class OwnReader(CaptionDataset):  # type: ignore[misc]
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.zeros(3, 4, 4), "text_input": "Text."}


def test_what_opens_its_images_itself_is_refused(section: Any, tmp_path: Path) -> None:
    def wrap(split: str, **augment: Any) -> ForeignDataset:
        data = _build(section, **augment)["train"].inner
        files = [str(tmp_path / "train.json")]
        inner = OwnReader(data.vis_processor, data.text_processor, str(tmp_path), files)
        return ForeignDataset(inner, name="mine", split=split, domain="general")

    message = r"datasets\.mine\.vis_processor\.train\.augment would do nothing, as OwnReader opens"
    with pytest.raises(ConfigError, match=message):
        wrap("train", flip=True)
    assert wrap("val", flip=True)[0]["text_input"] == wrap("train")[0]["text_input"]


def test_the_configuration_asks_for_a_task_that_augments(section: Any) -> None:
    section.vis_processor.train.augment = {"flip": True}
    datasets = {"vg_caption": OmegaConf.to_container(section)}
    config = {"datasets": datasets, "run": {"feature_cache_gib": 0}, "model": {}}
    assert list(dataset_problems(config, {"model", "task", "runner"})) == []
    (problem,) = dataset_problems(config, {"model"})
    assert "neither the dataset's class nor the task is of this package" in problem
    config["run"] = {"feature_cache_gib": 2}
    (problem,) = dataset_problems(config, {"model", "task", "runner"})
    assert "run.feature_cache_gib is 2" in problem
