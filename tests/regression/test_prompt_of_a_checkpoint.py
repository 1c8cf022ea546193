"""A checkpoint was loaded whatever it had been trained with: prompt, SAM's tokens, its input.

Shapes are the same, so that nothing failed; the captions were worth nothing.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap

PROMPT = "Question: Describe the image. Answer:"


def test_prompt_of_a_captioner(stage2_settings: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "captioner.safetensors"
    trained = MSMedCap.from_config({**stage2_settings, "prompt": "a photo of"})
    save_checkpoint(file, trained.trainable_state_dict(), trained.checkpoint_metadata())
    here = MSMedCap.from_config(stage2_settings)
    before = here.query_tokens.clone()
    with pytest.raises(WeightsError) as caught:
        here.load_checkpoint(str(file))
    assert str(caught.value) == (
        f'{file} was trained with model.prompt "a photo of", but it is "{PROMPT}" here; set '
        'model.prompt="a photo of", or train again'
    )
    assert torch.equal(here.query_tokens, before)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("tokens", "spatial_pooled", '"spatial_pooled"'), ("input", "authors", '"authors"')],
)
def test_sam_encoder_of_stage_1(
    stage1_settings: dict[str, Any],
    stage2_settings: dict[str, Any],
    tmp_path: Path,
    key: str,
    value: str,
    told: str,
) -> None:
    other = copy.deepcopy(stage1_settings)
    other["branches"]["sam"]["encoder"][key] = value
    trained = Blip2DualQformer.from_config(other)
    file = tmp_path / "stage1.safetensors"
    save_checkpoint(file, trained.trainable_state_dict(), trained.checkpoint_metadata())
    (problem,) = MSMedCap.missing_inputs({**stage2_settings, "stage1": str(file)})
    assert problem.startswith(f"model.stage1: {file} was trained with ")
    assert f"set model.branches.sam.encoder.{key}={told}" in problem
    with pytest.raises(WeightsError, match=rf"model\.branches\.sam\.encoder\.{key}"):
        MSMedCap.from_config(stage2_settings).load_stage1(str(file))
