"""Images that training cannot read: what takes their place, and the note that tells of them.

Ranks need batches of equal size, so that a sample cannot simply be missing. Another image of the
same dataset takes its place, with its own caption. It is one that stands nowhere else in the batch,
on no rank: ITC and ITM take the captions of all others for wrong ones, and an image that is there
twice would be taught that its own caption is wrong. Which one depends on seed, epoch and batch
only, so that a resumed run trains on the same images. It is never silent: the sample carries a note
for each image that was left out, `collate` gathers the notes of a batch, and the runner counts them
(``data_summary.json``). In evaluation nothing takes the place of anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

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


class BatchIndex(int):
    """Index of a sample that knows its batch.

    Attributes:
        mates: Indices of all samples that the dataset gives to the global batch, this one included;
            int64.
    """

    mates: npt.NDArray[np.int64]

    def __new__(cls, value: int, mates: npt.NDArray[np.int64] | None = None) -> BatchIndex:
        """Makes the index of a sample; without ``mates`` it stands alone."""
        index = super().__new__(cls, value)
        index.mates = np.asarray([value]) if mates is None else mates
        return index

    def shifted(self, offset: int) -> BatchIndex:
        """Returns the same sample where numbers begin elsewhere."""
        return BatchIndex(int(self) + offset, self.mates + offset)


def stand_ins(seed: int, epoch: int, index: int, count: int) -> Iterator[int]:
    """Yields the samples to try in the place of one that cannot be read, another set every epoch.

    The samples of a batch share out what is not in it, so that two of them do not get the same one.
    Only where all of a share is unreadable too, or the dataset is smaller than two batches, one may
    come that is there already.

    Args:
        seed: Seed of the dataset.
        epoch: From 0.
        index: The sample that cannot be read, a `BatchIndex` if it is part of a batch.
        count: Samples of the dataset.

    Yields:
        Up to ``TRIES`` other indices, none of them twice.
    """
    mates = index.mates if isinstance(index, BatchIndex) else np.asarray([index])
    rng = np.random.default_rng([seed, _STREAM, epoch, int(mates.min())])
    order = rng.permutation(count)
    free = order[~np.isin(order, mates)]
    place = int(np.flatnonzero(mates == index)[0])
    own = free[place :: len(mates)]
    candidates = chain(own, free[::-1], order)
    others = dict.fromkeys(int(other) for other in candidates if other != index)
    yield from islice(others, TRIES)
