"""A shuffle that keeps reads local: samples stand in blocks, and few blocks are in use at a time.

A full shuffle of data in shards reads one image here and the next one a hundred shards away. On a
disk of one's own that is nothing; a network drive answers such reads one by one, and its cache of
whole shards is of no use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from lavis_msmedcap.imaging.places import parse_place


@dataclass(frozen=True)
class Blocks:
    """Samples that lie together, block behind block.

    Attributes:
        lengths: Number of samples of each block; together they are the samples of the data set.
        window: Blocks that are mixed at a time. 1 reads a block to its end before the next.
    """

    lengths: tuple[int, ...]
    window: int

    def shuffled(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Permutes the blocks, then the samples inside every ``window`` blocks.

        Args:
            rng: Source of the permutation; its state alone decides.

        Returns:
            int64 (sum of lengths,), every sample once.
        """
        ends = np.cumsum(self.lengths, dtype=np.int64)
        order = rng.permutation(len(self.lengths))
        parts = []
        for first in range(0, len(order), self.window):
            chosen = order[first : first + self.window]
            samples = [np.arange(ends[i] - self.lengths[i], ends[i]) for i in chosen]
            parts.append(rng.permutation(np.concatenate(samples)))
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def blocks_of(images: Iterable[str], window: int) -> Blocks:
    """Makes a block of neighbouring images that lie in the same file.

    Args:
        images: Places of the images, in the order of the data set.
        window: See `Blocks`.
    """
    files = (parse_place(image).file for image in images)
    return Blocks(tuple(sum(1 for _ in group) for _, group in groupby(files)), window)
