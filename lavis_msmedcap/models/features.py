"""Features of a stage-1 branch, and of all branches together.

The contrastive spaces of two branches have nothing to do with each other: CLIP's queries may be
compared with CLIP's text features only. Fused projections therefore keep one block of dimensions
per branch. A query has zeros in the blocks of the others, a text has its features of every branch
side by side, so that a dot product compares within the branch, and the largest over all queries is
the largest over all branches.

Dimensions: B batch, L text tokens, Q query tokens, D Q-Former width, E ITC width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds

Features = dict[str, Tensor]  # by LAVIS' names


def image_features(branch: QFormerBranch, image: ImageEmbeds) -> Features:
    """Returns ``image_embeds`` (B, Q, D) and ``image_embeds_proj`` (B, Q, E), L2-normalised."""
    query_output = branch.query(image).last_hidden_state
    return {"image_embeds": query_output, "image_embeds_proj": branch.image_feats(query_output)}


def text_features(branch: QFormerBranch, text_ids: Tensor, text_atts: Tensor) -> Features:
    """Returns ``text_embeds`` (B, L, D) and ``text_embeds_proj`` (B, L, E), L2-normalised."""
    embeds = branch.encode_text(text_ids, text_atts)
    return {
        "text_embeds": embeds,
        "text_embeds_proj": F.normalize(branch.text_proj(embeds), dim=-1),
    }


def multimodal_features(
    branch: QFormerBranch, image: ImageEmbeds, text_ids: Tensor, text_atts: Tensor
) -> Features:
    """Returns ``multimodal_embeds`` (B, Q, D), the query output that knows the text."""
    return {"multimodal_embeds": branch.multimodal(image, text_ids, text_atts)}


def fuse_features(per_branch: Sequence[Mapping[str, Tensor]]) -> Features:
    """Puts the features of several branches into one container, CLIP's before SAM's.

    Args:
        per_branch: Features of each branch, all of the same kind.

    Returns:
        The same names. Query outputs stand one after the other along the query axis, text outputs
        side by side along the last axis; ``image_embeds_proj`` (B, sum of Q, sum of E) has one
        block of dimensions per branch and zeros elsewhere (see above). One branch is returned
        as it is.
    """
    if len(per_branch) == 1:
        return dict(per_branch[0])
    fused = {}
    for name in per_branch[0]:
        parts = [features[name] for features in per_branch]
        if name == "image_embeds_proj":
            fused[name] = _in_blocks(parts)
        else:
            fused[name] = torch.cat(parts, dim=-1 if name.startswith("text") else 1)
    return fused


def _in_blocks(parts: Sequence[Tensor]) -> Tensor:
    """Stacks (B, Q_i, E_i) along both axes, block-diagonally."""
    widths = [part.shape[-1] for part in parts]
    before = [sum(widths[:index]) for index in range(len(parts))]
    padded = [
        F.pad(part, (start, sum(widths) - start - part.shape[-1]))
        for part, start in zip(parts, before)
    ]
    return torch.cat(padded, dim=1)
