from __future__ import annotations

import collections

from lavis_msmedcap.phantom.seeding import pick_weighted, rng_for


def test_stream_is_a_function_of_its_name() -> None:
    assert rng_for(1, "a", 7).integers(1 << 40) == rng_for(1, "a", 7).integers(1 << 40)


def test_seed_stream_and_index_all_matter() -> None:
    draws = {
        int(rng_for(seed, stream, index).integers(1 << 60))
        for seed in (0, 1)
        for stream in ("a", "b")
        for index in (0, 1)
    }
    assert len(draws) == 8


def test_weights_are_kept() -> None:
    rng = rng_for(0, "weights", 0)
    counts = collections.Counter(
        pick_weighted(rng, (("often", 3.0), ("seldom", 1.0), ("never", 0.0))) for _ in range(4000)
    )
    assert counts["never"] == 0
    assert 0.72 < counts["often"] / 4000 < 0.78
