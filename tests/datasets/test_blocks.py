from __future__ import annotations

import numpy as np
import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.blocks import Blocks, blocks_of
from lavis_msmedcap.datasets.mixing import BatchPlan, DatasetSpec

LENGTHS = (50, 1, 30, 0, 50, 50, 17, 50, 50, 42)
FIRST_BATCH = [11, 8, 17, 16, 4]


def block_of(sample):
    return int(np.searchsorted(np.cumsum(LENGTHS), sample, side="right"))


@pytest.mark.parametrize("window", [1, 2, 3, 10, 99])
def test_every_sample_once_and_few_blocks_at_a_time(window) -> None:
    order = Blocks(LENGTHS, window).shuffled(np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(sum(LENGTHS)))
    assert order.tolist() != sorted(order.tolist())
    places: dict[int, list[int]] = {}
    for place, sample in enumerate(order.tolist()):
        places.setdefault(block_of(sample), []).append(place)
    # how many blocks have begun and not ended, anywhere on the way
    in_use = [
        sum(seen[0] <= place <= seen[-1] for seen in places.values()) for place in range(len(order))
    ]
    assert max(in_use) <= window


def test_blocks_and_their_samples_change_their_order() -> None:
    first, second = (Blocks(LENGTHS, 2).shuffled(np.random.default_rng(i)) for i in range(2))
    again = Blocks(LENGTHS, 2).shuffled(np.random.default_rng(0))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    whole = Blocks((100,), 1).shuffled(np.random.default_rng(0))
    assert whole.tolist() != list(range(100))


def test_a_window_of_all_blocks_mixes_all_of_them() -> None:
    order = Blocks(LENGTHS, len(LENGTHS)).shuffled(np.random.default_rng(0))
    assert len({block_of(sample) for sample in order[:60].tolist()}) > 5


def test_no_samples() -> None:
    assert Blocks((), 4).shuffled(np.random.default_rng(0)).tolist() == []


def test_neighbours_in_one_file_are_a_block() -> None:
    images = ["/a.tar::bytes=0+1", "/a.tar::bytes=1+1", "/b.tar::bytes=0+1", "/a.tar::bytes=2+1"]
    assert blocks_of(images, 3) == Blocks((2, 1, 1), 3)


def plan(shuffle, rank=0, world_size=1, **kwargs):
    length = sum(LENGTHS)
    spec = DatasetSpec("shards", length, "medical", shuffle=shuffle, **kwargs)
    return BatchPlan([spec], 4, seed=3, rank=rank, world_size=world_size)


def samples(batches):
    return [sample for batch in batches for _, sample in batch]


def test_a_plan_takes_every_sample_once_per_pass() -> None:
    length = sum(LENGTHS)
    one = plan(Blocks(LENGTHS, 2))
    stream = [sample for epoch in range(5) for sample in samples(one.epoch(epoch))]
    for start in range(0, len(stream) - length, length):
        assert sorted(stream[start : start + length]) == list(range(length))
    assert stream[:length] != stream[length : 2 * length]


def test_a_plan_reads_few_blocks_at_a_time() -> None:
    batches = plan(Blocks(LENGTHS, 2)).epoch(0)
    full = plan(None).epoch(0)

    def most_in_ten_batches(batches):
        return max(
            len({block_of(sample) for sample in samples(batches[i : i + 10])})
            for i in range(len(batches) - 10)
        )

    assert most_in_ten_batches(batches) <= 4  # two windows of two
    assert most_in_ten_batches(full) > 6


def test_ranks_share_the_global_batch() -> None:
    together = plan(Blocks(LENGTHS, 2), 0, 2), plan(Blocks(LENGTHS, 2), 1, 2)
    left, right = (samples(p.epoch(0)) for p in together)
    assert not set(left) & set(right)
    assert len(left) == len(right) == 4 * (sum(LENGTHS) // 8)


def test_a_full_shuffle_is_what_it_was() -> None:
    """The numbers were printed by the plan as it was before it knew blocks."""
    spec = DatasetSpec("roco", 20, "medical")
    batches = BatchPlan([spec], 5, seed=1).epoch(1)
    assert [sample for _, sample in batches[0]] == FIRST_BATCH


def test_blocks_have_to_fit_the_data_set() -> None:
    with pytest.raises(DataError, match="has 9 samples, but its blocks have 10"):
        BatchPlan([DatasetSpec("x", 9, "medical", shuffle=Blocks((4, 6), 1))], 2, seed=0)
