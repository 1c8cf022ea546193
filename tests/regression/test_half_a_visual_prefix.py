"""A captioner of both branches was evaluated on one of them, with nothing but a line in the log.

``model.branches.sam=null`` beside a checkpoint of both branches left the LLM half of the visual
prefix that it was trained behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_msmedcap import cli
from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoint_names import from_ours
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.run_config import resolve_run_config


def saved(model: Any, path: Path) -> Path:
    save_checkpoint(path, model.trainable_state_dict(), model.checkpoint_metadata())
    return path


def without(settings: dict[str, Any], branch: str, **changes: Any) -> dict[str, Any]:
    return {**settings, "branches": {**settings["branches"], branch: None}, **changes}


@pytest.mark.parametrize("branch", ["clip", "sam"])
def test_it_is_told_before_anything_is_built(branch: str) -> None:
    shipped = package_path("assets/demo/msmedcap.safetensors")
    options = [f"model.finetuned={shipped}", f"model.branches.{branch}=null"]
    _, problems = resolve_run_config("projects/msmedcap/evaluate.yaml", options)
    (problem,) = [p for p in problems if p.startswith("model.finetuned")]
    assert f"has a {branch} branch too, which is null here" in problem


@pytest.mark.parametrize("kind", ["ours", "cut", "authors"])
def test_every_load_refuses_it(stage2_settings: dict[str, Any], tmp_path: Path, kind: str) -> None:
    model = MSMedCap.from_config(stage2_settings)
    file = saved(model, tmp_path / "both.safetensors")
    state = model.trainable_state_dict()
    if kind == "cut":  # only the header knows
        state = {name: v for name, v in state.items() if ".clip." in name}
        save_checkpoint(file, state, model.checkpoint_metadata())
    elif kind == "authors":  # only the names know
        file = tmp_path / "both.pth"
        torch.save({"model": from_ours(state, "authors")}, file)
    alone = MSMedCap.from_config(without(stage2_settings, "sam"))
    before = alone.query_tokens.clone()
    with pytest.raises(WeightsError, match=r"has a sam branch too, .* Keep model\.branches\.sam"):
        alone.load_checkpoint(str(file))
    assert torch.equal(alone.query_tokens, before)


def test_the_cure_works(stage2_settings: dict[str, Any], tmp_path: Path) -> None:
    model = MSMedCap.from_config(stage2_settings)
    file = saved(model, tmp_path / "both.safetensors")
    half = tmp_path / "clip.safetensors"
    words = ["convert-checkpoint", str(file), str(half), "--to", "ours", "--branch", "clip"]
    assert cli.main(words) == 0
    loaded = {"load_finetuned": True, "finetuned": str(half)}
    alone = MSMedCap.from_config(without(stage2_settings, "sam", **loaded))
    assert torch.equal(alone.opt_proj.weight, model.opt_proj.weight)


def test_stage_1_may_leave_a_branch_out(
    stage1_settings: dict[str, Any], stage2_settings: dict[str, Any], tmp_path: Path
) -> None:
    model = Blip2DualQformer.from_config(stage1_settings)
    file = str(saved(model, tmp_path / "stage1.safetensors"))
    loaded = {"load_finetuned": True, "finetuned": file}
    alone = Blip2DualQformer.from_config(without(stage1_settings, "clip", **loaded))
    assert torch.equal(alone.query_tokens, model.branch("sam").query_tokens)
    captioner = MSMedCap.from_config(without(stage2_settings, "sam", stage1=file))
    assert torch.equal(captioner.query_tokens, model.query_tokens)
