"""A float16 LLM under ``run.amp: bf16``, the paper scale of then, stopped in the first step.

Autocast refuses to concatenate tensors of a type that is neither its own nor float32. Training so
is refused now, because nothing scales the gradient; evaluation works.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_msmedcap import cli
from lavis_msmedcap.models.msmedcap import MSMedCap


def test_training_is_refused_with_the_cure(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--options", "run.amp=bf16", "model.llm.precision=fp16", "model.stage1=null"]
    assert cli.main(["config", "projects/msmedcap/caption.yaml", *options]) == 2
    assert "set model.llm.precision=bf16, or run.amp=fp16" in capsys.readouterr().err


def test_it_computes_and_writes(stage2_settings: dict[str, Any], packed_images: Tensor) -> None:
    stage2_settings["llm"]["precision"] = "fp16"
    model = MSMedCap.from_config(stage2_settings)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model({"image": packed_images, "text_input": ["a lesion"] * 5})["loss"]
        loss.backward()
        captions = model.generate({"image": packed_images}, max_length=3)
    assert torch.isfinite(loss)
    assert len(captions) == 5
