from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lavis_msmedcap.runners.schedule import LRSchedule, SchedulePlan


def schedule(name: str, **numbers: float) -> LRSchedule:
    weight = torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [weight]}]
    return LRSchedule(torch.optim.SGD(groups, lr=1.0), name, SchedulePlan(**numbers))  # type: ignore[arg-type]


def test_cosine_starts_at_init_and_ends_near_min():
    cosine = schedule("linear_warmup_cosine_lr", init_lr=1.0, min_lr=0.1, total_steps=100)
    assert cosine.rate(0) == 1.0
    assert cosine.rate(50) == pytest.approx(0.55)
    assert cosine.rate(99) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 0.99)))
    assert cosine.rate(100) == pytest.approx(0.1)
    assert cosine.rate(1000) == pytest.approx(0.1)


def test_warmup_is_linear_and_meets_the_decay_without_a_jump():
    cosine = schedule(
        "linear_warmup_cosine_lr", init_lr=1.0, warmup_lr=0.2, warmup_steps=8, total_steps=20
    )
    assert [cosine.rate(step) for step in (0, 4, 8)] == pytest.approx([0.2, 0.6, 1.0])


def test_negative_warmup_lr_means_no_warmup_as_in_lavis():
    cosine = schedule("linear_warmup_cosine_lr", init_lr=1.0, warmup_steps=8, total_steps=20)
    assert cosine.rate(3) == 1.0


def test_step_schedule_decays_per_epoch_down_to_min():
    steps = schedule(
        "linear_warmup_step_lr", init_lr=1.0, min_lr=0.2, decay_rate=0.5, steps_per_epoch=10
    )
    assert [steps.rate(step) for step in (0, 9, 10, 20, 30)] == [1.0, 1.0, 0.5, 0.25, 0.2]


def test_constant():
    assert schedule("constant_lr", init_lr=0.3, total_steps=10).rate(9) == 0.3


def test_lavis_signature_and_group_scale():
    plan = schedule("constant_lr", init_lr=0.3)
    plan.optimizer.param_groups[0]["lr_scale"] = 0.5
    assert plan.step(cur_epoch=1, cur_step=3) == 0.3
    assert plan.optimizer.param_groups[0]["lr"] == pytest.approx(0.15)


@given(
    step=st.integers(0, 200),
    total=st.integers(1, 150),
    warmup=st.integers(0, 200),
    name=st.sampled_from(["linear_warmup_cosine_lr", "linear_warmup_step_lr", "constant_lr"]),
)
def test_rate_stays_between_its_bounds(step: int, total: int, warmup: int, name: str):
    rates = schedule(
        name,
        init_lr=1.0,
        min_lr=0.1,
        warmup_lr=0.1,
        warmup_steps=warmup,
        total_steps=total,
        steps_per_epoch=10,
        decay_rate=0.5,
    )
    assert 0.1 - 1e-12 <= rates.rate(step) <= 1.0
