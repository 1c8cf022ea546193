"""A float16 LLM under ``run.amp: bf16``, the paper scale of then, stopped in the first step.

Autocast refuses to concatenate tensors of a type that is neither its own nor float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lavis_msmedcap.models.msmedcap import MSMedCap


def test_it_trains_and_writes(stage2_settings: dict[str, Any], packed_images: Tensor) -> None:
    stage2_settings["llm"]["precision"] = "fp16"
    model = MSMedCap.from_config(stage2_settings)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model({"image": packed_images, "text_input": ["a lesion"] * 5})["loss"]
        loss.backward()
        captions = model.generate({"image": packed_images}, max_length=3)
    assert torch.isfinite(loss)
    assert len(captions) == 5
