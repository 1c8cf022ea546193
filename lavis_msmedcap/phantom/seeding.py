"""Random streams that depend on nothing but their name, so that sets of any size agree."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def rng_for(seed: int, stream: str, index: int) -> np.random.Generator:
    """Returns the generator of one item of one named stream.

    Item 17 of a stream is the same whether the stream has 20 items or 2000: growing a set never
    changes the images that were already there.

    Args:
        seed: The user's seed, >= 0.
        stream: Name of the stream, for example ``roco/train/facts``.
        index: Number of the item in the stream, >= 0.
    """
    key = zlib.crc32(stream.encode("utf-8"))
    return np.random.default_rng(np.random.SeedSequence([seed, key, index]))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Draws one of ``options`` with equal probability."""
    return options[int(rng.integers(len(options)))]


def pick_weighted(rng: np.random.Generator, options: Sequence[tuple[T, float]]) -> T:
    """Draws one of ``(option, weight)`` pairs; the weights need not sum to one."""
    total = sum(weight for _, weight in options)
    mark = float(rng.random()) * total
    for option, weight in options:
        mark -= weight
        if mark < 0:
            return option
    return options[-1][0]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Returns True with the given probability."""
    return bool(rng.random() < probability)
