"""What frozen networks compute in, and whether a device can, tried before anything is built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lavis_msmedcap.models.weights import PRECISIONS

PRODUCTS = (
    F.linear,
    F.conv2d,
    torch.conv2d,
    torch.einsum,
    torch.addmm,
    torch.baddbmm,
    torch.bmm,
    torch.matmul,
    Tensor.bmm,
    Tensor.matmul,
    Tensor.__matmul__,
)


class Float32Products(TorchFunctionMode):
    """Multiplies 16-bit matrices in float32 and rounds the result, for CPUs without 16-bit units.

    There PyTorch multiplies bfloat16 a hundred times slower than float32. Weights stay in 16 bits
    in memory; each is widened only while it is used. Results are at least as exact as in 16 bits,
    because nothing is rounded before the last step.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls ``func``, in float32 if it multiplies 16-bit matrices."""
        kwargs = kwargs or {}
        narrow = next((a.dtype for a in args if _is_narrow(a)), None) if func in PRODUCTS else None
        if narrow is None:
            return func(*args, **kwargs)
        widened = {key: _widen(value) for key, value in kwargs.items()}
        return func(*map(_widen, args), **widened).to(narrow)


def _is_narrow(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)


def _widen(value: Any) -> Any:
    return value.float() if _is_narrow(value) else value


def frozen_products(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Returns the context in which a frozen network multiplies without gradients.

    With gradients every widened weight would be kept for the backward pass, so nothing is widened.

    Args:
        dtype: What the network's weights are held in.
        device: Where it runs.
    """
    if device.type != "cpu" or torch.is_grad_enabled() or has_units(dtype):
        return contextlib.nullcontext()
    return Float32Products()


def has_units(dtype: torch.dtype) -> bool:
    """Tells whether this CPU multiplies a type in hardware, as far as PyTorch knows."""
    names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    if dtype not in names:
        return True
    # not public, and not in every version; without it PyTorch's own way is taken
    known = getattr(torch.ops.mkldnn, f"_is_mkldnn_{names[dtype]}_supported", None)
    return True if known is None else bool(known())


@contextlib.contextmanager
def own_precision(embeds: Tensor) -> Iterator[None]:
    """Is the context that a frozen language model runs in.

    One that is held in 16 bits computes in them. Under autocast to another 16-bit type every weight
    would be cast anew and the copy kept for the backward pass, and mixed types are refused by some
    operations. One in float32 follows ``run.amp``.

    Args:
        embeds: Embedded text, of the type and on the device of the model.
    """
    if embeds.dtype == torch.float32:
        yield
        return
    autocast_off = torch.autocast(embeds.device.type, enabled=False)
    with autocast_off, frozen_products(embeds.dtype, embeds.device):
        yield


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
