from __future__ import annotations

import pickle
from itertools import islice

import numpy as np
import pytest

from lavis_msmedcap.datasets.skipping import TRIES, BatchIndex, stand_ins


def test_alone_any_other_sample_may_come_each_once():
    found = list(stand_ins(0, 0, 3, 12))
    assert sorted(found) == [i for i in range(12) if i != 3]
    assert len(list(stand_ins(0, 0, 3, 1000))) == TRIES
    assert list(stand_ins(0, 0, 0, 1)) == []


def test_seed_and_epoch_decide():
    first = list(stand_ins(0, 0, 3, 1000))
    assert first == list(stand_ins(0, 0, 3, 1000))
    assert first != list(stand_ins(1, 0, 3, 1000))
    assert first != list(stand_ins(0, 1, 3, 1000))


@pytest.mark.parametrize("count", [8, 9, 30, 1000])
def test_no_two_samples_of_a_batch_get_the_same_one(count: int):
    mates = np.random.default_rng(count).permutation(count)[:4]
    chosen = [next(stand_ins(0, 5, BatchIndex(i, mates), count)) for i in mates.tolist()]
    assert len({*chosen, *mates.tolist()}) == 8


def test_shares_stay_apart_while_there_are_enough():
    mates = np.arange(10, 20)
    shares = [list(islice(stand_ins(0, 0, BatchIndex(i, mates), 500), 20)) for i in range(10, 20)]
    assert len({i for share in shares for i in share}) == 200
    assert not {i for share in shares for i in share} & set(range(10, 20))


def test_a_data_set_of_one_batch_still_trains():
    mates = np.arange(4)
    assert sorted(stand_ins(0, 0, BatchIndex(1, mates), 4)) == [0, 2, 3]


def test_an_index_keeps_its_batch_on_the_way_to_a_worker():
    index = pickle.loads(pickle.dumps(BatchIndex(7, np.array([5, 7]))))
    assert index == 7
    assert f"roco-{index}" == "roco-7"
    moved = index.shifted(-5)
    assert moved == 2
    assert moved.mates.tolist() == [0, 2]
