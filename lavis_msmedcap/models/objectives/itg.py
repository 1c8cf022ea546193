"""ITG, image-grounded text generation (paper 2.2, second objective); LAVIS calls it ``loss_lm``.

Dimensions: B batch, L text tokens, V vocabulary of the Q-Former's tokenizer.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.common.distributed import JointBatch

LABEL_SMOOTHING = 0.1  # LAVIS' BertLMHeadModel
IGNORED = -100


def generation_inputs(text_ids: Tensor, pad_id: int, start_id: int) -> tuple[Tensor, Tensor]:
    """Makes decoder inputs and labels from tokenised captions.

    Args:
        text_ids: int64 (B, L), first token [CLS].
        pad_id: Id of [PAD]; gets no loss.
        start_id: Id of [DEC], which takes the place of [CLS] and tells the Q-Former to generate.

    Returns:
        Decoder input ids and labels, int64 (B, L) each.
    """
    inputs = text_ids.clone()
    inputs[:, 0] = start_id
    return inputs, inputs.masked_fill(inputs == pad_id, IGNORED)


def generation_loss(logits: Tensor, labels: Tensor, joint: JointBatch) -> tuple[Tensor, Tensor]:
    """Next-token cross-entropy.

    Args:
        logits: float (B, L, V).
        labels: int64 (B, L), -100 where no loss is taken.
        joint: Whose label tokens the mean is over.

    Returns:
        This process' share of the mean over all label tokens of the joint batch (``loss_lm`` is the
        sum of the shares), and the mean per sample (B,).
    """
    targets = labels[:, 1:]
    token_loss = F.cross_entropy(
        logits[:, :-1].transpose(1, 2).float(),
        targets,
        ignore_index=IGNORED,
        label_smoothing=LABEL_SMOOTHING,
        reduction="none",
    )  # (B, L - 1), 0 at ignored positions
    counts = (targets != IGNORED).sum(dim=1)
    sums = token_loss.sum(dim=1)
    return sums.sum() / joint.sum(counts.sum()).clamp_min(1), sums / counts.clamp_min(1)
