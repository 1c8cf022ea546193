"""Stock builders of LAVIS, on small files in LAVIS' formats, beside builders of this package."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import ImageFile
from torch.utils.data import Dataset, IterableDataset

from lavis_msmedcap.common.errors import BadImageError, ConfigError, DataError
from lavis_msmedcap.datasets.builders import foreign
from lavis_msmedcap.datasets.builders.foreign import ForeignDataset, build_foreign
from lavis_msmedcap.datasets.skipping import SKIPPED
from lavis_msmedcap.run_config import register_plugin
from lavis_msmedcap.run_relations.datasets import dataset_problems
from lavis_msmedcap.runners.domains import dataset_domains
from lavis_msmedcap.runners.loaders import TRAIN, eval_data, train_loader
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.tasks._base import MSMedCapTask

CPU = torch.device("cpu")
VIEWS = {"image_size": 64, "sam_image_size": 128}
PROCESSORS = {
    "vis_processor": {
        "train": {"name": "msmedcap_image_train", **VIEWS},
        "eval": {"name": "msmedcap_image_eval", **VIEWS},
    },
    "text_processor": {
        "train": {"name": "msmedcap_caption", "lower": True},
        "eval": {"name": "msmedcap_caption", "lower": True},
    },
}
SAMPLE = {"image", "text_input", "image_id", "instance_id", "dataset", "domain", "image_path"}


def _default(name, **overrides):
    register_plugin()
    path = registry.get_builder_class(name).default_config_path()
    defaults = next(iter(OmegaConf.load(path).datasets.values()))
    return OmegaConf.merge(defaults, PROCESSORS, {"domain": "general"}, overrides)


@pytest.fixture
def karpathy(tmp_path, make):
    """What `coco_caption` reads: one entry per caption to train on, five references to evaluate."""
    images = tmp_path / "images"
    train, val = [], []
    for number in range(6):
        name = f"val2014/COCO_val2014_{number:012d}.jpg"
        make.save(images / name, seed=number)
        for text in ("A street ", "A red bus."):
            train.append({"caption": text, "image": name, "image_id": f"coco_{number}"})
        val.append(
            {"image": name, "caption": [f"Scene {number}, seen {i} times." for i in "12345"]}
        )
    make.write(tmp_path / "train.json", json.dumps(train))
    make.write(tmp_path / "val.json", json.dumps(val))
    return tmp_path


def _coco(karpathy, **overrides):
    info = {
        "annotations": {
            "train": {"url": "https://nowhere.invalid/x", "storage": str(karpathy / "train.json")},
            "val": {"url": "https://nowhere.invalid/y", "storage": str(karpathy / "val.json")},
            "test": None,
        },
        "images": {"storage": str(karpathy / "images")},
    }
    return _default("coco_caption", build_info=info, **overrides)


@pytest.fixture
def visual_genome(tmp_path, make):
    """What `vg_caption` reads: pairs without any identifier."""
    entries = []
    for number in range(4):
        make.save(tmp_path / "vg" / f"{number}.jpg", seed=number)
        entries += [{"image": f"{number}.jpg", "caption": f"region {i}"} for i in range(2)]
    make.write(tmp_path / "vg.json", json.dumps(entries))
    info = {
        "annotations": {
            "train": {"url": "https://nowhere.invalid/z", "storage": str(tmp_path / "vg.json")}
        },
        "images": {"storage": str(tmp_path / "vg")},
    }
    return _default("vg_caption", build_info=info, ratio=0.5)


def _build(sections):
    task = MSMedCapTask()
    return task.build_datasets(SimpleNamespace(datasets_cfg=OmegaConf.create(sections)))


def test_stock_builders_train_beside_ours_in_batches_of_one_domain(
    karpathy, visual_genome, roco_tree
):
    roco = OmegaConf.load(registry.get_builder_class("roco").default_config_path("demo"))
    roco = OmegaConf.merge(roco.datasets.roco, {"build_info": {"root": str(roco_tree)}})
    sections = {"coco_caption": _coco(karpathy), "vg_caption": visual_genome, "roco": roco}
    datasets = _build(sections)
    domains = dataset_domains(datasets, sections)
    assert domains == {"coco_caption": "general", "vg_caption": "general", "roco": "medical"}
    settings = RunSettings(batch_size_train=3, num_workers=0)
    loader = train_loader(datasets, domains, settings, CPU)
    plan = loader.batch_sampler.plan
    assert [(spec.name, spec.length, spec.ratio) for spec in plan.datasets] == [
        ("coco_caption", 12, 1.0),
        ("vg_caption", 8, 0.5),
        ("roco", 3, 1.0),
    ]
    seen = set()
    for batch in loader:
        assert set(batch) == SAMPLE
        assert len(set(batch["domain"])) == 1
        assert batch["image"].shape[0] == 3
        assert all(isinstance(i, str) for i in batch["image_id"])
        seen |= set(zip(batch["dataset"], batch["text_input"]))
    assert ("coco_caption", "a street") in seen or ("coco_caption", "a red bus.") in seen
    assert {name for name, _ in seen} == {"coco_caption", "vg_caption", "roco"}


def test_evaluation_has_references_and_knows_what_to_expect(karpathy):
    datasets = _build({"coco_caption": _coco(karpathy)})
    data = eval_data(datasets, "val", RunSettings(batch_size_eval=4, num_workers=0), CPU)
    ids = [f"COCO_val2014_{number:012d}" for number in range(6)]
    assert data.expected == [("coco_caption", image_id) for image_id in ids]
    batches = list(data.loader)
    assert set(batches[0]) == {*SAMPLE, "references"}
    assert [i for batch in batches for i in batch["image_id"]] == ids
    assert batches[0]["references"][1] == [f"Scene 1, seen {i} times." for i in "12345"]
    assert batches[0]["text_input"][1] == "scene 1, seen 1 times."
    assert batches[0]["image_path"][1] == str(
        karpathy / "images" / "val2014" / "COCO_val2014_000000000001.jpg"
    )


def test_training_ids_are_the_annotations_own_and_records_need_no_image(karpathy):
    dataset = _build({"coco_caption": _coco(karpathy)})["coco_caption"][TRAIN]
    assert dataset[2]["image_id"] == "coco_1"
    assert [record.image_id for record in dataset.records][:3] == ["coco_0", "coco_0", "coco_1"]
    assert dataset.records[2].captions == ("A street",)
    assert dataset.records[2].domain == "general"
    dataset.set_epoch(3)


def test_a_local_file_is_read_in_place_however_it_changes(karpathy, monkeypatch, make, tmp_path):
    """LAVIS copies it into its cache once and reads the copy ever after."""
    cache = tmp_path / "cache"
    monkeypatch.setitem(registry.mapping["paths"], "cache_root", str(cache))
    config = _coco(karpathy)
    entry = config.build_info.annotations.train
    entry.url, entry.storage = str(karpathy / "train.json"), "coco/annotations/mine.json"
    assert (
        len(
            build_foreign("coco_caption", registry.get_builder_class("coco_caption"), config)[TRAIN]
        )
        == 12
    )
    make.write(
        karpathy / "train.json", json.dumps(json.loads((karpathy / "train.json").read_text())[:5])
    )
    assert (
        len(
            build_foreign("coco_caption", registry.get_builder_class("coco_caption"), config)[TRAIN]
        )
        == 5
    )
    assert not cache.exists()
    assert entry.storage == "coco/annotations/mine.json"


def test_a_broken_image_is_named(karpathy):
    dataset = _build({"coco_caption": _coco(karpathy)})["coco_caption"]["val"]
    broken = karpathy / "images" / "val2014" / "COCO_val2014_000000000003.jpg"
    broken.write_bytes(b"<html>")
    with pytest.raises(BadImageError, match=r"COCO_val2014_000000000003\.jpg"):
        dataset[3]


@pytest.mark.parametrize("workers", [0, 1])
def test_half_an_image_and_a_missing_one_are_skipped_and_noted(
    visual_genome, tmp_path, make, monkeypatch, workers
):
    """LAVIS lets Pillow fill truncated files with grey, in the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (tmp_path / "vg" / "1.jpg").write_bytes(make.truncated_jpeg())
    (tmp_path / "vg" / "2.jpg").unlink()
    settings = RunSettings(batch_size_train=4, num_workers=workers)
    datasets = _build({"vg_caption": {**visual_genome, "max_bad": 0.5, "ratio": 1.0}})
    assert datasets["vg_caption"][TRAIN].max_bad == 0.5
    loader = train_loader(datasets, {"vg_caption": "general"}, settings, CPU)
    batches = list(loader)
    notes = {note.image: note.reason for batch in batches for note in batch.get(SKIPPED, ())}
    assert set(notes) == {str(tmp_path / "vg" / "1.jpg"), str(tmp_path / "vg" / "2.jpg")}
    assert "truncated" in notes[str(tmp_path / "vg" / "1.jpg")]
    assert notes[str(tmp_path / "vg" / "2.jpg")] == "the file does not exist"
    used = {path for batch in batches for path in batch["image_path"]}
    assert used == {str(tmp_path / "vg" / "0.jpg"), str(tmp_path / "vg" / "3.jpg")}
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_half_an_image_is_an_error_where_asked_for_and_in_evaluation(
    visual_genome, karpathy, tmp_path, make, monkeypatch
):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (tmp_path / "vg" / "0.jpg").write_bytes(make.truncated_jpeg())
    strict = _build({"vg_caption": {**visual_genome, "on_bad": "error"}})["vg_caption"][TRAIN]
    with pytest.raises(BadImageError, match="truncated"):
        strict[0]
    broken = karpathy / "images" / "val2014" / "COCO_val2014_000000000000.jpg"
    broken.write_bytes(make.truncated_jpeg())
    with pytest.raises(BadImageError, match="truncated"):
        _build({"coco_caption": _coco(karpathy)})["coco_caption"]["val"][0]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_what_to_do_about_bad_images_is_checked(visual_genome):
    with pytest.raises(
        ConfigError, match=r"vg_caption\.on_bad is 'ignore'; expected one of skip, error"
    ):
        _build({"vg_caption": {**visual_genome, "on_bad": "ignore"}})


def test_a_folder_without_images_stops_training(visual_genome, tmp_path):
    for image in (tmp_path / "vg").iterdir():
        image.unlink()
    dataset = _build({"vg_caption": visual_genome})["vg_caption"][TRAIN]
    with pytest.raises(DataError, match=r"8 image\(s\) of vg_caption in a row cannot be read"):
        dataset[0]


def test_without_an_image_processor_the_key_is_named(karpathy):
    config = _coco(karpathy)
    del config["vis_processor"]
    dataset = _build({"coco_caption": config})["coco_caption"][TRAIN]
    with pytest.raises(DataError, match=r"coco_caption\.vis_processor\.train\.name=msmedcap_image"):
        dataset[0]


# --- datasets of no known shape ------------------------------------------------------------------


class Pairs(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


def _wrap(inner, split="train"):
    return ForeignDataset(inner, name="mine", split=split, domain="medical")


def test_samples_alone_are_enough():
    image = torch.zeros(3, 4, 4)
    train = _wrap(Pairs([{"image": image, "text_input": "Text.", "image_id": 7}]))
    assert (train[0]["image_id"], train[0]["text_input"], train.records) == ("7", "Text.", None)
    sample = {"image": image, "text_input": "Text.", "references": ["Text."]}
    assert _wrap(Pairs([sample]), "val")[0]["references"] == ["Text."]
    with pytest.raises(DataError, match=r"sample 0 of datasets\.mine \(val\) has no reference"):
        _wrap(Pairs([{"image": image, "text_input": "Text."}]), "val")[0]
    with pytest.raises(DataError, match="no caption"):
        _wrap(Pairs([{"image": image}]))[0]


def test_what_cannot_be_used_is_refused_when_built():
    with pytest.raises(DataError, match="stream without a length"):
        _wrap(Stream())
    questions = Pairs([{}])
    questions.annotation = [{"question": "Why?", "answer": "So."}]
    with pytest.raises(DataError, match="has no captions; its annotations have question, answer"):
        _wrap(questions)


# --- configuration -------------------------------------------------------------------------------


def _problems(settings):
    run = {"valid_splits": ["val"]}
    config = {"datasets": {"vg_caption": settings}, "run": run, "model": {}}
    return list(dataset_problems(config, {"model", "task", "runner"}))


def test_the_configuration_is_checked_before_anything_is_built(karpathy):
    sound = OmegaConf.to_container(_coco(karpathy))
    assert _problems(sound) == []
    (problem,) = _problems({**sound, "domain": "medicine"})
    assert "datasets.vg_caption.domain is 'medicine'; expected general or medical" in problem
    (problem,) = _problems({key: value for key, value in sound.items() if key != "domain"})
    assert "domain is missing" in problem
    train_only = {"vis_processor": {"train": PROCESSORS["vis_processor"]["train"]}}
    (problem,) = _problems({**sound, **train_only})
    assert "datasets.vg_caption.vis_processor.eval is missing" in problem
    (problem,) = _problems({**sound, "ratio": -1})
    assert "ratio is -1" in problem


def test_an_unknown_domain_stops_the_runner(karpathy):
    config = _coco(karpathy, domain="medicine")
    with pytest.raises(ConfigError, match=r"coco_caption\.domain is 'medicine'"):
        dataset_domains(_build({"coco_caption": config}), {"coco_caption": config})


def test_our_builders_are_not_wrapped(roco_tree):
    roco = OmegaConf.load(registry.get_builder_class("roco").default_config_path("demo"))
    roco = OmegaConf.merge(roco.datasets.roco, {"build_info": {"root": str(roco_tree)}})
    datasets = _build({"roco": roco})["roco"]
    assert not any(isinstance(data, foreign.ForeignDataset) for data in datasets.values())
