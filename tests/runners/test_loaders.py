from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.runners.domains import check_domains, dataset_domains
from lavis_msmedcap.runners.loaders import (
    EvalBatchSampler,
    check_splits,
    describe_plan,
    eval_data,
    every_batch_trains_all,
    spread,
    train_loader,
)
from lavis_msmedcap.runners.settings import RunSettings

CPU = torch.device("cpu")


@given(
    lengths=st.lists(st.integers(1, 23), min_size=1, max_size=3),
    batch_size=st.integers(1, 6),
    world_size=st.integers(1, 4),
)
def test_ranks_stay_in_step_and_nothing_is_lost(
    lengths: list[int], batch_size: int, world_size: int
):
    segments, start = [], 0
    for length in lengths:
        segments.append(list(range(start, start + length)))
        start += length
    ranks = [
        list(EvalBatchSampler(segments, batch_size, rank, world_size)) for rank in range(world_size)
    ]
    sizes = [[len(batch) for batch in batches] for batches in ranks]
    assert all(size == sizes[0] for size in sizes)
    assert max(sizes[0]) <= batch_size
    seen = [index for batches in ranks for batch in batches for index in batch]
    assert set(seen) == set(range(start))
    assert len(seen) - start < world_size * len(lengths)  # only padding comes twice
    for batches in ranks:
        for batch in batches:
            assert sum(bool(set(batch) & set(segment)) for segment in segments) == 1


def test_evaluation_batches_are_of_nearly_equal_size():
    sizes = [len(batch) for batch in EvalBatchSampler([list(range(9))], 8)]
    assert sizes == [4, 5]


@given(batches=st.integers(1, 5), per_rank=st.integers(1, 3), world_size=st.integers(1, 4))
def test_ranks_share_the_batches_of_one_process(batches: int, per_rank: int, world_size: int):
    """Contrasts are taken within a joint batch, which must be the same however it is shared."""
    segments = [list(range(batches * per_rank * world_size))]
    ranks = [list(EvalBatchSampler(segments, per_rank, r, world_size)) for r in range(world_size)]
    joint = [[index for part in parts for index in part] for parts in zip(*ranks)]
    assert joint == list(EvalBatchSampler(segments, per_rank * world_size))


class Choosy:
    """Trains as a whole on general batches of more than two samples."""

    def trains_as_a_whole(self, domains: Sequence[str], batch: int) -> bool:
        return list(domains) == ["general"] and batch > 2


def test_the_plan_decides_whether_every_batch_trains_all(tiny: ModuleType):
    def decide(model: Any, batch_size: int, **ratios: float) -> bool:
        data = {
            "coco": {"train": tiny.TinyDataset("coco", "general", 8)},
            "roco": {"train": tiny.TinyDataset("roco", "medical", 8)},
        }
        settings = RunSettings(batch_size_train=batch_size, train_dataset_ratios=ratios)
        loader = train_loader(data, {"coco": "general", "roco": "medical"}, settings, CPU)
        return every_batch_trains_all(model, loader)

    assert decide(Choosy(), 4, roco=0.0)
    assert not decide(Choosy(), 4)
    assert not decide(Choosy(), 2, roco=0.0)
    assert not decide(tiny.TinyModel(), 4, roco=0.0)  # says nothing about it


def test_spread_is_even_and_complete():
    assert spread(10, None) == spread(10, 99) == list(range(10))
    assert spread(10, 3) == [0, 3, 6]
    assert spread(0, 3) == []


def test_expected_images_follow_the_choice(tiny: ModuleType):
    datasets = {
        "coco": {"val": tiny.TinyDataset("coco", "general", 4, "val")},
        "roco": {"val": tiny.TinyDataset("roco", "medical", 2, "val"), "test": None},
    }
    data = eval_data(datasets, "val", RunSettings(batch_size_eval=3, max_eval_samples=2), CPU)
    ids = ["coco_val_000", "coco_val_002", "roco_val_000", "roco_val_001"]
    assert data.expected == [(i.split("_")[0], i) for i in ids]
    assert [i for batch in data.loader for i in batch["image_id"]] == ids


def test_an_image_id_must_be_unique_in_its_split(tiny: ModuleType):
    data = tiny.TinyDataset("roco", "medical", 3, "val")
    data.records[2].image_id = data.records[0].image_id
    with pytest.raises(DataError, match="roco/roco_val_000"):
        eval_data({"roco": {"val": data}}, "val", RunSettings(), CPU)


def test_the_plan_is_described(tiny: ModuleType):
    datasets = {"roco": {"train": tiny.TinyDataset("roco", "medical", 9)}}
    loader = train_loader(datasets, {"roco": "medical"}, RunSettings(batch_size_train=2), CPU)
    assert describe_plan(loader) == "an epoch has 4 batches of 2: roco (medical) 8 of 9"


def test_missing_splits_are_told_together():
    settings = RunSettings(valid_splits=("vall",), test_splits=("tset",))
    with pytest.raises(ConfigError) as caught:
        check_splits({"roco": {"val": []}}, settings)
    assert len(caught.value.problems) == 3
    assert all("there are: roco: val" in problem for problem in caught.value.problems)


def test_domains_come_from_the_dataset_or_the_configuration(tiny: ModuleType):
    data = tiny.TinyDataset("coco", "general", 2)
    assert dataset_domains(
        {"a": {"train": data}, "b": {"train": [1]}}, {"b": {"domain": "medical"}}
    ) == {
        "a": "general",
        "b": "medical",
    }
    with pytest.raises(ConfigError, match=r"datasets\.b\.domain is None"):
        dataset_domains({"b": {"train": [1]}}, {})
    check_domains({"a": "general"}, None)
    check_domains({"a": "general"}, {"general", "medical"})
