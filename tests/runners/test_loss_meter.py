from __future__ import annotations

from types import ModuleType

import pytest
import torch

from lavis_msmedcap.runners.loss_meter import LossMeter

NAN = float("nan")


def samples(datasets: list[str]) -> dict[str, object]:
    return {"image": torch.zeros(len(datasets), 2), "dataset": datasets}


def test_means_per_branch_objective_and_dataset():
    meter = LossMeter()
    meter.update(
        {
            "loss": torch.tensor(3.0, requires_grad=True),
            "logs": {"sam/loss_itc": torch.tensor(2.0), "clip/loss_itc": torch.tensor(1.0)},
            "per_sample": {
                "sam/loss_itc": torch.tensor([1.0, 2.0, 3.0]),
                "clip/loss_itc": torch.tensor([1.0, NAN, NAN]),
            },
        },
        samples(["coco", "roco", "roco"]),
    )
    meter.update(
        {
            "loss": torch.tensor(6.0),
            "logs": {"sam/loss_itc": torch.tensor(6.0)},
            "per_sample": {"sam/loss_itc": torch.tensor([6.0])},
        },
        samples(["roco"]),
    )
    sums = meter.read()
    assert sums.samples == 4
    assert sums.means() == pytest.approx(
        {
            "loss": (3 * 3 + 6) / 4,
            "sam/loss_itc": (3 * 2 + 6) / 4,
            "clip/loss_itc": 1.0,
            "coco/sam/loss_itc": 1.0,
            "coco/clip/loss_itc": 1.0,
            "roco/sam/loss_itc": (2 + 3 + 6) / 3,
        }
    )
    assert next(iter(sums.means())) == "loss"


def test_reading_starts_anew():
    meter = LossMeter()
    for value in (1.0, 5.0):
        meter.update({"loss": torch.tensor(value)}, samples(["roco"]))
        assert meter.read().means() == {"loss": value}
    assert meter.read().means() == {}


def test_a_branch_that_nobody_took_part_in_has_no_mean():
    meter = LossMeter()
    meter.update(
        {
            "loss": torch.tensor(1.0),
            "logs": {"clip/loss_lm": torch.tensor(NAN)},
            "per_sample": {"clip/loss_lm": torch.tensor([NAN, NAN])},
        },
        samples(["roco", "roco"]),
    )
    assert meter.read().means() == {"loss": 1.0}


def test_works_without_logs_and_datasets(tiny: ModuleType):
    meter = LossMeter()
    meter.update({"loss": torch.tensor(1.0)}, {"image": torch.zeros(3, 1)})
    assert meter.read().means() == {"loss": 1.0}
