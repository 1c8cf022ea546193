"""A frozen layer norm that no file filled was "as expected", with a BLIP-2 checkpoint as reason.

EVA's published file has none. With a starting point other than BLIP-2's checkpoint it stays at 1
and 0 for ever, and the log said that it comes with the BLIP-2 checkpoint, which nobody had named.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap

Settings = dict[str, Any]


@pytest.fixture
def settings(stage1_settings: Settings, tmp_path: Path) -> Settings:
    """Of a stage 1 whose CLIP encoder is the file of a ViT alone."""
    vit = Blip2DualQformer.from_config(stage1_settings).visual_encoder
    save_file(
        {k: v.contiguous() for k, v in vit.state_dict().items()}, tmp_path / "eva.safetensors"
    )
    named = copy.deepcopy(stage1_settings)
    named["branches"]["clip"]["encoder"]["weights"] = str(tmp_path / "eva.safetensors")
    return named


@pytest.fixture
def blank(caplog: pytest.LogCaptureFixture) -> Any:
    """Returns how often a build says that nobody filled the layer norm."""

    def count(cls: Any, settings: Settings) -> int:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            cls.from_config(settings)
        assert "comes with the BLIP-2 checkpoint" not in caplog.text
        return sum("no file gave the layer norm" in r.getMessage() for r in caplog.records)

    return count


def test_it_is_said_where_it_is_so(settings: Settings, blank: Any, tmp_path: Path) -> None:
    assert blank(Blip2DualQformer, settings) == 1
    trained = Blip2DualQformer.from_config(settings)
    file = tmp_path / "stage1.safetensors"
    save_checkpoint(file, trained.trainable_state_dict(), trained.checkpoint_metadata())
    # what was trained behind it keeps it
    assert (
        blank(Blip2DualQformer, {**settings, "load_finetuned": True, "finetuned": str(file)}) == 0
    )
    settings["branches"]["clip"]["encoder"]["freeze_ln"] = False
    assert blank(Blip2DualQformer, settings) == 0
    settings["branches"]["clip"] = None
    assert blank(Blip2DualQformer, settings) == 0


def test_a_stage_1_that_brings_one_is_enough(
    settings: Settings, stage2_settings: Settings, blank: Any, tmp_path: Path
) -> None:
    captioner = {**stage2_settings, "branches": settings["branches"]}
    assert blank(MSMedCap, captioner) == 1
    own = copy.deepcopy(settings)
    own["branches"]["clip"]["encoder"]["freeze_ln"] = False
    trained = Blip2DualQformer.from_config(own)
    torch.nn.init.normal_(trained.ln_vision.weight)
    file = tmp_path / "stage1.safetensors"
    save_checkpoint(file, trained.trainable_state_dict(), trained.checkpoint_metadata())
    assert blank(MSMedCap, {**captioner, "stage1": str(file)}) == 0
