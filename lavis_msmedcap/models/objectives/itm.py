"""ITM, image-text matching with hard negatives (paper 2.2, first objective).

Dimensions: B batch of this process, G global batch, N image tokens, C encoder width, L text tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.common.distributed import gather, get_rank
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds

NEGATIVE_FLOOR = 1e-4  # LAVIS: keeps every other sample possible as a negative


class MatchingPairs(NamedTuple):
    """The 3B pairs that ITM classifies: B matching, B with a wrong image, B with a wrong text.

    Attributes:
        image: Encoder output of 3B images.
        text_ids: int64 (3B, L).
        text_atts: int64 (3B, L).
        labels: int64 (3B,), 1 for a matching pair.
    """

    image: ImageEmbeds
    text_ids: Tensor
    text_atts: Tensor
    labels: Tensor


@torch.no_grad()
def sample_hard_negatives(similarity: Tensor) -> Tensor:
    """Draws for each sample one other sample of the global batch, likelier when more similar.

    Args:
        similarity: (B, G) similarity over temperature; column ``rank * B + i`` is sample i itself.

    Returns:
        int64 (B,), indices into the global batch.

    Raises:
        ValueError: If the global batch holds one sample only, which leaves no negative.
    """
    batch, total = similarity.shape
    if total < 2:
        raise ValueError("hard negatives need a global batch of at least 2 samples")
    # drawing from nan fails, on CUDA beyond repair; the loop names the image by its loss instead
    weights = F.softmax(similarity.float(), dim=1).nan_to_num(0.0) + NEGATIVE_FLOOR
    start = get_rank() * batch
    weights[:, start : start + batch].fill_diagonal_(0)
    return torch.multinomial(weights, 1).squeeze(1)


def matching_pairs(
    image: ImageEmbeds, text_ids: Tensor, text_atts: Tensor, sim_i2t: Tensor, sim_t2i: Tensor
) -> MatchingPairs:
    """Builds the pairs of ITM.

    Args:
        image: Encoder output of B images of this process.
        text_ids: int64 (B, L), padded to one length on all processes.
        text_atts: int64 (B, L).
        sim_i2t: (B, G) from ITC; picks the wrong text of each image.
        sim_t2i: (B, G) from ITC; picks the wrong image of each text.
    """
    wrong_image = sample_hard_negatives(sim_t2i)
    wrong_text = sample_hard_negatives(sim_i2t)
    # encoders are frozen, so nothing is lost by gathering their output without gradients
    everyone = ImageEmbeds(gather(image.embeds), gather(image.atts))
    ids_all, atts_all = gather(text_ids), gather(text_atts)
    negative = everyone.rows(wrong_image)
    batch = text_ids.shape[0]
    labels = torch.cat([text_ids.new_ones(batch), text_ids.new_zeros(2 * batch)])
    return MatchingPairs(
        # rows: (image, text), (wrong image, text), (image, wrong text)
        ImageEmbeds(
            torch.cat([image.embeds, negative.embeds, image.embeds]),
            torch.cat([image.atts, negative.atts, image.atts]),
        ),
        torch.cat([text_ids, text_ids, ids_all[wrong_text]]),
        torch.cat([text_atts, text_atts, atts_all[wrong_text]]),
        labels,
    )


def matching_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Two-class cross-entropy of the 3B pairs.

    Args:
        logits: (3B, Q, 2), one vote per query; the votes are averaged.
        labels: int64 (3B,).

    Returns:
        (B,) mean over the three pairs that belong to each sample; its mean is ``loss_itm``.
    """
    loss = F.cross_entropy(logits.mean(dim=1), labels, reduction="none")  # (3B,)
    return loss.view(3, -1).mean(dim=0)
