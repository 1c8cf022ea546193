"""A nan in one image's features stops a real model's training, with batch and image named.

In stage 1 it once failed earlier, in the draw of hard negatives, with no word of the image.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.runners.nonfinite import NonFiniteError
from lavis_msmedcap.runners.optimization import build_optimizer
from lavis_msmedcap.runners.precision import Precision
from lavis_msmedcap.runners.schedule import LRSchedule, SchedulePlan
from lavis_msmedcap.runners.training_loop import TrainingLoop

IMAGE_IDS = ["ct-1", "ct-2", "broken", "mr-4", "mr-5"]


@pytest.mark.parametrize("stage", ["stage1_settings", "stage2_settings"])
def test_the_image_is_named(
    request: pytest.FixtureRequest, tiny: ModuleType, packed_images: Tensor, stage: str
) -> None:
    settings: dict[str, Any] = request.getfixturevalue(stage)
    torch.manual_seed(0)
    model = (MSMedCap if "llm" in settings else Blip2DualQformer).from_config(settings)
    encoder = model.branch("sam").encoder
    encode = encoder.forward

    def plant(*views: Tensor) -> ImageEmbeds:
        output = encode(*views)
        output.embeds[IMAGE_IDS.index("broken"), 0, 0] = float("nan")
        return output

    encoder.forward = plant
    optimizer = build_optimizer(model, 1e-3, 0.0)
    schedule = LRSchedule(optimizer, "constant_lr", SchedulePlan(init_lr=1e-3))
    loop = TrainingLoop(
        model,
        lambda m, s: m(s),
        optimizer,
        schedule,
        Precision("off", torch.device("cpu")),
        tiny.Silent(),
    )
    before = {name: p.clone() for name, p in model.trainable_state_dict().items()}
    samples = {
        "image": packed_images,
        "text_input": ["a lesion", "a mass", "two red circles", "a hand", "a blue square"],
        "image_id": IMAGE_IDS,
        "dataset": ["roco"] * 5,
        "domain": ["medical"] * 5,
    }
    with pytest.raises(NonFiniteError, match="suspected images: broken; datasets: roco") as caught:
        loop.run_epoch([samples], 0)
    assert caught.value.image_ids == IMAGE_IDS
    after = model.trainable_state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
