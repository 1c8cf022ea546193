from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask, mean_losses

NAN = float("nan")


class Fixed(nn.Module):
    """Gives the outputs that a test asks for."""

    def __init__(self, *outputs: dict[str, Any]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.outputs = list(outputs)

    def forward(self, samples: Any) -> dict[str, Any]:  # noqa: ARG002
        return self.outputs.pop(0)


def batch(dataset: str, *ids: str) -> dict[str, Any]:
    return {
        "image": torch.zeros(len(ids), 1),
        "image_id": list(ids),
        "dataset": [dataset] * len(ids),
    }


def test_losses_are_weighted_by_images_over_everything_and_per_dataset():
    task = MixedSemanticPretrainTask.setup_task(None)
    model = Fixed(
        {
            "loss": torch.tensor(3.0),
            "per_sample": {
                "sam/loss_itc": torch.tensor([1.0, 2.0, 3.0]),
                "clip/loss_itc": torch.tensor([4.0, 4.0, 1.0]),
            },
        },
        {
            "loss": torch.tensor(7.0),
            "per_sample": {
                "sam/loss_itc": torch.tensor([6.0]),
                "clip/loss_itc": torch.tensor([NAN]),
            },
        },
    )
    rows = task.evaluation(model, [batch("coco", "a", "b", "c"), batch("roco", "d")])
    result = task.after_evaluation(rows, "val", epoch=1, expected=None, weights="epoch 1")
    assert result == pytest.approx(
        {
            "agg_metrics": -4.0,
            "loss": (3 * 3 + 7) / 4,
            "clip/loss_itc": 3.0,
            "sam/loss_itc": 3.0,
            "coco/loss": 3.0,
            "coco/clip/loss_itc": 3.0,
            "coco/sam/loss_itc": 2.0,
            "roco/loss": 7.0,
            "roco/sam/loss_itc": 6.0,
        }
    )


def test_a_loss_that_is_not_finite_is_no_metric(caplog: pytest.LogCaptureFixture):
    task = MixedSemanticPretrainTask()
    rows = task.evaluation(Fixed({"loss": torch.tensor(NAN)}), [batch("roco", "a")])
    result = task.after_evaluation(rows, "val", epoch=3)
    assert result["agg_metrics"] is None
    assert math.isnan(result["loss"])
    assert "nan" in caplog.text


def test_validation_takes_no_gradients():
    class Watching(Fixed):
        def forward(self, samples: Any) -> dict[str, Any]:
            assert not torch.is_grad_enabled()
            return super().forward(samples)

    rows = MixedSemanticPretrainTask().evaluation(
        Watching({"loss": torch.tensor(1.0)}), [batch("roco", "a", "b")]
    )
    assert mean_losses(rows) == {"loss": 1.0, "roco/loss": 1.0}
