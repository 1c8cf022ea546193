"""A SAM encoder in a checkpoint of the authors was passed over, a ViT was compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.checkpoint_names import from_ours, with_aliases
from lavis_msmedcap.models.encoders.sam_weights import HUGGING_FACE_PARTS
from lavis_msmedcap.models.msmedcap import MSMedCap


def as_hugging_face(name: str) -> str:
    for theirs, ours in reversed(HUGGING_FACE_PARTS.items()):
        name = name.replace(ours, theirs)
    return f"sam_model.vision_encoder.{name}"


@pytest.fixture
def model(stage2_settings: dict[str, Any]) -> MSMedCap:
    encoders = stage2_settings["branches"]
    encoders["sam"]["encoder"].update(tokens="channel", input="authors", precision="fp16")
    encoders["clip"]["encoder"]["freeze_ln"] = False
    torch.manual_seed(0)
    return MSMedCap.from_config(stage2_settings)


@pytest.fixture
def state(model: MSMedCap) -> dict[str, Tensor]:
    sam = model.branch("sam").encoder.vit.state_dict()
    brought = {as_hugging_face(name): value.float() for name, value in sam.items()}
    assert "sam_model.vision_encoder.layers.1.layer_norm1.weight" in brought
    return {**from_ours(with_aliases(model.trainable_state_dict()), "authors"), **brought}


def test_the_same_one_at_any_resolution(
    model: MSMedCap, state: dict[str, Tensor], tmp_path: Path
) -> None:
    name = "sam_model.vision_encoder.pos_embed"
    state[name] = torch.ones(1, 8, 8, state[name].shape[-1])
    torch.save({"model": state}, tmp_path / "theirs.pth")
    model.load_checkpoint(str(tmp_path / "theirs.pth"))


@pytest.mark.parametrize("change", [lambda v: v * 2 + 1, lambda v: torch.cat([v, v])])
def test_another_one(
    model: MSMedCap, state: dict[str, Tensor], tmp_path: Path, change: Any
) -> None:
    name = "sam_model.vision_encoder.layers.0.mlp.lin1.weight"
    state[name] = change(state[name])
    torch.save({"model": state}, tmp_path / "theirs.pth")
    message = r"brings the SAM encoder .*\(1 of \d+ .*model\.branches\.sam\.encoder\.weights to"
    with pytest.raises(WeightsError, match=message):
        model.load_checkpoint(str(tmp_path / "theirs.pth"))
