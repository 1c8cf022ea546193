"""Captioning with the frozen LLM: ``[CLIP queries | SAM queries | prompt]`` to text (Eq. 5-6).

Dimensions: B batch, P tokens of the visual prefix, L text tokens, D_lm LLM width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.common.distributed import get_world_size, sum_over_ranks
from lavis_msmedcap.models.precision import own_precision

IGNORED = -100


class CaptionLoss(NamedTuple):
    """Loss of a batch of captions.

    Attributes:
        loss: Scalar whose mean over the processes is the mean over the caption tokens of all of
            them; of one process alone it is that mean.
        logged: The same, detached, as the mean over the captions of all processes: it differs where
            processes hold different numbers of captions.
        per_sample: (B,) detached mean over each caption's tokens.
        tokens: Detached float scalar, caption tokens of all processes, at least 1.
    """

    loss: Tensor
    logged: Tensor
    per_sample: Tensor
    tokens: Tensor


def concat_prefix(parts: Iterable[Tensor]) -> Tensor:
    """Concatenates the branches' projected queries in the order CLIP, SAM (Eq. 5).

    Args:
        parts: Tensors (B, Q_i, D_lm).

    Returns:
        The visual prefix (B, P, D_lm).
    """
    return torch.cat(list(parts), dim=1)


def caption_loss(
    opt_model: Any, prefix: Tensor, input_ids: Tensor, attention_mask: Tensor, targets: Tensor
) -> CaptionLoss:
    """Runs the LLM over prefix and text and takes the loss on caption tokens only.

    Every token of the joint batch of all processes counts alike: the mean of the processes' means
    would let a token of a short caption count more where the other captions are short too.

    Args:
        opt_model: Frozen causal language model.
        prefix: float (B, P, D_lm) visual prefix.
        input_ids: int64 (B, L), prompt and caption, padded right.
        attention_mask: int64 (B, L).
        targets: int64 (B, L), -100 where no loss is taken.
    """
    embed = opt_model.get_input_embeddings()
    embeds = embed(input_ids)  # (B, L, D_lm)
    prefix_mask = attention_mask.new_ones(prefix.shape[:2])
    with own_precision(embeds):
        output = opt_model(
            inputs_embeds=torch.cat([prefix.to(embeds.dtype), embeds], dim=1),  # (B, P + L, D_lm)
            attention_mask=torch.cat([prefix_mask, attention_mask], dim=1),
            use_cache=False,  # keys and values of all layers would be returned and kept
            return_dict=True,
        )
    # the logit at position t predicts token t + 1; the first text token follows the last query
    logits = output.logits[:, prefix.shape[1] - 1 : -1].float()  # (B, L, V)
    token_loss = F.cross_entropy(
        logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )  # (B, L)
    counts = (targets != IGNORED).sum(dim=1)
    sums = token_loss.sum(dim=1)
    per_sample = (sums / counts.clamp_min(1)).detach()
    own = torch.stack([counts.sum(), counts.new_full((), len(counts))])
    tokens, captions = sum_over_ranks(own).to(sums.dtype).clamp_min(1)
    share = sums.sum() / tokens  # the shares of all processes add up to the mean
    return CaptionLoss(
        get_world_size() * share,  # DDP takes the mean of the processes' gradients
        share.detach() * captions / len(counts),
        per_sample,
        tokens,
    )
