"""The look at evaluation images before training, on files with real damage."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.caption_datasets import MedCapEvalDataset
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.processors.image_processors import MSMedCapImageEvalProcessor
from lavis_msmedcap.runners.image_check import check_eval_images
from lavis_msmedcap.runners.loaders import eval_data
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.tasks.medical_captioning import MedicalCaptioningTask


class CountingProcessor(MSMedCapImageEvalProcessor):
    """Notes which images were read."""

    def __init__(self):
        super().__init__(64, 128)
        self.seen = []

    def read(self, image):
        self.seen.append(Path(image).name)
        return super().read(image)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(6):
        picture = Image.fromarray(noise.integers(0, 256, (40, 50, 3), np.uint8))
        picture.save(tmp_path / "images" / f"{number}.jpg")
    return tmp_path / "images"


def split(folder, most=None, processor=None):
    records = [
        MedCapRecord(str(path), ("A scan.",), path.stem, "val", None, "roco", "medical")
        for path in (folder / f"{number}.jpg" for number in range(6))
    ]
    processor = processor or CountingProcessor()
    dataset = MedCapEvalDataset(records, processor, str, name="roco", domain="medical")
    settings = RunSettings(num_workers=0, max_eval_samples=most)
    return eval_data({"roco": {"val": dataset}}, "val", settings, torch.device("cpu"))


def test_broken_images_are_named_before_training(folder):
    half = folder / "3.jpg"
    half.write_bytes(half.read_bytes()[:-300])
    (folder / "5.jpg").unlink()
    with pytest.raises(DataError, match=r"2 evaluation image\(s\)") as caught:
        check_eval_images([split(folder)])
    message = str(caught.value)
    assert f"{half} (" in message
    assert "truncated" in message
    assert f"{folder / '5.jpg'} (the file does not exist)" in message
    assert "msmedcap data check" in message


def test_only_what_will_be_evaluated_is_read(folder):
    (folder / "1.jpg").unlink()
    processor = CountingProcessor()
    check_eval_images([split(folder, 3, processor), split(folder, 3, processor)])
    assert sorted(processor.seen) == ["0.jpg", "2.jpg", "4.jpg"]


def test_sound_images_are_read_again_only_when_they_change(folder):
    check_eval_images([split(folder)])
    processor = CountingProcessor()
    os.utime(folder / "2.jpg", ns=(1, 1))
    check_eval_images([split(folder, processor=processor)])
    assert processor.seen == ["2.jpg"]


def test_a_damaged_cache_costs_a_second_look_only(folder):
    cache = folder.parent / "cache" / "eval_images.sqlite"
    cache.parent.mkdir()
    cache.write_bytes(b"no database" * 100)
    processor = CountingProcessor()
    check_eval_images([split(folder, processor=processor)])
    assert len(processor.seen) == 6


def test_embedded_data_are_not_looked_at(folder, monkeypatch):
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(folder.parent))
    folder.rename(folder.parent / "phantom")
    processor = CountingProcessor()
    check_eval_images([split(folder.parent / "phantom", processor=processor)])
    assert processor.seen == []


def test_training_does_not_begin_with_a_broken_image(folder, tiny, tmp_path):
    (folder / "5.jpg").write_bytes(b"<html>")
    train = tiny.TinyDataset("roco", "medical", 8)
    sections = {
        "model": {"arch": "tiny"},
        "datasets": {"roco": {"domain": "medical"}},
        "run": {
            "output_dir": str(tmp_path / "out"),
            "max_epoch": 1,
            "batch_size_train": 4,
            "batch_size_eval": 4,
            "init_lr": 0.05,
            "device": "cpu",
            "valid_splits": ["val"],
        },
    }
    whole = OmegaConf.create(sections)
    cfg = SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )
    datasets = {"roco": {"train": train, "val": split(folder).dataset.datasets[0]}}
    with pytest.raises(DataError, match=r"5\.jpg \(not an image but a web page"):
        RunnerMSMedCap(cfg, MedicalCaptioningTask(), tiny.TinyModel(), datasets, "job")
    assert not (tmp_path / "out").exists()
