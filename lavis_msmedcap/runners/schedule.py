"""Learning rate schedules by optimizer step, under the names that LAVIS uses.

LAVIS changes the rate once per epoch and warms up inside the first epoch only; here both run over
the optimizer steps of the whole training, so that a warm-up longer than an epoch works and the
rate has no jumps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SchedulePlan:
    """The numbers a schedule is computed from.

    Attributes:
        init_lr: Rate at the end of the warm-up.
        min_lr: Rate that decay ends at.
        warmup_lr: Rate of the first warm-up step; negative means ``init_lr``.
        warmup_steps: Optimizer steps of the warm-up.
        decay_rate: Factor per epoch (step schedule).
        total_steps: Optimizer steps of the whole training.
        steps_per_epoch: Optimizer steps of one epoch.
    """

    init_lr: float
    min_lr: float = 0.0
    warmup_lr: float = -1.0
    warmup_steps: int = 0
    decay_rate: float = 1.0
    total_steps: int = 1
    steps_per_epoch: int = 1


def cosine_lr(plan: SchedulePlan, step: int) -> float:
    """Falls from ``init_lr`` after the warm-up to ``min_lr`` at the end along half a cosine."""
    span = max(plan.total_steps - plan.warmup_steps, 1)
    progress = min((step - plan.warmup_steps) / span, 1.0)
    return plan.min_lr + (plan.init_lr - plan.min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def step_lr(plan: SchedulePlan, step: int) -> float:
    """Multiplies the rate by ``decay_rate`` at every epoch, not below ``min_lr``."""
    epoch = step // max(plan.steps_per_epoch, 1)
    return max(plan.min_lr, plan.init_lr * plan.decay_rate**epoch)


def constant_lr(plan: SchedulePlan, step: int) -> float:  # noqa: ARG001 - one signature for all
    """Stays at ``init_lr``."""
    return plan.init_lr


SCHEDULES: dict[str, Callable[[SchedulePlan, int], float]] = {
    "linear_warmup_cosine_lr": cosine_lr,
    "linear_warmup_step_lr": step_lr,
    "constant_lr": constant_lr,
}


class LRSchedule:
    """Sets the learning rate of an optimizer for each step.

    A parameter group may carry ``lr_scale``, which multiplies its rate.

    Args:
        optimizer: Optimizer whose groups are set.
        name: A key of ``SCHEDULES``.
        plan: Rates and lengths.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, name: str, plan: SchedulePlan) -> None:
        self.optimizer = optimizer
        self.plan = plan
        self._decay = SCHEDULES[name]

    def rate(self, step: int) -> float:
        """Returns the rate of optimizer step ``step``, counted from 0."""
        plan = self.plan
        if step < plan.warmup_steps and plan.warmup_lr >= 0:
            return plan.warmup_lr + (plan.init_lr - plan.warmup_lr) * step / plan.warmup_steps
        if step < plan.warmup_steps:
            return plan.init_lr
        return self._decay(plan, step)

    def set_step(self, step: int) -> float:
        """Sets every group's rate for optimizer step ``step`` and returns the unscaled rate."""
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rate

    def step(self, cur_epoch: int, cur_step: int) -> float:
        """Same under LAVIS' signature: ``cur_step`` counts from 0 within epoch ``cur_epoch``."""
        return self.set_step(cur_epoch * self.plan.steps_per_epoch + cur_step)
