"""ITC, image-text contrastive learning (paper 2.2, third objective; BLIP-2's first loss).

Dimensions: B batch of this process, G joint batch of all processes, Q query tokens, E ITC width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.common.distributed import JointBatch, gather_with_grad

LABEL_SMOOTHING = 0.1  # LAVIS' Blip2Qformer


class Contrast(NamedTuple):
    """Result of the contrastive objective.

    Attributes:
        loss: (B,) loss per sample; the mean over the joint batch is ``loss_itc``.
        sim_i2t: (B, G) similarity of each image of this process to all texts, over temperature.
        sim_t2i: (B, G) similarity of each text of this process to all images, over temperature.
    """

    loss: Tensor
    sim_i2t: Tensor
    sim_t2i: Tensor


def image_text_contrast(
    image_feats: Tensor, text_feat: Tensor, temp: Tensor, joint: JointBatch
) -> Contrast:
    """Contrasts images and texts over the joint batch.

    The similarity of an image and a text is the largest over the image's queries. Negatives of
    other processes are gathered with gradients, so that training on several processes equals
    training on one with the joint batch. (LAVIS detaches them as soon as a process group exists;
    its own single-process form is the one matched here.)

    Args:
        image_feats: (B, Q, E), L2-normalised.
        text_feat: (B, E), L2-normalised.
        temp: Scalar temperature.
        joint: Whom the samples are contrasted with.

    Returns:
        Per-sample losses and the two similarity matrices.
    """
    image_feats_all = gather_with_grad(image_feats, joint)  # (G, Q, E)
    text_feat_all = gather_with_grad(text_feat, joint)  # (G, E)
    # (B, Q, G) -> (B, G)
    sim_i2t = torch.einsum("bqe,ge->bqg", image_feats, text_feat_all).amax(dim=1) / temp
    # (B, G, Q) -> (B, G)
    sim_t2i = torch.einsum("be,gqe->bgq", text_feat, image_feats_all).amax(dim=2) / temp
    targets = torch.arange(joint.own, device=image_feats.device) + joint.start
    loss_i2t = F.cross_entropy(sim_i2t, targets, label_smoothing=LABEL_SMOOTHING, reduction="none")
    loss_t2i = F.cross_entropy(sim_t2i, targets, label_smoothing=LABEL_SMOOTHING, reduction="none")
    return Contrast((loss_i2t + loss_t2i) / 2, sim_i2t, sim_t2i)
