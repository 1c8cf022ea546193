"""ITM, image-text matching with hard negatives (paper 2.2, first objective).

Dimensions: B batch of this process, G joint batch of all processes, N image tokens,
C encoder width, L text tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.common.distributed import JointBatch, gather
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
def sample_hard_negatives(similarity: Tensor, joint: JointBatch, chance: Tensor) -> Tensor:
    """Draws for each sample one other sample of the joint batch, likelier when more similar.

    Args:
        similarity: (B, G) similarity over temperature; column ``joint.start + i`` is sample i.
        joint: The joint batch.
        chance: float32 (B,), uniform in [0, 1): the random number of each sample.

    Returns:
        int64 (B,), indices into the joint batch.

    Raises:
        ValueError: If the joint batch holds one sample only, which leaves no negative.
    """
    if joint.total < 2:
        raise ValueError("hard negatives need a joint batch of at least 2 samples")
    # a nan has no place in a sum; the loop names the image by its loss
    weights = F.softmax(similarity.float(), dim=1).nan_to_num(0.0) + NEGATIVE_FLOOR
    weights[:, joint.start : joint.start + joint.own].fill_diagonal_(0)
    return pick(weights, chance)


def pick(weights: Tensor, chance: Tensor) -> Tensor:
    """Draws a column of each row in proportion to the weights.

    A given random number gives a given choice, whichever rows are drawn together (unlike
    ``torch.multinomial``): processes choose what one of them would choose.

    Args:
        weights: float32 (B, G), not negative, not all 0 in a row.
        chance: float32 (B,), uniform in [0, 1).

    Returns:
        int64 (B,); never a column of weight 0.
    """
    bounds = weights.double().cumsum(dim=1)  # (B, G)
    # at most 1 - 2**-24 of the sum, so that rounding cannot reach the last bound
    place = chance.to(bounds)[:, None] * bounds[:, -1:]
    return torch.searchsorted(bounds, place, right=True).squeeze(1)


def negative_chances(joint: JointBatch) -> Tensor:
    """Draws the random numbers of this process' samples, as one process with all of them does.

    Args:
        joint: The joint batch; its seed decides.

    Returns:
        float32 (2, B), uniform in [0, 1): for wrong images and for wrong texts.
    """
    drawn = torch.rand(2, joint.total, generator=torch.Generator().manual_seed(joint.seed))
    return drawn[:, joint.start : joint.start + joint.own]


def matching_pairs(
    image: ImageEmbeds,
    text_ids: Tensor,
    text_atts: Tensor,
    sim_i2t: Tensor,
    sim_t2i: Tensor,
    joint: JointBatch,
) -> MatchingPairs:
    """Builds the pairs of ITM.

    Args:
        image: Encoder output of B images of this process.
        text_ids: int64 (B, L), padded to one length on all processes.
        text_atts: int64 (B, L).
        sim_i2t: (B, G) from ITC; picks the wrong text of each image.
        sim_t2i: (B, G) from ITC; picks the wrong image of each text.
        joint: Where the wrong ones come from.
    """
    for_image, for_text = negative_chances(joint)
    wrong_image = sample_hard_negatives(sim_t2i, joint, for_image)
    wrong_text = sample_hard_negatives(sim_i2t, joint, for_text)
    # encoders are frozen, so nothing is lost by gathering their output without gradients
    everyone = ImageEmbeds(gather(image.embeds, joint), gather(image.atts, joint))
    ids_all, atts_all = gather(text_ids, joint), gather(text_atts, joint)
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
        (B,) mean over the three pairs of each sample; the mean over the joint batch is
        ``loss_itm``.
    """
    loss = F.cross_entropy(logits.mean(dim=1), labels, reduction="none")  # (3B,)
    return loss.view(3, -1).mean(dim=0)
