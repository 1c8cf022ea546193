"""Recall of image-text retrieval by ITC similarity, over images that the ranks share.

Dimensions: I images of this rank, T texts, Q query tokens, E ITC width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lavis_msmedcap.common.distributed import max_over_ranks, sum_over_ranks
from lavis_msmedcap.models.matching import contrast_similarity, fuse
from lavis_msmedcap.models.retrieval import IMAGES_AT_ONCE

RECALL_RANKS = (1, 5, 10)
IMAGE_TO_TEXT, TEXT_TO_IMAGE, MEAN = "i2t", "t2i", "r_mean"


class Recall(NamedTuple):
    """How well images find their texts and texts their images.

    Attributes:
        images: Images of all ranks that were compared.
        texts: Texts that were compared.
        i2t: Share of the images with a text of theirs among the best 1, 5, 10 texts.
        t2i: Share of the texts with an image of theirs among the best 1, 5, 10 images.
    """

    images: int
    texts: int
    i2t: tuple[float, ...]
    t2i: tuple[float, ...]

    def metrics(self) -> dict[str, float]:
        """Returns ``i2t_r1`` to ``t2i_r10`` and their mean, ``r_mean``."""
        values = [*self.i2t, *self.t2i]
        return dict(zip(recall_names(), [*values, sum(values) / len(values)]))


def recall_names() -> list[str]:
    """Returns the names that `Recall.metrics` gives."""
    directions = (IMAGE_TO_TEXT, TEXT_TO_IMAGE)
    return [*(f"{direction}_r{k}" for direction in directions for k in RECALL_RANKS), MEAN]


@torch.no_grad()
def measure_recall(
    image_feats: Sequence[Tensor],
    text_feats: Sequence[Tensor],
    captions: Sequence[Sequence[int]],
    device: torch.device,
) -> Recall:
    """Measures recall; under a process group every rank gives its own images and calls it.

    An image is found if any of its texts is, and the other way round, so that several captions of
    an image are not each other's rivals. A rival with the same similarity counts as better: a
    network that gives all pairs the same has a recall of 0.

    Args:
        image_feats: For each branch float (I, Q, E), L2-normalised; several branches are compared
            by the mean of their similarities. I may be 0 on some ranks.
        text_feats: For each branch float (T, E), L2-normalised, the same on every rank. Each text
            belongs to an image of some rank.
        captions: For each of the I images the places of its texts.
        device: Where the comparison is computed; the features may lie elsewhere.
    """
    texts = [feats.to(device) for feats in text_feats]
    count = texts[0].shape[0]
    best_image = torch.full((count,), -torch.inf, device=device)  # of each text
    best_texts = []  # of each image, in parts
    for similarity, own in _parts(image_feats, texts, captions):
        matching = similarity.masked_fill(~own, -torch.inf)
        best_texts.append(matching.amax(dim=1))
        best_image = torch.maximum(best_image, matching.amax(dim=0))
    best_image = max_over_ranks(best_image)
    rivals_of_images = torch.zeros(count, dtype=torch.int64, device=device)
    places_of_texts = []
    # computed a second time, for one (I, T) matrix per branch may not fit into memory
    for (similarity, own), best_text in zip(_parts(image_feats, texts, captions), best_texts):
        others = similarity.masked_fill(own, -torch.inf)
        places_of_texts.append((others >= best_text[:, None]).sum(dim=1))
        rivals_of_images += (others >= best_image).sum(dim=0)
    i2t = _hits(torch.cat(places_of_texts) if places_of_texts else rivals_of_images[:0])
    t2i = _hits(sum_over_ranks(rivals_of_images))
    *i2t_hits, images = sum_over_ranks(i2t).tolist()
    *t2i_hits, _ = t2i.tolist()
    return Recall(
        images,
        count,
        tuple(hits / images for hits in i2t_hits),
        tuple(hits / count for hits in t2i_hits),
    )


def _parts(
    image_feats: Sequence[Tensor], texts: Sequence[Tensor], captions: Sequence[Sequence[int]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields similarity and membership, float and bool (i, T), of some images at a time."""
    device, count = texts[0].device, texts[0].shape[0]
    for start in range(0, len(captions), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        with torch.autocast(device.type, enabled=False):  # bf16 would make ties of near ones
            similarity = fuse(
                contrast_similarity(feats[part].to(device), text)
                for feats, text in zip(image_feats, texts)
            )
        own = torch.zeros(similarity.shape[0], count, dtype=torch.bool)
        for row, places in enumerate(captions[part]):
            own[row, list(places)] = True
        yield similarity, own.to(device)


def _hits(rivals: Tensor) -> Tensor:
    """Counts queries with fewer than 1, 5, 10 better rivals, and all: int64 (4,)."""
    hits = [(rivals < k).sum() for k in RECALL_RANKS]
    return torch.stack([*hits, torch.full_like(hits[0], len(rivals))])
