"""``convert-checkpoint`` rewrote what a checkpoint says of itself.

``--cfg-path`` took the place of settings that the checkpoint carries, whatever it says that no
tensor shows (its recipe, its starting points), and a file noted as the SAM branch became a CLIP
branch by ``--branch clip``, with settings that have no branch at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavis_msmedcap import cli
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint


def convert(source: Path, target: Path, *words: object) -> int:
    return cli.main(["convert-checkpoint", str(source), str(target), *map(str, words)])


@pytest.fixture
def ours(stage1_settings: dict[str, Any], tmp_path: Path) -> Path:
    """A stage 1 of ours with its settings in the header."""
    model = Blip2DualQformer.from_config(stage1_settings)
    path = tmp_path / "ours.safetensors"
    save_checkpoint(path, model.trainable_state_dict(), model.checkpoint_metadata())
    return path


@pytest.mark.parametrize("has_settings", [True, False])
def test_settings_that_a_file_carries_stay(
    ours: Path, stage1_settings: dict[str, Any], tmp_path: Path, has_settings: bool
) -> None:
    if not has_settings:
        tensors, header = read_checkpoint(ours)
        save_checkpoint(ours, tensors, {"arch": header["arch"]})
    config = tmp_path / "run.yaml"
    stage1_settings["branches"]["sam"]["train_on"] = ["medical"]
    stage1_settings["qformer"]["dropout"] = 0.5
    config.write_text(yaml.safe_dump({"model": stage1_settings, "datasets": {}, "run": {}}))
    target = tmp_path / "sam.safetensors"
    words = ("--to", "ours", "--branch", "sam", "--cfg-path", config)
    assert convert(ours, target, *words) == 0
    model = json.loads(read_checkpoint(target)[1]["model"])
    kept = (["general", "medical"], 0.1) if has_settings else (["medical"], 0.5)
    assert (model["branches"]["sam"]["train_on"], model["qformer"]["dropout"]) == kept
    assert model["branches"]["clip"] is None


def test_settings_that_contradict_the_tensors_are_refused(
    ours: Path, stage1_settings: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    stage1_settings["branches"]["clip"]["num_query_token"] = 9
    config.write_text(yaml.safe_dump({"model": stage1_settings, "datasets": {}, "run": {}}))
    target = tmp_path / "clip.safetensors"
    assert convert(ours, target, "--to", "ours", "--branch", "clip", "--cfg-path", config) == 2
    assert not target.exists()


def test_a_branch_stays_the_one_that_it_is(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, back = tmp_path / "sam.pth", tmp_path / "back.safetensors"
    assert convert(ours, there, "--to", "blip2", "--branch", "sam") == 0
    assert convert(there, back, "--to", "ours", "--branch", "clip") == 2
    error = capsys.readouterr().err
    assert f"{there} was converted from a sam branch" in error
    assert "choose --branch sam, or leave that out" in error
    assert not back.exists()
    assert convert(there, back, "--to", "ours", "--branch", "sam") == 0
    tensors, header = read_checkpoint(back)
    assert {name.split(".")[1] for name in tensors} == {"sam"}
    assert json.loads(header["model"])["branches"]["sam"] is not None
