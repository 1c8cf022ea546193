"""What frozen networks compute in, and whether a device can, tried before anything is built."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.models.weights import PRECISIONS


def own_precision(embeds: Tensor) -> AbstractContextManager[Any]:
    """Returns the context that a frozen language model runs in.

    One that is held in 16 bits computes in them. Under autocast to another 16-bit type every weight
    would be cast anew and the copy kept for the backward pass, and mixed types are refused by some
    operations. One in float32 follows ``run.amp``.

    Args:
        embeds: Embedded text, of the type and on the device of the model.
    """
    if embeds.dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(embeds.device.type, enabled=False)


@torch.no_grad()
def precision_problem(precision: str, device: torch.device) -> str | None:
    """Runs the operations of the frozen networks once, on tensors of a few values.

    Older versions of torch lack some of them in float16 on a CPU, and older graphics cards lack
    bfloat16.

    Args:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        device: Where the networks will run.

    Returns:
        What failed, or None.
    """
    dtype = PRECISIONS[precision]
    if dtype == torch.float32:
        return None
    try:
        image = torch.ones(1, 2, 4, 4, dtype=dtype, device=device)
        tokens = F.conv2d(image, torch.ones(2, 2, 2, 2, dtype=dtype, device=device))
        tokens = tokens.flatten(2).transpose(1, 2)  # (1, 9, 2)
        tokens = F.layer_norm(tokens, (2,))
        scores = tokens @ tokens.transpose(1, 2) + torch.einsum("bij,bkj->bik", tokens, tokens)
        tokens = F.gelu(scores.softmax(dim=-1) @ tokens)
        F.relu(F.linear(tokens, torch.ones(3, 2, dtype=dtype, device=device))).float()
    except RuntimeError as error:
        return f"torch {torch.__version__} cannot compute in {precision} on {device.type} ({error})"
    return None
