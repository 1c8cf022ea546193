from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap import phantom
from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.data_convert.plan import ShardSettings
from lavis_msmedcap.data_convert.shards import write_shards
from lavis_msmedcap.datasets.blocks import Blocks
from lavis_msmedcap.datasets.builders import register_name
from lavis_msmedcap.datasets.mixing import BatchPlan, JoinedDataset, PlannedBatchSampler
from lavis_msmedcap.datasets.records import MedCapRecord

NAME = "webdataset_caption"


def _config(name=NAME, kind="demo", **overrides):
    path = registry.get_builder_class(name).default_config_path(kind)
    return OmegaConf.merge(OmegaConf.load(path).datasets[name], overrides)


def _build(config, name=NAME):
    return registry.get_builder_class(name)(config).build_datasets()


def _make(root: Path, source: str, split: str, count: int, domain="medical"):
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = root / f"{source}_{split}_{number}.png"
        Image.new("RGB", (12, 9), (number, len(split), len(source))).save(path)
        caption = f"Scan {number}."
        yield MedCapRecord(str(path), (caption,), path.stem, split, "PMC1", source, domain)


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Two sources, three splits, three samples in a shard; the images themselves are gone."""
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    sizes = {("roco", "train"): 7, ("roco", "val"): 2, ("medicat", "train"): 4, ("roco", "test"): 3}
    records = [
        record
        for (source, split), count in sizes.items()
        for record in _make(tmp_path / "files", source, split, count)
    ]
    write_shards(records, tmp_path / "shards", ShardSettings(samples=3))
    shutil.rmtree(tmp_path / "files")
    return tmp_path / "shards"


def _lengths(datasets):
    return {split: len(data) for split, data in datasets.items()}


def test_a_folder_holds_all_splits(shards) -> None:
    datasets = _build(_config(build_info={"root": str(shards)}))
    assert _lengths(datasets) == {"train": 11, "val": 2, "test": 3}
    for split, data in datasets.items():
        for record in data.records:
            assert record.split == split
            number = int(record.image_id.rpartition("_")[2])
            assert record.captions == (f"Scan {number}.",)
        assert data[0]["text_input"] == data.records[0].captions[0].lower()
    assert datasets["test"][0]["references"] == list(datasets["test"].records[0].captions)


def test_splits_filters_and_caps(shards) -> None:
    config = _config(
        build_info={"root": f"{shards}/roco-*.tar"}, splits=["train"], max_samples={"train": 5}
    )
    datasets = _build(config)
    assert _lengths(datasets) == {"train": 5}
    assert {record.source for record in datasets["train"].records} == {"roco"}


def test_shards_by_split(shards) -> None:
    places = {
        "train": [f"{shards}/roco-train-{{000000..000002}}.tar", f"{shards}/medicat-train-*.tar"],
        "test": f"{shards}/roco-test-000000.tar",
    }
    datasets = _build(_config(build_info={"shards": places}, splits=["train", "test"]))
    assert _lengths(datasets) == {"train": 11, "test": 3}


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"root": "/nowhere/shards"}, r"datasets\.webdataset_caption\.build_info\.root: no shards"),
        ({"root": None, "shards": None}, "names no shards; set root"),
        ({"shards": {"val": "/nowhere/{0..3}.tar"}}, r"build_info\.shards\.val: no shards at /now"),
    ],
)
def test_missing_shards_are_told_before_anything_is_built(info, message) -> None:
    config = _config(kind="default", build_info=info)
    (problem,) = registry.get_builder_class(NAME).missing_inputs(config)
    with pytest.raises(DataError, match=message) as caught:
        _build(config)
    assert str(caught.value) == problem


def test_a_shard_under_two_splits_is_refused(shards) -> None:
    places = {"train": f"{shards}/roco-train-*.tar", "val": f"{shards}/roco-train-000001.tar"}
    with pytest.raises(DataError, match=r"000001\.tar is named by .*train and again by .*val"):
        _build(_config(build_info={"shards": places}, splits=["train", "val"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"shuffle": "none"}, "shuffle is 'none'; expected one of full, shards"),
        ({"shuffle_window": 0}, "shuffle_window is 0"),
        ({"build_info": {"shards": {"dev": "x.tar"}}}, "dev"),
    ],
)
def test_impossible_values_are_refused(shards, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        _build(_config(**overrides))


def test_reads_stay_local_if_asked_for(shards) -> None:
    config = _config(build_info={"root": str(shards)}, shuffle="shards", shuffle_window=2)
    train = _build(config)["train"]
    assert train.blocks == Blocks((3, 1, 3, 3, 1), 2)  # medicat in two shards, roco in three
    plain = _build(_config(build_info={"root": str(shards)}))["train"]
    assert not hasattr(plain, "blocks")
    joined = JoinedDataset({NAME: train})
    plan = BatchPlan(joined.specs(), 2, seed=0)
    sampler = PlannedBatchSampler(plan, joined)
    whole = list(sampler)
    sampler.set_epoch(0, start_step=2)
    assert list(sampler) == whole[2:]
    assert len({index for batch in whole for index in batch}) == 10


def test_shards_of_general_images_are_a_data_set_of_their_own(shards, tmp_path) -> None:
    general = list(_make(tmp_path / "files", "coco", "train", 4, "general"))
    write_shards(general, tmp_path / "coco", ShardSettings())
    info = {"root": str(tmp_path / "coco")}
    with pytest.raises(DataError, match=r"is a general image.*builder: webdataset_caption"):
        _build(_config(build_info=info, splits=["train"]))
    cls = register_name("general_shards", NAME)
    config = _config(build_info=info, splits=["train"], domain="general")
    assert cls(config).build_datasets()["train"].domain == "general"


def test_images_that_are_gone_count_as_missing_by_shard(shards) -> None:
    config = _config(build_info={"root": str(shards)})
    (shards / "roco-val-000000.tar").unlink()
    with pytest.raises(DataError, match="the val split of webdataset_caption is empty"):
        _build(config)


def test_the_demo_converts_the_embedded_data(tmp_path, monkeypatch) -> None:
    sizes = phantom.PhantomSizes(
        coco_train=6, coco_val=2, roco_train=8, roco_validation=3, roco_test=4, medicat=90
    )
    make = functools.partial(phantom.ensure_phantom, tmp_path, sizes=sizes)
    monkeypatch.setattr(phantom, "ensure_phantom", make)
    datasets = _build(_config())
    path = registry.get_builder_class("roco").default_config_path("demo")
    expected = _build(OmegaConf.load(path).datasets.roco, "roco")
    assert _lengths(datasets) == _lengths(expected)
    for split, data in datasets.items():
        by_id = {record.image_id: number for number, record in enumerate(expected[split].records)}
        for number, record in enumerate(data.records):
            twin = expected[split].records[by_id[record.image_id]]
            assert replace(record, image=twin.image) == twin
            same = expected[split][by_id[record.image_id]]["image"]
            assert np.array_equal(data[number]["image"], same)
    assert json.loads((make() / "shards/roco/report.json").read_text())
    monkeypatch.setattr("lavis_msmedcap.data_convert.plan._VERSION", 10**6)
    assert _lengths(_build(_config())) == _lengths(expected)  # old shards give way to new ones
