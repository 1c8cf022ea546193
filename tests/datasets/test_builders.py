from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from lavis.common.registry import registry
from lavis.datasets.builders import load_dataset
from omegaconf import OmegaConf

from lavis_msmedcap import phantom
from lavis_msmedcap.common.config_check import check
from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.datasets import builders, places
from lavis_msmedcap.imaging.views import unpack_views

NAMES = ["coco2014_caption", "roco", "medicat", "rocov2", "caption_table"]
SMALL = phantom.PhantomSizes(
    coco_train=6,
    coco_val=2,
    roco_train=8,
    roco_validation=3,
    roco_test=4,
    medicat=90,
    rocov2_train=7,
    rocov2_valid=3,
    rocov2_test=2,
    table=40,
)


def _config(name, kind="default", **overrides):
    path = registry.get_builder_class(name).default_config_path(kind)
    return OmegaConf.merge(OmegaConf.load(path).datasets[name], overrides)


def _build(name, config):
    return registry.get_builder_class(name)(config).build_datasets()


def _coco(tree, **overrides):
    place = {
        "annotations": {"train": {"storage": str(tree / "annotations/captions_train2014.json")}},
        "images": {"storage": str(tree)},
    }
    return _config("coco2014_caption", build_info=place, **overrides)


def _roco(tree, **overrides):
    return _config("roco", build_info={"root": str(tree)}, **overrides)


def _medicat(tree, **overrides):
    return _config("medicat", build_info={"root": str(tree)}, **overrides)


@pytest.fixture(scope="module")
def phantom_root(tmp_path_factory):
    return phantom.ensure_phantom(tmp_path_factory.mktemp("phantom"), sizes=SMALL)


@pytest.fixture
def small_phantom(phantom_root, monkeypatch):
    monkeypatch.setattr(phantom, "ensure_phantom", lambda **_: phantom_root)
    return phantom_root


# --- packaged configurations ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["default", "paper", "demo"])
def test_packaged_configurations_hold_their_declared_keys(name, kind):
    cls = registry.get_builder_class(name)
    path = cls.default_config_path(kind)
    assert Path(path).is_absolute()
    config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert list(config["datasets"]) == [name]
    settings = config["datasets"][name]
    assert check(settings, cls.CONFIG_KEYS) == []
    assert settings["domain"] == ("general" if name == "coco2014_caption" else "medical")
    assert settings["min_words"] == (1 if name in ("coco2014_caption", "caption_table") else 3)
    sizes = (64, 128) if kind == "demo" else (224, 1024)
    for mode in ("train", "eval"):
        vis, text = settings["vis_processor"][mode], settings["text_processor"][mode]
        assert (vis["image_size"], vis["sam_image_size"]) == sizes
        assert text.get("lower", False) is (kind == "demo")
        assert check(vis, registry.get_processor_class(vis["name"]).CONFIG_KEYS) == []
        assert check(text, registry.get_processor_class(text["name"]).CONFIG_KEYS) == []


def test_paper_sizes():
    assert _config("roco").max_samples.train == 60_000
    assert _config("medicat").max_samples.test == 50_000
    assert list(_config("coco2014_caption").build_info.annotations) == ["train"]


# --- embedded data -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_embedded_data_go_through_the_readers(name, small_phantom):
    datasets = _build(name, _config(name, "demo"))
    facts = [json.loads(line) for line in (small_phantom / "facts.jsonl").open(encoding="utf-8")]
    by_id = {fact["image_id"]: fact for fact in facts if fact["dataset"] == name}
    seen = {}
    for split, dataset in datasets.items():
        for record in dataset.records:
            fact = by_id[record.image_id]
            assert fact["split"] in (split, None)
            assert record.captions == tuple(dict.fromkeys(map(str.strip, fact["captions"])))
            assert record.group_id == fact["group_id"]
            assert seen.setdefault(record.group_id or record.image_id, split) == split
        sample = dataset[0]
        views = unpack_views(sample["image"])
        assert views.clip.shape[-1] == 64
        assert views.sam.shape[-1] == 128
        assert sample["text_input"] == sample["text_input"].lower()
    expected = {"train", "val"} if name == "coco2014_caption" else {"train", "val", "test"}
    assert set(datasets) == expected
    assert sum(map(len, datasets.values())) == len(by_id)


def test_lavis_load_dataset_builds_the_demo(small_phantom):
    path = registry.get_builder_class("roco").default_config_path("demo")
    datasets = load_dataset("roco", cfg_path=path)
    assert {split: len(data) for split, data in datasets.items()} == {
        "train": 8,
        "val": 3,
        "test": 4,
    }


@pytest.mark.parametrize("main", [True, False])
def test_only_the_first_process_makes_them_before_the_barrier(monkeypatch, main):
    calls = []

    def make(sizes=phantom.DEFAULT):
        calls.append("further" if sizes == phantom.FURTHER else "default")
        return "/nowhere"

    monkeypatch.setattr(phantom, "ensure_phantom", make)
    monkeypatch.setattr(places, "barrier", lambda: calls.append("barrier"))
    monkeypatch.setattr(places, "is_main_process", lambda: main)
    places.make_phantom({"root": "phantom:roco", "table": ["phantom:table/captions.csv", "x.csv"]})
    assert calls == (["default", "further", "barrier"] if main else ["barrier"])


@pytest.mark.parametrize("name", NAMES)
def test_looking_for_missing_inputs_makes_nothing(name, monkeypatch):
    def fail():
        raise AssertionError("made the embedded data")

    monkeypatch.setattr(phantom, "ensure_phantom", fail)
    cls = registry.get_builder_class(name)
    assert cls.missing_inputs(_config(name, "demo")) == []


# --- real trees ----------------------------------------------------------------------------------


def test_coco(coco_tree, caplog):
    with caplog.at_level(logging.INFO, logger=builders.__name__):
        datasets = _build("coco2014_caption", _coco(coco_tree))
    assert {split: len(data) for split, data in datasets.items()} == {"train": 3}
    assert datasets["train"].domain == "general"
    lines = [r.getMessage() for r in caplog.records if r.name == builders.__name__]
    assert lines == [
        "coco2014_caption: read 4, kept 3 (train 3) | dropped 1: 1 without caption | "
        "1 empty captions beside others, left out",
    ]


def test_coco_splits_may_be_null_and_have_several_files(coco_tree):
    file = str(coco_tree / "annotations/captions_train2014.json")
    config = _coco(coco_tree)
    config.build_info.annotations = {
        "train": {"storage": [file, file]},
        "val": None,
        "test": {"storage": file},
    }
    datasets = _build("coco2014_caption", config)
    assert {split: len(data) for split, data in datasets.items()} == {"train": 3, "test": 3}
    assert datasets["test"][0]["references"] == ["A bowl of food.", "Lunch on a table."]


def test_roco(roco_tree, caplog):
    with caplog.at_level(logging.INFO, logger=builders.__name__):
        datasets = _build("roco", _roco(roco_tree, ratio=2))
    assert {split: len(data) for split, data in datasets.items()} == {
        "train": 3,
        "val": 2,
        "test": 2,
    }
    assert datasets["train"].ratio == 2.0
    assert datasets["test"][0]["references"] == ["Scan."]
    assert sum(r.name == builders.__name__ for r in caplog.records) == 1


def test_roco_splits_and_limits(roco_tree):
    datasets = _build("roco", _roco(roco_tree, splits=["train"], max_samples={"train": 2}))
    assert {split: len(data) for split, data in datasets.items()} == {"train": 2}
    both = _roco(roco_tree, splits=["train"], kinds=["radiology", "non-radiology"])
    assert len(_build("roco", both)["train"]) == 4


def test_medicat_splits_by_article(medicat_tree):
    everything = {"train": 1.0, "val": 0.0, "test": 0.0}
    config = _medicat(medicat_tree, split_fractions=everything, splits=["train"])
    assert len(_build("medicat", config)["train"]) == 4
    config.filters.radiology = True
    assert len(_build("medicat", config)["train"]) == 3


def test_relative_places(roco_tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert builders.locate("roco") == tmp_path / "roco"
    monkeypatch.chdir("/")
    monkeypatch.setitem(registry.mapping["paths"], "cache_root", str(tmp_path))
    assert builders.locate("roco") == tmp_path / "roco"
    assert builders.locate("nowhere").is_absolute()
    assert str(builders.locate("nowhere")) == "/nowhere"


def test_kaggles_copy_of_roco_is_detected_unless_told(tmp_path, make):
    folder = tmp_path / "all_data/train/radiology"
    rows = ["id,name,caption", "ROCO_1,PMC1_a.jpg,A CT scan.", "ROCO_2,PMC1_b.jpg,XXX."]
    make.write(folder / "radiologytraindata.csv", "\n".join(rows))
    config = _roco(tmp_path, splits=["train"])
    roco = registry.get_builder_class("roco")
    (problem,) = roco.missing_inputs(config)
    assert f"no images at {folder / 'images'}" in problem
    for name in ("PMC1_a.jpg", "PMC1_b.jpg"):
        make.save(folder / "images" / name)
    assert roco.missing_inputs(config) == []
    (record,) = _build("roco", config)["train"].records  # the other caption is too short
    assert (record.image_id, record.group_id) == ("ROCO_1", "PMC1")
    assert len(_build("roco", _roco(tmp_path, splits=["train"], min_words=1))["train"]) == 2
    config.build_info.format = "tree"
    (problem,) = roco.missing_inputs(config)
    assert "train split of ROCO not found" in problem
    (problem,) = roco.missing_inputs(_roco(tmp_path, splits=["test"]))
    assert "test split of ROCO not found" in problem


def test_rocov2_on_its_own_files(tmp_path, make):
    make.write(tmp_path / "train_captions.csv", "ID,Caption\nx_1,A CT scan.\nx_2,XXX.\n")
    make.write(tmp_path / "valid_captions.csv", "ID,Caption\ny_1,XXX.\n")
    config = _config("rocov2", build_info={"root": str(tmp_path)}, splits=["train", "val"])
    rocov2 = registry.get_builder_class("rocov2")
    assert len(rocov2.missing_inputs(config)) == 2
    assert "no images at" in rocov2.missing_inputs(config)[1]
    for name in ("train_images/train/x_1", "train_images/train/x_2", "valid_images/valid/y_1"):
        make.save(tmp_path / f"{name}.jpg")
    assert rocov2.missing_inputs(config) == []
    datasets = _build("rocov2", config)
    assert [r.image_id for r in datasets["train"].records] == ["x_1"]
    assert datasets["val"][0]["references"] == ["XXX."]


# --- what is wrong is said, with its cure ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("coco2014_caption", ["annotations.train.storage", "images.storage"]),
        ("roco", ["root"]),
        ("medicat", ["root"]),
        ("rocov2", ["root"]),
    ],
)
def test_missing_inputs_at_paper_scale(name, keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.mapping["paths"], "cache_root", str(tmp_path / "cache"))
    config = _config(name, "paper")
    problems = registry.get_builder_class(name).missing_inputs(config)
    assert len(problems) == len(keys)
    for problem, key in zip(problems, keys):
        assert f"datasets.{name}.build_info.{key}" in problem
        assert str(tmp_path / "data" / name.split("2014")[0]) in problem
    with pytest.raises(DataError) as caught:
        _build(name, config)
    assert str(caught.value) == "\n".join(problems)


def test_missing_parts_of_a_tree(roco_tree, medicat_tree):
    roco, medicat = (registry.get_builder_class(name) for name in ("roco", "medicat"))
    assert roco.missing_inputs(_roco(roco_tree)) == []
    assert medicat.missing_inputs(_medicat(medicat_tree)) == []
    (roco_tree / "data/val").mkdir()
    (roco_tree / "data/validation").rename(roco_tree / "data/moved")
    (roco_tree / "data/val").rmdir()
    (roco_tree / "data/test/radiology/captions.txt").unlink()
    images = roco_tree / "data/train/radiology/images"
    images.rename(images.with_name("elsewhere"))
    problems = roco.missing_inputs(_roco(roco_tree))
    assert len(problems) == 3
    assert "no images at" in problems[0]
    assert "the val split" in problems[1]
    assert "no captions at" in problems[2]
    figures = medicat_tree / "release/figures"
    figures.rename(figures.with_name("elsewhere"))
    (problem,) = medicat.missing_inputs(_medicat(medicat_tree))
    assert f"no figures at {figures}" in problem


def test_missing_images_in_training_and_evaluation(roco_tree):
    (roco_tree / "data/train/radiology/images/ROCO_00001.jpg").unlink()
    (roco_tree / "data/test/radiology/images/ROCO_00022.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images .*datasets\.roco\.max_missing$"):
        _build("roco", _roco(roco_tree, splits=["train"]))
    assert len(_build("roco", _roco(roco_tree, splits=["train"], max_missing=0.4))["train"]) == 2
    with pytest.raises(DataError, match=r"datasets\.roco\.max_missing_eval$"):
        _build("roco", _roco(roco_tree, splits=["test"], max_missing=1.0))
    some = _build("roco", _roco(roco_tree, splits=["test"], max_missing_eval=0.5))
    assert [r.image_id for r in some["test"].records] == ["ROCO_00021"]


def test_an_empty_split_is_an_error(medicat_tree):
    config = _medicat(medicat_tree, filters={"radiology": False, "scope": True})
    with pytest.raises(DataError, match="the train split of medicat is empty"):
        _build("medicat", config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_samples": {"tran": 5}}, "train"),
        ({"kinds": ["radiolgy"]}, "radiology"),
        ({"splits": ["dev"]}, "splits"),
        ({"ratio": -1}, "ratio"),
        ({"max_missing": 5}, "max_missing"),
        ({"domain": "medicine"}, "medical"),
    ],
)
def test_impossible_values_are_refused(roco_tree, overrides, message):
    with pytest.raises(ConfigError, match=message):
        _build("roco", _roco(roco_tree, **overrides))
