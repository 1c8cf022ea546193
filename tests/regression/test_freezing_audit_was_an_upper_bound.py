"""The freezing audit let the ViT's layer norm train unasked, and frozen Q-Formers pass."""

from __future__ import annotations

from typing import Any

import pytest

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.msmedcap import MSMedCap


def test_a_layer_norm_trains_only_where_the_settings_say_so(
    stage1_settings: dict[str, Any],
) -> None:
    model = Blip2DualQformer.from_config(stage1_settings)
    model.branch("clip").encoder.ln.requires_grad_(True)
    with pytest.raises(
        WeightsError, match=r"clip\.encoder\.ln\.weight is trainable.*freeze_ln=fal"
    ):
        model.audit_trainable()
    stage1_settings["branches"]["clip"]["encoder"]["freeze_ln"] = False
    model = Blip2DualQformer.from_config(stage1_settings)
    assert model.audit_trainable()["clip.encoder"] == 2 * 24
    model.branch("clip").encoder.ln.requires_grad_(False)
    with pytest.raises(WeightsError, match=r"clip\.encoder\.ln\.weight is frozen"):
        model.audit_trainable()


@pytest.mark.parametrize("part", ["qformer", "llm_proj"])
def test_what_trains_must_not_be_frozen(stage2_settings: dict[str, Any], part: str) -> None:
    model = MSMedCap.from_config(stage2_settings)
    assert model.audit_trainable()[f"sam.{part}"] > 0
    getattr(model.branch("sam"), part).requires_grad_(False)
    with pytest.raises(WeightsError, match=rf"branches\.sam\.{part}\..* is frozen, but Q-Formers"):
        model.audit_trainable()
