from __future__ import annotations

import copy
from typing import Any

import pytest

from lavis_msmedcap.models.checkpoint_settings import (
    differences,
    facts_of_settings,
    trained_settings,
)
from lavis_msmedcap.run_config import resolve_run_config


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    config, _ = resolve_run_config("projects/msmedcap/evaluate.yaml", ["scale=paper"])
    return config.to_dict()["model"]  # type: ignore[no-any-return]


def compare(settings: dict[str, Any], branch: str, **encoder: Any) -> dict[str, Any]:
    """Changes an encoder and returns the last part of the keys that differ, each with our value."""
    ours = copy.deepcopy(settings)
    ours["branches"][branch]["encoder"].update(encoder)
    found = differences(facts_of_settings(settings), facts_of_settings(ours))
    return {d.key.removeprefix(f"model.branches.{branch}.encoder."): d.ours for d in found}


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        ({"tokens": "spatial", "input": "raw", "num_heads": 12, "pool": 4}, {}),  # the defaults
        ({"size": None, "width": 768, "depth": 12}, {}),
        ({"weights": "/data/sam_vit_b_01ec64.pth"}, {}),
        ({"weights": "elsewhere/medsam.pth"}, {"weights": "elsewhere/medsam.pth"}),
        ({"size": "vit_l", "weights": "x/sam_vit_b"}, {"size": "vit_l"}),
        ({"size": None, "depth": 10}, {"depth": 10}),
        ({"tokens": "spatial_pooled", "pool": 4}, {"tokens": "spatial_pooled"}),
    ],
)
def test_sam(paper: dict[str, Any], encoder: dict[str, Any], told: dict[str, Any]) -> None:
    assert compare(paper, "sam", **encoder) == told


def test_pool_counts_where_tokens_are_pooled(paper: dict[str, Any]) -> None:
    pooled = copy.deepcopy(paper)
    pooled["branches"]["sam"]["encoder"]["tokens"] = "spatial_pooled"
    assert compare(pooled, "sam", pool=2) == {}
    assert compare(pooled, "sam", pool=4) == {"pool": 4}


def test_another_clip_is_told_by_its_name_alone(paper: dict[str, Any]) -> None:
    assert compare(paper, "clip", name="clip_l", weights="clip_vit_l") == {"name": "clip_l"}
    assert compare(paper, "clip", freeze_ln=False, precision="fp32") == {}


ODD = (
    '{"branches": [1], "qformer": 3}',
    '{"branches": {"sam": "vit_b"}}',
    '{"branches": {"sam": {"encoder": [1]}}}',
    '{"branches": {"sam": {"encoder": {"name": "sam", "global_attn_indexes": 3}}}}',
    '{"pretrained": [1]}',
    '{"llm": "opt"}',
)


@pytest.mark.parametrize("note", ["", "not JSON", "[1]", "null", *ODD])
def test_a_note_of_others_is_no_section(note: str) -> None:
    assert trained_settings({"model": note}) == {}
    assert facts_of_settings(trained_settings({"model": note})) == {}
