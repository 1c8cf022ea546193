"""The optimizer over exactly the trainable parameters, and the norm of their gradient."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lavis_msmedcap.common.errors import MSMedCapError

logger = logging.getLogger(__name__)


class OptimizerError(MSMedCapError, ValueError):
    """Parameter groups that are not the trainable parameters of the model."""


def build_optimizer(
    model: nn.Module, lr: float, weight_decay: float, beta2: float = 0.999
) -> torch.optim.AdamW:
    """Makes AdamW over the model's own parameter groups.

    Args:
        model: Model with ``get_optimizer_params(weight_decay, lr_scale)``.
        lr: Rate before the schedule sets one.
        weight_decay: Decay of the groups that want it.
        beta2: Second moment decay.

    Raises:
        OptimizerError: If a frozen parameter is in a group, or a trainable one in none or in two.
    """
    groups: list[dict[str, Any]] = model.get_optimizer_params(  # type: ignore[operator]
        weight_decay=weight_decay, lr_scale=1
    )
    groups = [{**group, "params": list(group["params"])} for group in groups]
    _check_groups(model, groups)
    groups = [group for group in groups if group["params"]]
    count = sum(parameter.numel() for group in groups for parameter in group["params"])
    logger.info("optimizer: AdamW over %s trainable parameters", f"{count:,}")
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, betas=(0.9, beta2))


def _check_groups(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    if not wanted:
        raise OptimizerError(
            "the model has no trainable parameter; to evaluate only, set run.evaluate: true"
        )
    given = [id(parameter) for group in groups for parameter in group["params"]]

    def listed(ids: Iterable[int]) -> str:
        found = sorted(names.get(number, "<not a parameter of the model>") for number in ids)
        return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")

    problems = []
    if set(given) - wanted:
        problems.append(f"frozen parameters in a group: {listed(set(given) - wanted)}")
    if wanted - set(given):
        problems.append(f"trainable parameters in no group: {listed(wanted - set(given))}")
    if len(given) != len(set(given)):
        twice = {number for number in given if given.count(number) > 1}
        problems.append(f"parameters in two groups: {listed(twice)}")
    if problems:
        raise OptimizerError(
            f"{type(model).__name__}.get_optimizer_params() does not list the trainable "
            f"parameters: {'; '.join(problems)}"
        )


@torch.no_grad()
def clip_gradients(parameters: list[nn.Parameter], largest: float | None) -> Tensor:
    """Measures the L2 norm of all gradients together and scales them down to at most ``largest``.

    Args:
        parameters: Trainable parameters; those without a gradient are passed over.
        largest: Bound, or None to measure only.

    Returns:
        Scalar tensor: the norm before clipping, 0 if no parameter has a gradient.
    """
    if largest is not None:
        return torch.nn.utils.clip_grad_norm_(parameters, largest)
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        device = parameters[0].device if parameters else torch.device("cpu")
        return torch.zeros((), device=device)
    norms = torch.stack([torch.linalg.vector_norm(grad.float()) for grad in grads])
    return torch.linalg.vector_norm(norms)


@torch.no_grad()
def scale_gradients(parameters: list[nn.Parameter], factor: Tensor) -> None:
    """Multiplies all gradients in place.

    Args:
        parameters: Trainable parameters; those without a gradient are passed over.
        factor: Scalar.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor.to(parameter.grad))


def count_steps(batches: int, accumulate: int) -> int:
    """Returns the optimizer steps of an epoch; an incomplete last window makes a step too."""
    return math.ceil(batches / accumulate)
