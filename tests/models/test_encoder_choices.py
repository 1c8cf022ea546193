"""Encoders other than the default ones, chosen in YAML, in both models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from config_problems import other_problems
from tiny_models import TEXTS
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.encoders.clip_l import ClipLEncoder
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.run_config import resolve_run_config


def with_clip_l(settings: dict[str, Any]) -> dict[str, Any]:
    encoder = settings["branches"]["clip"]["encoder"]
    encoder["name"] = "clip_l"
    del encoder["mlp_ratio"]  # always 4
    return settings


@pytest.mark.parametrize("arch", [Blip2DualQformer, MSMedCap])
def test_clip_l_stands_in_for_eva_clip(
    arch: Any, stage1_settings: Any, stage2_settings: Any, packed_images: Tensor
) -> None:
    settings = stage1_settings if arch is Blip2DualQformer else stage2_settings
    model = arch.from_config(with_clip_l(settings)).train()
    encoder = model.branch("clip").encoder
    assert isinstance(encoder, ClipLEncoder)
    assert (model.visual_encoder, model.ln_vision) == (encoder.vit, encoder.ln)

    model({"image": packed_images, "text_input": TEXTS})["loss"].backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert model.query_tokens.grad.abs().sum() > 0
    assert "clip.encoder" not in model.audit_trainable()


def test_its_layer_norm_trains_where_that_is_asked_for(stage1_settings: dict[str, Any]) -> None:
    settings = with_clip_l(stage1_settings)
    settings["branches"]["clip"]["encoder"]["freeze_ln"] = False
    counts = Blip2DualQformer.from_config(settings).audit_trainable()
    assert counts["clip.encoder"] == 2 * 24


def test_an_unknown_encoder_is_named(stage1_settings: dict[str, Any]) -> None:
    stage1_settings["branches"]["clip"]["encoder"]["name"] = "clip_L"
    with pytest.raises(ValueError, match=r"encoder\.name is 'clip_L'; expected one of eva_clip, "):
        Blip2DualQformer.from_config(stage1_settings)


@pytest.mark.parametrize(
    "option",
    [
        "model={branches: {clip: {encoder: {name: clip_l, weights: clip_vit_l}}}, "
        "pretrained: {blip2: blip2_pretrained_vitL}}",
        "model.branches.sam.encoder.size=vit_l",
        "model.branches.sam.encoder.size=vit_h",
        "model.branches.sam.encoder.input=authors",
    ],
)
@pytest.mark.parametrize("run", ["pretrain_mixed", "caption"])
def test_one_option_chooses_it_at_the_papers_sizes(
    run: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"projects/msmedcap/{run}.yaml"
    _, problems = resolve_run_config(path, ["scale=paper", option])
    assert other_problems(problems) == []
    wanted = {"clip_vit_l": "clip_vit_l", "size=vit_l": "sam_vit_l", "size=vit_h": "sam_vit_h"}
    for part, weights in wanted.items():
        if part in option:
            assert any(f"encoder.weights: {weights} (" in problem for problem in problems)


def test_weights_of_another_encoder_are_told_before_anything_is_built() -> None:
    options = ["scale=paper", "model.branches.clip.encoder.name=clip_l"]
    _, problems = resolve_run_config("projects/msmedcap/pretrain_mixed.yaml", options)
    assert any("set model.branches.clip.encoder.weights=clip_vit_l" in p for p in problems)
    assert any("set model.pretrained.blip2=blip2_pretrained_vitL" in p for p in problems)
    options.append("model.branches.clip.init=blip2_pretrained")
    _, problems = resolve_run_config("projects/msmedcap/pretrain_mixed.yaml", options)
    assert any("set model.branches.clip.init=blip2_pretrained_vitL" in p for p in problems)


def test_sam_at_half_the_resolution(
    stage1_settings: dict[str, Any], tmp_path: Path, packed_images: Tensor
) -> None:
    """Weights of 64 pixels in a model of 32, whose views are of 32."""
    encoder = stage1_settings["branches"]["sam"]["encoder"]
    encoder["image_size"] = 64
    full = Blip2DualQformer.from_config(stage1_settings).branch("sam").encoder
    torch.save(full.state_dict(), tmp_path / "sam.pth")
    encoder.update(image_size=32, weights=str(tmp_path / "sam.pth"))
    model = Blip2DualQformer.from_config(stage1_settings)
    assert model.encode_image(packed_images)["sam"].embeds.shape == (5, 16, 16)

    encoder["width"] = 32
    with pytest.raises(WeightsError, match=r"sam\.pth holds a SAM encoder of width 24, depth 2"):
        Blip2DualQformer.from_config(stage1_settings)
