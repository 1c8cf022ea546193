"""Image-text retrieval: rank by ITC, re-rank the best ``k_test`` by ITM, as BLIP-2 does.

Dimensions: I images, T texts, N image tokens, C encoder width, L text tokens, Q query tokens,
E ITC width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lavis_msmedcap.common.distributed import get_rank, get_world_size, sum_over_ranks
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.matching import (
    contrast_image_feats,
    contrast_similarity,
    contrast_text_feat,
    fuse,
    matching_logits,
)

NOT_RANKED = -100.0  # LAVIS' score of a pair outside the best k_test
IMAGES_AT_ONCE = 64
TEXTS_AT_ONCE = 256


class Gallery(NamedTuple):
    """What one branch knows of all images and texts.

    Attributes:
        branch: The stage-1 branch.
        image: Encoder output of I images, (I, N, C); may stay on the CPU, it is the large part.
        image_feats: float (I, Q, E), L2-normalised.
        text_feat: float (T, E), L2-normalised.
    """

    branch: QFormerBranch
    image: ImageEmbeds
    image_feats: Tensor
    text_feat: Tensor


@torch.no_grad()
def collect_galleries(
    branches: Mapping[str, QFormerBranch],
    batches: Iterable[tuple[Mapping[str, ImageEmbeds], Tensor | None]],
    count: int,
    text_ids: Tensor,
    text_atts: Tensor,
) -> list[Gallery]:
    """Encodes all images and texts of a dataset.

    Args:
        branches: Stage-1 branches by name.
        batches: Encoder output by branch of some images at a time, and the places of these images
            in the dataset, int64 (B,); None if they come in the order of the dataset.
        count: I, images of the dataset.
        text_ids: int64 (T, L).
        text_atts: int64 (T, L).

    Returns:
        One gallery per branch, images in the order of the dataset, their encoder output on the CPU.

    Raises:
        ValueError: If the batches do not hold every image exactly once.
    """
    images: dict[str, list[ImageEmbeds]] = {name: [] for name in branches}
    feats: dict[str, list[Tensor]] = {name: [] for name in branches}
    places: list[int] = []
    for embeds, index in batches:
        for name, branch in branches.items():
            images[name].append(ImageEmbeds(embeds[name].embeds.cpu(), embeds[name].atts.cpu()))
            feats[name].append(contrast_image_feats(branch, embeds[name]))
        size = len(feats[name][-1])
        places += range(len(places), len(places) + size) if index is None else index.tolist()
    if sorted(places) != list(range(count)):
        raise ValueError(
            f"retrieval got {len(places)} images of a dataset of {count}, or some of them twice; "
            "every process needs all images once: use no sampler that splits or drops them "
            "(run.use_dist_eval_sampler: false)"
        )
    order = torch.tensor(places).argsort()
    return [
        Gallery(
            branch,
            _joined(images[name]).rows(order),
            torch.cat(feats[name])[order.to(text_ids.device)],
            contrast_text_feats(branch, text_ids, text_atts),
        )
        for name, branch in branches.items()
    ]


@torch.no_grad()
def retrieval_scores(
    galleries: Sequence[Gallery],
    text_ids: Tensor,
    text_atts: Tensor,
    k_test: int,
    pairs_at_once: int = 128,
) -> tuple[Tensor, Tensor]:
    """Scores images against texts in both directions.

    A pair among the best ``k_test`` by similarity scores ITM logit plus similarity, every other
    pair -100, which ranks it behind. Each pair passes the Q-Former once, even if it is among the
    best in both directions. Processes of a group share the pairs; all must hold all images.

    Args:
        galleries: One entry per branch; logits and similarities are averaged over branches.
        text_ids: int64 (T, L).
        text_atts: int64 (T, L).
        k_test: Candidates per image and per text; more than there are means all.
        pairs_at_once: Pairs that pass the Q-Former together.

    Returns:
        Scores float32 (I, T) for image-to-text and (T, I) for text-to-image retrieval.
    """
    similarity = fuse(_similarity(gallery) for gallery in galleries).float()
    best_texts = _best(similarity, k_test)
    best_images = _best(similarity.t(), k_test).t()
    pairs = (best_texts | best_images).nonzero()  # (pairs, 2): image, text
    logits = torch.zeros_like(similarity)
    for part in torch.split(pairs[get_rank() :: get_world_size()], pairs_at_once):
        images, texts = part.unbind(dim=1)
        matched = fuse(
            matching_logits(
                gallery.branch,
                _rows(gallery.image, images, text_ids.device),
                text_ids[texts],
                text_atts[texts],
            )
            for gallery in galleries
        )
        logits[images, texts] = matched[:, 1].float()
    scores = similarity + sum_over_ranks(logits)
    return (
        scores.masked_fill(~best_texts, NOT_RANKED),
        scores.masked_fill(~best_images, NOT_RANKED).t(),
    )


def _joined(parts: Sequence[ImageEmbeds]) -> ImageEmbeds:
    embeds, atts = zip(*parts)
    return ImageEmbeds(torch.cat(embeds), torch.cat(atts))


def contrast_text_feats(branch: QFormerBranch, text_ids: Tensor, text_atts: Tensor) -> Tensor:
    """Like `contrast_text_feat`, for any number of texts: some pass the Q-Former at a time."""
    parts = zip(*(torch.split(tensor, TEXTS_AT_ONCE) for tensor in (text_ids, text_atts)))
    return torch.cat([contrast_text_feat(branch, ids, atts) for ids, atts in parts])


def _similarity(gallery: Gallery) -> Tensor:
    """Returns (I, T), in parts: the comparison of every query would not fit into memory."""
    parts = torch.split(gallery.image_feats, IMAGES_AT_ONCE)
    return torch.cat([contrast_similarity(feats, gallery.text_feat) for feats in parts])


def _best(similarity: Tensor, count: int) -> Tensor:
    """Marks the ``count`` largest values of each row; bool, of the same shape."""
    places = similarity.topk(min(count, similarity.shape[1]), dim=1).indices
    return torch.zeros_like(similarity, dtype=torch.bool).scatter(1, places, True)


def _rows(image: ImageEmbeds, index: Tensor, device: torch.device) -> ImageEmbeds:
    rows = image.rows(index.to(image.embeds.device))
    return ImageEmbeds(rows.embeds.to(device), rows.atts.to(device))
