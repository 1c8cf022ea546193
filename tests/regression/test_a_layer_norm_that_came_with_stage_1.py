"""Captioners trained behind the layer norm of their stage 1 lost it.

A stage 1 that brings its own layer norm (trained here with ``freeze_ln: false``, or by LAVIS) gives
it to stage 2, which freezes it. The captioner's checkpoint did not hold it: it could not be loaded
under its own settings, and was converted with the encoder file's layer norm in its place.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis_models import lavis_stage1
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavis_msmedcap import cli
from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap

NORM = ("branches.clip.encoder.ln.weight", "branches.clip.encoder.ln.bias")
Settings = dict[str, Any]


def saved(model: Any, path: Path) -> Path:
    save_checkpoint(path, model.trainable_state_dict(), model.checkpoint_metadata())
    return path


@pytest.fixture
def encoder(stage1_settings: Settings, tmp_path: Path) -> Path:
    """The encoder's file, with a layer norm of its own."""
    model = Blip2DualQformer.from_config(stage1_settings)
    state = {k: v.contiguous() for k, v in model.branch("clip").encoder.state_dict().items()}
    save_file({**state, "ln.weight": torch.full((24,), 0.7)}, tmp_path / "eva.safetensors")
    return tmp_path / "eva.safetensors"


@pytest.fixture(params=["ours", "lavis"])
def stage1(
    request: pytest.FixtureRequest, encoder: Path, stage1_settings: Settings, tmp_path: Path
) -> Path:
    """A stage 1 of the CLIP branch whose layer norm was trained."""
    stage1_settings["branches"]["sam"] = None
    clip = stage1_settings["branches"]["clip"]["encoder"]
    clip["weights"] = str(encoder)
    if request.param == "ours":
        settings = {**clip, "freeze_ln": False}
        branches = {"clip": {**stage1_settings["branches"]["clip"], "encoder": settings}}
        model = Blip2DualQformer.from_config({**stage1_settings, "branches": branches})
        torch.nn.init.normal_(model.ln_vision.weight)
        return saved(model, tmp_path / "stage1.safetensors")
    theirs = lavis_stage1(stage1_settings)
    torch.nn.init.normal_(theirs.ln_vision.weight)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("visual_encoder.")}
    torch.save({"model": state}, tmp_path / "stage1.pth")
    return tmp_path / "stage1.pth"


def norm_of(stage1: Path) -> Tensor:
    if stage1.suffix == ".pth":
        return torch.load(stage1, weights_only=True)["model"]["ln_vision.weight"]
    return load_file(stage1)[NORM[0]]


@pytest.fixture
def settings(stage1: Path, stage1_settings: Settings, stage2_settings: Settings) -> Settings:
    return {**stage2_settings, "branches": stage1_settings["branches"], "stage1": str(stage1)}


def test_the_captioner_keeps_it_through_every_load(
    settings: Settings, stage1: Path, tmp_path: Path
) -> None:
    model = MSMedCap.from_config(settings)
    assert torch.equal(model.ln_vision.weight, norm_of(stage1))
    assert not model.ln_vision.weight.requires_grad
    model.audit_trainable()
    file = saved(model, tmp_path / "captioner.safetensors")
    stage1.unlink()
    again = {**settings, "stage1": None, "load_finetuned": True, "finetuned": str(file)}
    for step in range(2):  # also where it was trained further
        model = MSMedCap.from_config(again)
        again["finetuned"] = str(saved(model, tmp_path / f"again{step}.safetensors"))
    assert torch.equal(model.ln_vision.weight, load_file(file)[NORM[0]])
    target = tmp_path / "blip2.pth"
    assert cli.main(["convert-checkpoint", str(file), str(target), "--to", "blip2"]) == 0
    state = torch.load(target, weights_only=True)["model"]
    assert torch.equal(state["ln_vision.weight"], model.ln_vision.weight)
    assert torch.equal(state["ln_vision.bias"], model.ln_vision.bias)


def test_where_it_lacks_the_marks_tell(
    settings: Settings,
    stage1: Path,
    encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = saved(MSMedCap.from_config(settings), tmp_path / "captioner.safetensors")
    tensors, header = read_checkpoint(file)
    for name in NORM:
        del tensors[name]
    save_checkpoint(file, tensors, header)  # as it was written before
    again = {**settings, "stage1": None, "load_finetuned": True, "finetuned": str(file)}
    origin = rf"\(in the training model\.stage1 was {stage1}"
    cure = rf"set model\.branches\.clip\.init to the file that has that layer norm {origin}"
    with pytest.raises(WeightsError, match=cure):
        MSMedCap.from_config(again)
    again["branches"]["clip"]["init"] = str(stage1)
    assert torch.equal(MSMedCap.from_config(again).ln_vision.weight, norm_of(stage1))

    target = tmp_path / "blip2.pth"
    words = ["convert-checkpoint", str(file), str(target), "--to", "blip2"]
    for norm in ([], ["--layer-norm", str(encoder)]):
        assert cli.main([*words, *norm]) == 2
        error = capsys.readouterr().err
        assert "was trained behind another layer norm" in error
        assert f"model.stage1 was {stage1}" in error
        assert not target.exists()
    assert cli.main([*words, "--layer-norm", str(stage1)]) == 0
    state = torch.load(target, weights_only=True)["model"]
    assert torch.equal(state["ln_vision.weight"], norm_of(stage1))


def test_a_stage_1_without_one_leaves_the_checkpoint_as_it_was(
    stage1_settings: Settings, stage2_settings: Settings, tmp_path: Path
) -> None:
    file = saved(Blip2DualQformer.from_config(stage1_settings), tmp_path / "stage1.safetensors")
    model = MSMedCap.from_config({**stage2_settings, "stage1": str(file)})
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(model.trainable_state_dict()) == trainable
    assert json.loads(model.checkpoint_metadata()["model"])["stage1"] == str(file)
