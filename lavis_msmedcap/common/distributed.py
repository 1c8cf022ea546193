"""Rank and world size that also work without a process group, and gathers that keep gradients.

Without a process group every function behaves as in a world of size one, so that training code
needs no second path for a single process.

Dimensions: B batch of this process, G joint batch of all processes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class JointBatch:
    """The batch that all processes make together, as one of them sees it.

    Rows of the joint batch stand in the order of the ranks. Ranks may hold different numbers of
    them, none too: in a batch of several domains that is what a branch sees.

    Attributes:
        counts: Rows of each process.
        rank: This process.
        seed: For random choices within the joint batch, the same on every process. The first
            process draws it, so that it is the one that a single process draws.
    """

    counts: tuple[int, ...]
    rank: int = 0
    seed: int = 0

    @property
    def own(self) -> int:
        """B, rows of this process."""
        return self.counts[self.rank]

    @property
    def total(self) -> int:
        """G, rows of all processes."""
        return sum(self.counts)

    @property
    def start(self) -> int:
        """Place of the first row of this process in the joint batch."""
        return sum(self.counts[: self.rank])

    def sum(self, value: Tensor) -> Tensor:
        """Returns the sum of a tensor over the processes; without gradients."""
        return sum_over_ranks(value) if len(self.counts) > 1 else value.detach()


def meet(
    rows: Mapping[str, int], length: int, device: torch.device
) -> tuple[dict[str, JointBatch], int]:
    """Lets all processes tell each other what they bring to a step; each of them has to call it.

    One exchange and one wait for the device, whatever the number of branches.

    Args:
        rows: Samples of this process by branch, the same names on every process.
        length: Tokens of this process' longest text.
        device: Where the exchange takes place.

    Returns:
        The joint batch by branch, each with a seed of its own, and the largest of the lengths.
    """
    seed = int(torch.randint(2**62, ()))  # the first process' is taken
    facts = _gather_integers([length, seed, *rows.values()], device)
    lengths, seeds, *counts = zip(*facts)
    batches = {
        name: JointBatch(tuple(count), get_rank(), seeds[0] + place)
        for place, (name, count) in enumerate(zip(rows, counts))
    }
    return batches, max(lengths)


def _gather_integers(values: Sequence[int], device: torch.device) -> list[list[int]]:
    """Returns the integers of every rank."""
    if get_world_size() == 1:
        return [list(values)]
    own = torch.tensor(values, dtype=torch.int64, device=device)
    parts = [torch.empty_like(own) for _ in range(get_world_size())]
    dist.all_gather(parts, own)
    return torch.stack(parts).tolist()


class _GatherWithGrad(torch.autograd.Function):
    """Gathers rows; its backward sums the gradients that all ranks send back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, joint: JointBatch) -> Tensor:
        ctx.joint = joint
        return gather(tensor, joint)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        joint: JointBatch = ctx.joint
        # not in place: autograd may hand the same gradient to somebody else
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[joint.start : joint.start + joint.own], None


def gather_with_grad(tensor: Tensor, joint: JointBatch) -> Tensor:
    """Gathers the rows of the joint batch, letting gradients flow to every rank's part.

    The gradient of a row is the sum of what the losses of all ranks say about it.

    Args:
        tensor: (B, ...), of the same type and, behind the first axis, shape on every rank.
        joint: Says how many rows each rank has.

    Returns:
        (G, ...), ordered by rank.

    Raises:
        ValueError: If the tensor has another number of rows than ``joint`` says.
    """
    if len(joint.counts) == 1:
        return tensor
    return cast(Tensor, _GatherWithGrad.apply(tensor, joint))


@torch.no_grad()
def gather(tensor: Tensor, joint: JointBatch) -> Tensor:
    """Gathers the rows of the joint batch without gradients; see `gather_with_grad`."""
    if tensor.shape[0] != joint.own:
        raise ValueError(
            f"rank {joint.rank} gathers {tensor.shape[0]} rows, but told the others of {joint.own}"
        )
    if len(joint.counts) == 1:
        return tensor
    # a collective wants one shape: short parts are filled up, and cut again
    missing = max(joint.counts) - joint.own
    if missing:
        tensor = torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in joint.counts]
    dist.all_gather(parts, tensor)
    return torch.cat([part[:count] for part, count in zip(parts, joint.counts)])


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


def gather_objects(items: list[Any]) -> list[Any]:
    """Concatenates a list of picklable objects over all ranks, ordered by rank."""
    if get_world_size() == 1:
        return items
    parts: list[Any] = [None] * get_world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
