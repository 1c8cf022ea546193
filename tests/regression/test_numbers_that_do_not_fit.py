"""Whole numbers and values beyond float16 went silently into networks of fractions.

A quantised file loaded as if its integers were the weights, and an encoder's weight of 1e6 became
infinite under ``precision: fp16``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.encoders.build import build_encoder

EVA = {"image_size": 16, "patch_size": 8, "width": 24, "depth": 2, "num_heads": 2}
SAM = {**EVA, "image_size": 32, "window_size": 2, "global_attn_indexes": [1], "out_chans": 16}
ENCODERS = {
    "eva_clip": (EVA, "vit.blocks.0.mlp.fc1.weight"),
    "clip_l": (EVA, "vit.transformer.resblocks.0.mlp.c_fc.weight"),
    "sam": (SAM, "vit.blocks.0.mlp.lin1.weight"),
}


def weights_of(name: str) -> dict[str, Tensor]:
    own = build_encoder(name, ENCODERS[name][0], None, "random").state_dict()
    return {key: value.clone() for key, value in own.items()}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_of_whole_numbers(name: str) -> None:
    sizes, key = ENCODERS[name]
    weights = weights_of(name)
    weights[key] = (weights[key] * 100).to(torch.int8)
    with pytest.raises(WeightsError, match=rf"wrong type: {key} holds int8 in the file.*float32"):
        build_encoder(name, sizes, weights, "quantised.pth")


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_beyond_float16(name: str) -> None:
    sizes, key = ENCODERS[name]
    weights = weights_of(name)
    weights[key][0, 0] = 1e6
    with pytest.raises(WeightsError, match=rf"big\.pth: {key} does not fit the range of fp16; use"):
        build_encoder(name, sizes, weights, "big.pth", "fp16")
    build_encoder(name, sizes, weights, "big.pth", "bf16")


def test_a_checkpoint_of_whole_numbers(stage1_settings: dict[str, Any], tmp_path: Path) -> None:
    model = Blip2DualQformer.from_config(stage1_settings)
    state = {n: (v * 100).int() for n, v in model.trainable_state_dict().items()}
    save_checkpoint(tmp_path / "int.safetensors", state, model.checkpoint_metadata())
    before = model.query_tokens.clone()
    with pytest.raises(WeightsError, match=r"wrong type: branches\.clip\.query_tokens holds int32"):
        model.load_checkpoint(str(tmp_path / "int.safetensors"))
    assert torch.equal(model.query_tokens, before)
