from __future__ import annotations

import random

import numpy as np
import torch

from lavis_msmedcap.datasets.random_streams import derive_seed, seed_generators


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_the_same_place_draws_the_same_whatever_came_before() -> None:
    seed_generators(42, "roco", 3, 17)
    first = drawn()
    for _ in range(3):
        drawn()
    seed_generators(42, "roco", 3, 17)
    assert drawn() == first


def test_every_generator_depends_on_every_part() -> None:
    places = [(42, "roco", 3, 17), (43, "roco", 3, 17), (42, "coco", 3, 17), (42, "roco", 3, 18)]
    draws = []
    for place in places:
        seed_generators(*place)
        draws.append(drawn())
    for of_one_generator in zip(*draws):
        assert len(set(of_one_generator)) == len(places)


def test_parts_do_not_run_into_each_other() -> None:
    places = [(1, 23), (12, 3), (123,), (1, 2, 3), ("1 23",), (1, 23, ""), ("", 1, 23), ()]
    assert len({derive_seed(*place) for place in places}) == len(places)


def test_seeds_fit_a_signed_number_and_use_all_of_it() -> None:
    seeds = [derive_seed(step) for step in range(2000)]
    assert len(set(seeds)) == 2000
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63
    # bits are even: 2000 tosses are within 5 standard deviations of half
    ones = (np.array(seeds)[:, None] >> np.arange(63) & 1).sum(axis=0)
    assert abs(ones - 1000).max() < 5 * 0.5 * 2000**0.5


def test_a_run_can_be_repeated_in_another_process_and_version() -> None:
    assert derive_seed(7, "röntgen") == 1_507_973_551_626_039_760
