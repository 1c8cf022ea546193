"""Images that training cannot read: what takes their place, and the note that tells of them.

Ranks need batches of equal size, so that a sample cannot simply be missing. Another image of the
same dataset takes its place. Which one depends on seed, epoch and index only, so that a resumed run
trains on the same images. It is never silent: the sample carries a note for each image that was
left out, `collate` gathers the notes of a batch, and the runner counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lavis_msmedcap.common.config_check import Key, Node

SKIP, ERROR = "skip", "error"
ON_BAD = (SKIP, ERROR)
# of the section of any dataset, LAVIS' own included
KEYS: dict[str, Node] = {
    "on_bad": Key(str, choices=ON_BAD),
    "max_bad": Key(float, minimum=0, maximum=1),
}
# key of a sample, and of a batch, that holds the notes; absent where nothing was skipped
SKIPPED = "skipped"
# so many images in a row are no damaged files, but a disk that is gone
TRIES = 20
_STREAM = 0x5D


@dataclass(frozen=True)
class SkippedImage:
    """One image that could not be read.

    Attributes:
        dataset: Registered dataset name.
        image: The file, or the place in a file.
        reason: What is wrong with it.
    """

    dataset: str
    image: str
    reason: str


def stand_ins(seed: int, epoch: int, index: int, count: int) -> Iterator[int]:
    """Yields the samples to try in the place of one that cannot be read, another set every epoch.

    Args:
        seed: Seed of the dataset.
        epoch: From 0.
        index: The sample that cannot be read.
        count: Samples of the dataset.

    Yields:
        Up to ``TRIES`` other indices, none of them twice.
    """
    rng = np.random.default_rng([seed, _STREAM, epoch, index])
    others = rng.choice(count - 1, size=min(TRIES, count - 1), replace=False) if count > 1 else ()
    for other in others:
        yield int(other) + (int(other) >= index)
