"""Does this text describe this image? The two answers of a stage-1 branch, and their mean.

ITM looks at image and text together and classifies the pair; ITC compares features that know
nothing of each other. Both are BLIP-2's, per branch; several branches are fused by their mean.

Dimensions: B image-text pairs, I images, T texts, L text tokens, Q query tokens, E ITC width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds


def matching_logits(
    branch: QFormerBranch, image: ImageEmbeds, text_ids: Tensor, text_atts: Tensor
) -> Tensor:
    """Classifies pairs with the ITM head, the votes of the queries averaged.

    Args:
        branch: A stage-1 branch.
        image: Encoder output of B images.
        text_ids: int64 (B, L).
        text_atts: int64 (B, L).

    Returns:
        float (B, 2); column 1 speaks for a match.
    """
    logits: Tensor = branch.itm_head(branch.multimodal(image, text_ids, text_atts))  # (B, Q, 2)
    return logits.mean(dim=1)


def contrast_image_feats(branch: QFormerBranch, image: ImageEmbeds) -> Tensor:
    """Returns what ITC compares of I images: float (I, Q, E), L2-normalised."""
    return branch.image_feats(branch.query(image).last_hidden_state)


def contrast_text_feat(branch: QFormerBranch, text_ids: Tensor, text_atts: Tensor) -> Tensor:
    """Returns what ITC compares of T texts: int64 (T, L) twice to float (T, E), L2-normalised."""
    return branch.text_feat(branch.encode_text(text_ids, text_atts))


def contrast_similarity(image_feats: Tensor, text_feat: Tensor) -> Tensor:
    """Compares every image with every text as ITC does: the best query counts.

    Args:
        image_feats: float (I, Q, E), L2-normalised.
        text_feat: float (T, E), L2-normalised.

    Returns:
        float (I, T), cosine similarities, not divided by the temperature.
    """
    return torch.einsum("iqe,te->iqt", image_feats, text_feat).amax(dim=1)


def pairwise_similarity(
    branch: QFormerBranch, image: ImageEmbeds, text_ids: Tensor, text_atts: Tensor
) -> Tensor:
    """Returns the ITC similarity of every image with every text, float (B, B)."""
    return contrast_similarity(
        contrast_image_feats(branch, image), contrast_text_feat(branch, text_ids, text_atts)
    )


def fuse(per_branch: Iterable[Tensor]) -> Tensor:
    """Returns the mean over branches; of one branch, its own values."""
    return torch.stack(list(per_branch)).mean(dim=0)
