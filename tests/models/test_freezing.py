"""What trains: Q-Formers, queries and linear layers (the paper's rule), and how it is decayed."""

from __future__ import annotations

from typing import Any

import pytest

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer


def test_trainable_set_is_the_papers(stage1_settings: dict[str, Any]) -> None:
    model = Blip2DualQformer.from_config(stage1_settings)
    parts = {"qformer", "query_tokens", "vision_proj", "text_proj", "itm_head", "temp"}
    wanted = {f"{branch}.{part}" for branch in ("clip", "sam") for part in parts}
    assert set(model.audit_trainable()) == wanted
    assert "trainable:" in model.describe_trainable()
    names = {id(p) for p in model.parameters() if p.requires_grad}
    groups = model.get_optimizer_params(0.05)
    assert {id(p) for group in groups for p in group["params"]} == names
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert all(p.ndim < 2 for p in groups[1]["params"])
    model.branch("sam").encoder.vit.pos_embed.requires_grad_(True)
    with pytest.raises(WeightsError, match=r"sam\.encoder\.vit\.pos_embed is trainable"):
        model.audit_trainable()
