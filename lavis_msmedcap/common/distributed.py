"""Rank and world size that also work without a process group, and gathers that keep gradients.

Without a process group every function behaves as in a world of size one, so that training code
needs no second path for a single process.
"""

from __future__ import annotations

import os
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Tells whether a process group is running."""
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """Returns the rank of this process, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def get_local_rank() -> int:
    """Returns the number of this process on its machine as torchrun counts them, 0 without it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def get_world_size() -> int:
    """Returns the number of processes, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def is_main_process() -> bool:
    """Tells whether this process writes files and logs."""
    return get_rank() == 0


def barrier() -> None:
    """Waits for all processes; does nothing without a process group."""
    if is_distributed():
        dist.barrier()


class _GatherWithGrad(torch.autograd.Function):
    """All-gather along the batch whose backward sums the gradients that all ranks send back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = tensor.shape[0]
        parts = [torch.empty_like(tensor) for _ in range(get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        start = get_rank() * ctx.rows
        return grad[start : start + ctx.rows]


def gather_with_grad(tensor: Tensor) -> Tensor:
    """Concatenates a tensor over all ranks, letting gradients flow to every rank's part.

    Args:
        tensor: (B, ...), the same shape on every rank.

    Returns:
        (G, ...) with G = B times the world size, ordered by rank.
    """
    if get_world_size() == 1:
        return tensor
    return cast(Tensor, _GatherWithGrad.apply(tensor))


@torch.no_grad()
def gather(tensor: Tensor) -> Tensor:
    """Concatenates a tensor over all ranks, without gradients; see `gather_with_grad`."""
    if get_world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Returns the sum of a tensor over all ranks, on every rank; without gradients."""
    if get_world_size() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def max_over_ranks(tensor: Tensor) -> Tensor:
    """Returns the elementwise maximum of a tensor over all ranks, on every rank; no gradients."""
    if get_world_size() == 1:
        return tensor
    largest = tensor.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def global_max(value: int, device: torch.device) -> int:
    """Returns the largest of an integer over all ranks (used to pad texts to one length)."""
    if get_world_size() == 1:
        return value
    box = torch.tensor([value], device=device)
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return int(box.item())


def gather_objects(items: list[Any]) -> list[Any]:
    """Concatenates a list of picklable objects over all ranks, ordered by rank."""
    if get_world_size() == 1:
        return items
    parts: list[Any] = [None] * get_world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
