"""A float64 checkpoint whose values are beyond float32 loaded, and left infinity in the Q-Former.

Finite was tested in the file's type, before the values were copied into the network's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.weights import load_strict

NAME = "branches.sam.qformer.bert.encoder.layer.1.attention.self.query.weight"


def test_a_checkpoint_beyond_the_range_is_refused(
    stage1_settings: dict[str, Any], tmp_path: Path
) -> None:
    model = Blip2DualQformer.from_config(stage1_settings)
    state = {name: value.double() for name, value in model.trainable_state_dict().items()}
    header = model.checkpoint_metadata()
    save_checkpoint(tmp_path / "sound.safetensors", state, header)
    state[NAME] = state[NAME] * 1e300
    save_checkpoint(tmp_path / "large.safetensors", state, header)
    model.load_checkpoint(str(tmp_path / "sound.safetensors"))
    before = model.state_dict()[NAME].clone()
    with pytest.raises(WeightsError, match=rf"too large: {NAME} does not fit.* torch\.float32"):
        model.load_checkpoint(str(tmp_path / "large.safetensors"))
    assert torch.equal(model.state_dict()[NAME], before)


@pytest.mark.parametrize(
    ("value", "hold", "fits"),
    [
        (1e39, torch.float32, False),
        (1e38, torch.float32, True),
        (1e39, torch.bfloat16, False),
        (3.4e38, torch.bfloat16, False),  # which rounds up
        (1e5, torch.float16, False),
        (1e300, torch.float64, True),
    ],
)
def test_of_any_target(value: float, hold: torch.dtype, fits: bool) -> None:
    target = torch.zeros(3, dtype=hold)
    weights = {"a": torch.tensor([0.0, value, -value], dtype=torch.float64)}
    if not fits:
        with pytest.raises(WeightsError, match="too large: a"):
            load_strict({"a": target}, weights, "file")
        assert not target.any()
        return
    load_strict({"a": target}, weights, "file")
    assert torch.isfinite(target).all()
    assert target[1] != 0
