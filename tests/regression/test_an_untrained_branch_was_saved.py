"""A branch that no domain trains was saved with random weights, and used later without a word.

``model.branches.sam.train_on=[]`` beside ``init: scratch`` was no problem of the configuration; the
log said "which stage 1 has to train"; and whoever loaded the checkpoint was told nothing at all.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.models.starting_points import untrained_branches
from lavis_msmedcap.run_config import resolve_run_config

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"
IDLE = "model.branches.sam.train_on=[]"
A_FILE = "package:assets/demo/msmedcap.safetensors"


def problems_of(*options: str) -> list[str]:
    problems = resolve_run_config(PRETRAIN, list(options))[1]
    return [p for p in problems if p.startswith("model.branches.sam.train_on is []")]


def test_the_configuration_is_refused() -> None:
    (problem,) = problems_of(IDLE)
    assert "model.branches.sam.init is scratch, so the branch would be saved with random" in problem
    (problem,) = problems_of(IDLE, "model.branches.sam.init=clip")
    assert "model.branches.sam.init is clip" in problem
    assert problems_of(IDLE, f"model.branches.sam.init={A_FILE}") == []
    assert problems_of(IDLE, "run.evaluate=true") == []


@pytest.mark.parametrize(
    ("init", "untrained"),
    [
        ({}, ["clip", "sam"]),
        ({"clip": "scratch", "sam": "bert"}, ["clip", "sam"]),
        ({"clip": "blip2", "sam": "clip"}, ["sam"]),
        ({"clip": "blip2", "sam": "blip2"}, ["sam"]),  # it reads EVA's tokens
        ({"clip": "a.safetensors", "sam": "b.pth"}, []),
    ],
)
def test_which_starting_points_are_a_training(init: dict[str, str], untrained: list[str]) -> None:
    branches = {n: {"train_on": [], **({"init": init[n]} if init else {})} for n in ("clip", "sam")}
    assert untrained_branches({"branches": branches}) == untrained
    assert untrained_branches({"branches": branches, "load_finetuned": True}) == []
    without = {"branches": {**branches, "sam": None}}
    assert untrained_branches(without) == [name for name in untrained if name != "sam"]
    trained = {name: {**own, "train_on": ["medical"]} for name, own in branches.items()}
    assert untrained_branches({"branches": trained}) == []


@pytest.mark.parametrize("idle", [True, False])
def test_building_and_every_load_say_so(
    stage1_settings: dict[str, Any],
    stage2_settings: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    idle: bool,
) -> None:
    def warnings() -> list[str]:
        found = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        caplog.clear()
        return [text for text in found if "NEVER TRAINED" in text or "stay RANDOM" in text]

    settings = copy.deepcopy(stage1_settings)
    settings["branches"]["sam"]["train_on"] = [] if idle else ["medical"]
    model = Blip2DualQformer.from_config(settings)
    assert len(warnings()) == idle
    file = tmp_path / "stage1.safetensors"
    save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())

    MSMedCap.from_config({**stage2_settings, "stage1": str(file)})
    Blip2DualQformer.from_config(
        {**stage1_settings, "load_finetuned": True, "finetuned": str(file)}
    )
    started = copy.deepcopy(stage1_settings)
    for branch in started["branches"].values():
        branch["init"] = str(file)
    Blip2DualQformer.from_config(started)
    found = warnings()
    assert len(found) == 3 * idle
    assert all(text.startswith(f"branch sam of {file} was NEVER TRAINED") for text in found)
    stage2_settings["branches"]["sam"] = None
    MSMedCap.from_config({**stage2_settings, "stage1": str(file)})
    assert warnings() == []
