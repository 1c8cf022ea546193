"""A checkpoint of the authors' code loaded into a model that shows SAM the picture itself.

It was trained on channels of a scrambled picture. The names fit, and so did the shapes once
``tokens: channel`` was set, as the error told; nothing said that ``input`` has to follow.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoint_names import from_ours, with_aliases
from lavis_msmedcap.models.checkpoints import ADDED
from lavis_msmedcap.models.msmedcap import MSMedCap

SAM = "model.branches.sam.encoder"


def sam_of(settings: dict[str, Any], **encoder: str) -> dict[str, Any]:
    settings["branches"]["sam"]["encoder"].update(encoder)
    return settings


@pytest.fixture
def theirs(stage2_settings: dict[str, Any], tmp_path: Path) -> Path:
    """Their captioner: names and values, nothing said of its training."""
    settings = sam_of(stage2_settings, tokens="channel", input="authors")
    settings["branches"]["clip"]["encoder"]["freeze_ln"] = False
    state = with_aliases(MSMedCap.from_config(settings).trainable_state_dict())
    state = from_ours({name: v.clone() for name, v in state.items()}, "authors")
    torch.save({"model": state}, tmp_path / "theirs.pth")
    save_file({name: v.clone() for name, v in state.items()}, tmp_path / "theirs.safetensors")
    return tmp_path / "theirs.pth"


def test_channels_of_the_raw_picture_are_refused(
    theirs: Path, stage2_settings: dict[str, Any]
) -> None:
    model = MSMedCap.from_config(sam_of(stage2_settings, tokens="channel", input="raw"))
    before = model.query_tokens.clone()
    with pytest.raises(WeightsError) as error:
        model.load_checkpoint(str(theirs))
    assert f'{SAM}.input "authors", but it is "raw" here' in str(error.value)
    assert f"{SAM}.tokens=channel and {SAM}.input=authors" in str(error.value)
    assert "model_type: authors" in str(error.value)
    assert torch.equal(model.query_tokens, before)


def test_a_safetensors_file_is_told_before_anything_is_built(
    theirs: Path, stage2_settings: dict[str, Any]
) -> None:
    settings = sam_of(stage2_settings, tokens="spatial", input="raw")
    settings.update(load_finetuned=True, finetuned=str(theirs.with_suffix(".safetensors")))
    with pytest.raises(ConfigError) as error:
        MSMedCap.from_config(settings)
    assert f"set {SAM}.tokens=" in str(error.value)
    assert f"set {SAM}.input=" in str(error.value)


def test_the_authors_input_and_files_that_know_better_load(
    theirs: Path, stage2_settings: dict[str, Any]
) -> None:
    settings = sam_of(stage2_settings, tokens="channel", input="authors")
    MSMedCap.from_config(settings).load_checkpoint(str(theirs))
    # a conversion of a checkpoint of ours: its notes say so
    content = torch.load(theirs, weights_only=True)
    torch.save({**content, "lavis_msmedcap": {ADDED: "[]"}}, theirs)
    settings = sam_of(stage2_settings, tokens="channel", input="raw")
    MSMedCap.from_config(settings).load_checkpoint(str(theirs))


def test_as_a_starting_point_it_is_a_warning(
    theirs: Path, stage1_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    trained = Blip2DualQformer.from_config(sam_of(stage1_settings, tokens="channel"))
    state = {n: v for n, v in trained.trainable_state_dict().items() if ".sam." in n}
    torch.save({"model": from_ours(state, "authors")}, theirs)
    stage1_settings["branches"]["sam"]["init"] = str(theirs)
    for value, warnings in (("raw", 1), ("authors", 0)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            Blip2DualQformer.from_config(sam_of(stage1_settings, input=value))
        said = [r for r in caplog.records if f"{SAM}.input=authors" in r.getMessage()]
        assert len(said) == warnings
