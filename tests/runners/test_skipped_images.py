"""Unreadable images in training: told once, counted, up to a ceiling; with real workers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.caption_datasets import MedCapTrainDataset
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.runners.data_summary import data_summary
from lavis_msmedcap.runners.loaders import train_loader
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.runners.skipped_images import SkippedImages
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask
from lavis_msmedcap.train import EXIT_WRONG_INPUT, guarded

CPU = torch.device("cpu")
COUNT = 12
BROKEN = (2, 7)


def vector(image: Image.Image) -> torch.Tensor:
    """An image as the vector that the tiny model takes."""
    return torch.linspace(-1, 1, 6) * image.getpixel((0, 0))[0] / 255


def dataset(folder: Path, **options: Any) -> MedCapTrainDataset:
    records = []
    for index in range(COUNT):
        path = folder / f"{index}.png"
        Image.new("RGB", (6, 5), (index * 20, 0, 0)).save(path)
        if index in BROKEN:
            path.write_bytes(path.read_bytes()[:50])
        records.append(
            MedCapRecord(str(path), ("CT (arrow)",), f"{index}", "train", None, "roco", "medical")
        )
    options = {"on_bad": "skip", "max_bad": 0.25, **options}
    return MedCapTrainDataset(records, vector, str, name="roco", domain="medical", **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_notes_reach_the_main_process_and_batches_stay_full(workers: int, tmp_path: Path, caplog):
    data = dataset(tmp_path)
    settings = RunSettings(batch_size_train=4, num_workers=workers)
    loader = train_loader({"roco": {"train": data}}, {"roco": "medical"}, settings, CPU)
    tally = SkippedImages({"roco": data})
    ids = []
    with caplog.at_level(logging.WARNING):
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)
            for batch in loader:
                tally.take(batch)
                assert "skipped" not in batch
                ids.append(batch["image_id"])
            tally.exchange()
    assert [len(found) for found in ids] == [4] * 6
    assert not {str(index) for index in BROKEN} & {i for found in ids for i in found}
    bad = {str(tmp_path / f"{index}.png") for index in BROKEN}
    facts = tally.facts()["roco"]
    assert set(facts["images"]) == bad
    assert facts["samples"] >= 4  # a stand-in may be the other broken image
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == 2
    assert all(any(path in line for line in told) for path in bad)
    assert all("another one takes its place" in line for line in told)
    assert tally.summary() == "images skipped because they cannot be read: roco 2 of 12"


def test_the_ceiling_names_files_and_cure(tmp_path: Path):
    data = dataset(tmp_path, max_bad=0.1)
    tally = SkippedImages({"roco": data})
    notes = [data[index]["skipped"][0] for index in BROKEN]
    tally.take({"skipped": notes[:1] * 2})
    with pytest.raises(DataError) as caught:
        tally.take({"skipped": notes[1:]})
    told = str(caught.value)
    assert "2 of 12 training images of roco cannot be read, at most 10.0% may be" in told
    assert f"{tmp_path / '2.png'} (" in told
    assert "msmedcap data check" in told
    assert "datasets.roco.max_bad" in told


class Cut(MixedSemanticPretrainTask):
    """Breaks off in a training step, counted from 1."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def train_step(self, model: Any, samples: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("power cut")
        return super().train_step(model, samples)


def runner(
    tiny: ModuleType, tmp_path: Path, data: MedCapTrainDataset, task: Any = None, **options: Any
) -> RunnerMSMedCap:
    run = {
        "output_dir": str(tmp_path / "out"),
        "max_epoch": 2,
        "batch_size_train": 4,
        "init_lr": 0.01,
        "device": "cpu",
        "valid_splits": [],
        "test_splits": [],
        "save_every_minutes": 1e-9,
        **options,
    }
    whole = OmegaConf.create({"scale": "demo", "model": {}, "datasets": {"roco": {}}, "run": run})
    config = SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )
    task = task or MixedSemanticPretrainTask()
    return RunnerMSMedCap(config, task, tiny.TinyModel(), {"roco": {"train": data}}, "job")


def test_a_run_writes_down_what_its_data_were(tiny: ModuleType, tmp_path: Path):
    data = dataset(tmp_path)
    data.facts = {"read": 13, "dropped": {"without caption": 1}}
    run = runner(tiny, tmp_path, data)
    path = run.output_dir / "data_summary.json"
    before = json.loads(path.read_text(encoding="utf-8"))["roco"]
    assert before == {**data.facts, "samples": {"train": COUNT}, "skipped": {}}
    run.train()
    after = json.loads(path.read_text(encoding="utf-8"))["roco"]
    assert set(after["skipped"]["images"]) == {str(tmp_path / f"{i}.png") for i in BROKEN}
    log = (run.output_dir / "log.txt").read_text(encoding="utf-8")
    assert log.count("image skipped, another one takes its place") == 2
    assert log.count("images skipped because they cannot be read: roco 2 of 12") == 2


def test_a_run_ends_at_the_ceiling(tiny: ModuleType, tmp_path: Path):
    with pytest.raises(DataError, match=r"at most 1\.0% may be skipped"):
        runner(tiny, tmp_path, dataset(tmp_path, max_bad=0.01)).train()


@pytest.mark.parametrize("step", range(2, 7))
def test_the_counts_survive_an_interruption(tiny: ModuleType, tmp_path: Path, step: int):
    data = dataset(tmp_path)
    whole = runner(tiny, tmp_path, data)
    whole.train()
    expected = (whole.output_dir / "data_summary.json").read_text(encoding="utf-8")
    cut = runner(tiny, tmp_path, data, Cut(step))
    with pytest.raises(RuntimeError, match="power cut"):
        cut.train()
    cut._open.lock.release()
    again = runner(tiny, tmp_path, data, resume="auto")
    assert again.output_dir == cut.output_dir
    again.train()
    assert (cut.output_dir / "data_summary.json").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_a_repaired_image_repeats_no_step(
    tiny: ModuleType, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
):
    data = dataset(tmp_path, on_bad="error")
    for index in BROKEN:
        Image.new("RGB", (6, 5), (index * 20, 0, 0)).save(tmp_path / f"{index}.png")
    whole = runner(tiny, tmp_path, data)
    whole.train()
    expected = read_checkpoint(whole.directory.checkpoint_last)[0]

    options = {"resume": "auto", "save_every_minutes": 60, "num_workers": workers}
    broken = runner(tiny, tmp_path, data, **options)
    sampler: Any = broken.train_loader.batch_sampler
    sampler.set_epoch(0)
    image = tmp_path / f"{list(sampler)[2][0]}.png"  # in the third batch of the first epoch
    content = image.read_bytes()
    image.write_bytes(b"no image")
    assert guarded(broken.train) == EXIT_WRONG_INPUT
    message = capsys.readouterr().err
    assert f"error: cannot read image {image}: not an image" in message
    assert "last good state: resume/step-000000002.safetensors" in message
    assert "go on with it: the same command" in message
    broken._open.lock.release()

    image.write_bytes(content)
    again = runner(tiny, tmp_path, data, **options)
    assert again.output_dir == broken.output_dir
    again.train()
    found = read_checkpoint(again.directory.checkpoint_last)[0]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    rows = again.directory.metrics.read_text().splitlines()[1:]
    assert [row.split(",")[:3] for row in rows[:2]] == [["1", "2", "8"], ["1", "3", "12"]]


def test_data_that_tell_nothing_have_their_sizes():
    assert data_summary({"vg": {"train": [1, 2], "val": None}}, {}) == {
        "vg": {"samples": {"train": 2}, "skipped": {}}
    }
