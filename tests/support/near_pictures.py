"""Pictures some of which are alike, and which of them, found by comparing each with each."""

from __future__ import annotations

import itertools

import numpy as np

from lavis_msmedcap.data_check.likeness import MAX_RESIDUAL, MAX_STRETCH, Pictures, reduced


def crowd(seed: int, kinds: int = 12, count: int = 160) -> Pictures:
    """Copies of a few pictures, some with much noise, another hash or another shape.

    One kind drifts: each of its copies is like the next one, the first one not like the last.
    """
    generator = np.random.default_rng(seed)
    originals = generator.integers(30, 226, (kinds, 256)).astype(float)
    hashes, greys, ratios = [], [], []
    step = generator.normal(0, 1, 256)
    for number in range(count):
        kind = int(generator.integers(kinds))
        noise = generator.normal(0, generator.choice([1, 4, 9, 14]), 256)
        if kind == 0:
            noise = step * number
        grey = originals[kind] * generator.uniform(0.8, 1) + noise
        greys.append(np.clip(grey, 0, 255).astype(np.uint8).tobytes())
        bits = generator.choice(64, generator.integers(0, 4), replace=False)
        hashes.append((kind % 5) * 0x0F0F00FF00 ^ sum(1 << int(bit) for bit in bits))
        ratios.append(float(generator.choice([1.0, 1.01, 1.03])))
    return reduced(hashes, greys, ratios)


def frames(count: int, bits: int) -> Pictures:
    """Frames that show the same, with up to ``bits`` bits of their hashes by chance."""
    generator = np.random.default_rng(count)
    original = generator.integers(2, 250, 256)
    greys = (original + generator.integers(-1, 2, (count, 256))).astype(np.uint8)
    places = generator.choice(64, bits, replace=False)
    flips = generator.integers(0, 2, (count, bits))
    hashes = [sum(1 << int(p) for p, on in zip(places, row) if on) for row in flips]
    return reduced(hashes, [grey.tobytes() for grey in greys], [1.0] * count)


def every_pair(pictures: Pictures, bits: int) -> set[tuple[int, int]]:
    """Compares each picture with each, by the rule in words."""
    rows = pictures.greys.astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= rows.std(axis=1, keepdims=True)
    found = set()
    for i, j in itertools.combinations(range(len(rows)), 2):
        correlation = float((rows[i] * rows[j]).mean())
        if (
            bin(int(pictures.hashes[i]) ^ int(pictures.hashes[j])).count("1") <= bits
            and abs(pictures.shapes[i] - pictures.shapes[j]) <= np.log(MAX_STRETCH)
            and correlation >= 0.99
            and np.abs(rows[j] - correlation * rows[i]).max() <= MAX_RESIDUAL
        ):
            found.add((i, j))
    return found
