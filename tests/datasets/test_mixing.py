from __future__ import annotations

import pickle
from collections import Counter
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.mixing import (
    BatchPlan,
    DatasetSpec,
    JoinedDataset,
    PlannedBatchSampler,
)

COCO = DatasetSpec("coco2014_caption", 90, "general")
ROCO = DatasetSpec("roco", 40, "medical")
MEDICAT = DatasetSpec("medicat", 61, "medical")
ALL = [COCO, ROCO, MEDICAT]


class _Data:
    """A dataset that says which sample it gave in which epoch."""

    def __init__(self, spec):
        self.spec = spec
        self.domain = spec.domain
        self.ratio = spec.ratio
        self.epoch = None

    def __len__(self):
        return self.spec.length

    def __getitem__(self, index):
        image = torch.full((2,), index, dtype=torch.uint8)
        return {"image": image, "dataset": self.spec.name, "epoch": self.epoch}

    def set_epoch(self, epoch):
        self.epoch = epoch


def _joined(specs=ALL):
    return JoinedDataset({spec.name: _Data(spec) for spec in specs})


@st.composite
def plans(draw):
    """Any datasets whose domains hold at least one global batch."""
    batch, world = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    specs = [
        DatasetSpec(
            f"set{i}",
            draw(st.integers(batch * world, 70)),
            draw(st.sampled_from(["general", "medical"])),
            draw(st.sampled_from([1.0, 1.5, 2.0, 3.0])),
        )
        for i in range(draw(st.integers(1, 4)))
    ]
    return specs, batch, world, draw(st.integers(0, 2**31))


@given(plans(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_batches_are_full_and_of_one_domain(parts, epoch):
    specs, batch, world, seed = parts
    plan = BatchPlan(specs, batch, seed, world_size=world)
    batches = plan.epoch(epoch)
    assert len(batches) == len(plan)
    for samples in batches:
        assert len(samples) == batch
        assert len({specs[dataset].domain for dataset, _ in samples}) == 1
        assert all(0 <= sample < specs[dataset].length for dataset, sample in samples)


@given(plans(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_ranks_together_are_the_single_process_plan(parts, epoch):
    specs, batch, world, seed = parts
    whole = BatchPlan(specs, batch * world, seed).epoch(epoch)
    ranks = [
        BatchPlan(specs, batch, seed, rank=rank, world_size=world).epoch(epoch)
        for rank in range(world)
    ]
    assert whole == [list(chain(*slices)) for slices in zip(*ranks)]


@given(plans())
@settings(max_examples=60, deadline=None)
def test_every_sample_is_used_before_any_repeats(parts):
    specs, batch, _, seed = parts
    plan = BatchPlan(specs, batch, seed)
    streams = {i: [] for i in range(len(specs))}
    for epoch in range(4):
        for samples in plan.epoch(epoch):
            for dataset, sample in samples:
                streams[dataset].append(sample)
    for dataset, stream in streams.items():
        length = specs[dataset].length
        for start in range(0, len(stream), length):
            one_pass = stream[start : start + length]
            assert len(set(one_pass)) == len(one_pass)


@given(plans())
@settings(max_examples=60, deadline=None)
def test_no_batch_holds_a_sample_twice_given_three_batches_of_data(parts):
    specs, batch, _, seed = parts
    enough = [s for s in specs if s.length >= 3 * batch]
    if not enough:
        return
    plan = BatchPlan(enough, batch, seed)
    for epoch in range(6):
        for samples in plan.epoch(epoch):
            assert len(set(samples)) == len(samples)


def test_natural_sizes_and_ratios():
    plan = BatchPlan(ALL, 10, seed=0)
    assert plan.samples_per_epoch == {"coco2014_caption": 90, "roco": 40, "medicat": 60}
    halved = [COCO, ROCO, DatasetSpec("medicat", 61, "medical", 0.5)]
    assert BatchPlan(halved, 10, seed=0).samples_per_epoch["medicat"] == 30
    doubled = [COCO, DatasetSpec("roco", 40, "medical", 2.0), MEDICAT]
    counts = Counter(pair for b in BatchPlan(doubled, 10, seed=0).epoch(0) for pair in b)
    assert sum(n for (dataset, _), n in counts.items() if dataset == 1) == 79
    assert set(counts.values()) <= {1, 2}
    without = [COCO, DatasetSpec("roco", 40, "medical", 0.0), MEDICAT]
    assert BatchPlan(without, 10, seed=0).samples_per_epoch["roco"] == 0
    tenth = DatasetSpec("roco", 1200, "medical", 0.1)
    assert BatchPlan([tenth], 10, seed=0).samples_per_epoch["roco"] == 120


def test_datasets_of_a_domain_are_mixed_within_batches():
    batches = BatchPlan(ALL, 10, seed=0).epoch(0)
    mixed = [len({dataset for dataset, _ in batch}) for batch in batches if batch[0][0] > 0]
    assert sum(n == 2 for n in mixed) > len(mixed) / 2
    domains = [batch[0][0] > 0 for batch in batches]
    assert domains != sorted(domains)
    assert domains != sorted(domains, reverse=True)


def test_samples_per_epoch_shares_by_weight():
    plan = BatchPlan(ALL, 10, seed=0, samples_per_epoch=60)
    assert len(plan) == 6
    assert sum(plan.samples_per_epoch.values()) == 60
    assert plan.samples_per_epoch["coco2014_caption"] == 30
    small = [DatasetSpec("coco2014_caption", 100_000, "general"), ROCO]
    assert BatchPlan(small, 10, seed=0, samples_per_epoch=100).samples_per_epoch["roco"] == 10


def test_a_tiny_dataset_is_not_rounded_away():
    specs = [DatasetSpec("medicat", 100_000, "medical"), DatasetSpec("roco", 3, "medical")]
    plan = BatchPlan(specs, 8, seed=0, samples_per_epoch=64)
    assert plan.samples_per_epoch["roco"] == 1
    seen = {s for epoch in range(3) for b in plan.epoch(epoch) for d, s in b if d == 1}
    assert seen == {0, 1, 2}


def test_what_does_not_fill_a_batch_comes_first_in_the_next_epoch():
    plan = BatchPlan([DatasetSpec("roco", 10, "medical")], 4, seed=3)
    used = [sample for epoch in range(5) for batch in plan.epoch(epoch) for _, sample in batch]
    assert len(plan) == 2
    assert Counter(used) == dict.fromkeys(range(10), 4)
    rounded_up = BatchPlan([DatasetSpec("roco", 10, "medical")], 4, seed=3, drop_last=False)
    assert len(rounded_up) == 3
    assert {sample for batch in rounded_up.epoch(0) for _, sample in batch} == set(range(10))


def test_determined_by_seed_and_epoch():
    plan = BatchPlan(ALL, 5, seed=7)
    assert plan.epoch(2) == plan.epoch(2) == BatchPlan(ALL, 5, seed=7).epoch(2)
    assert plan.epoch(2) != plan.epoch(3)
    assert plan.epoch(2) != BatchPlan(ALL, 5, seed=8).epoch(2)
    assert pickle.loads(pickle.dumps(plan)).epoch(1) == plan.epoch(1)


@pytest.mark.parametrize(
    ("specs", "batch", "options", "message"),
    [
        ([ROCO], 41, {}, r"domain medical has only roco 40 x ratio 1; lower run.batch_size_train"),
        ([ROCO], 21, {"world_size": 2}, "21 on each of 2 processes"),
        ([DatasetSpec("roco", 40, "medical", 0.1)], 8, {}, "raise the ratio"),
        ([COCO, ROCO], 10, {"samples_per_epoch": 19}, "epoch of 19 samples is too short.*takes 20"),
        ([ROCO], 41, {"samples_per_epoch": 410}, "has only roco 40"),
        ([], 4, {}, "no training samples"),
        ([DatasetSpec("roco", 40, "medical", 0)], 4, {}, "roco are empty or have ratio 0"),
        ([DatasetSpec("roco", 40, "medical", -1)], 4, {}, "at least 0"),
        ([ROCO], 0, {}, "batch_size 0"),
        ([ROCO], 4, {"rank": 2, "world_size": 2}, "rank 2 of 2"),
    ],
)
def test_impossible_plans_say_the_cure(specs, batch, options, message):
    with pytest.raises(DataError, match=message):
        BatchPlan(specs, batch, 0, **options)


def test_joined_dataset_finds_its_parts():
    joined = _joined([COCO, DatasetSpec("empty", 0, "medical"), ROCO])
    assert len(joined) == 130
    assert joined[89]["dataset"] == "coco2014_caption"
    assert joined[90]["dataset"] == "roco"
    assert joined[joined.flat_index(2, 39)]["image"].tolist() == [39, 39]
    with pytest.raises(IndexError):
        joined[130]
    specs = joined.specs({"roco": 2})
    assert [spec.ratio for spec in specs] == [1.0, 1.0, 2.0]
    with pytest.raises(DataError, match="train_dataset_ratios names rocco"):
        joined.specs({"rocco": 1})


def test_sampler_feeds_a_loader_and_resumes_inside_an_epoch():
    joined = _joined()
    sampler = PlannedBatchSampler(BatchPlan(joined.specs(), 6, seed=1), joined)
    loader = DataLoader(joined, batch_sampler=sampler, collate_fn=joined.collater)
    sampler.set_epoch(4)
    whole = list(loader)
    assert len(loader) == len(whole) == len(sampler.plan)
    assert all(batch["image"].shape == (6, 2) for batch in whole)
    assert {epoch for batch in whole for epoch in batch["epoch"]} == {4}
    sampler.set_epoch(4, start_step=5)
    rest = list(loader)
    assert len(loader) == len(rest) == len(whole) - 5
    for resumed, original in zip(rest, whole[5:]):
        assert resumed["dataset"] == original["dataset"]
        assert torch.equal(resumed["image"], original["image"])
    sampler.set_epoch(4, stop_step=10**6)
    indices = list(sampler)
    assert len(indices) == len(whole)
    sampler.set_epoch(4, start_step=2, stop_step=5)
    assert list(sampler) == indices[2:5]
    assert len(sampler) == 3
    sampler.set_epoch(5)
    assert sampler.start_step == 0
