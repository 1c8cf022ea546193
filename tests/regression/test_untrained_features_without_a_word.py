"""Features and matching scores came from random Q-Formers, and the log did not say so.

``load_model_and_preprocess("msmedcap_image_text_matching")`` gave other scores with every seed.
With ``init: bert`` queries, projections and heads were random too, and not in the report.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.models import load_model_and_preprocess

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.branch import build_qformer
from lavis_msmedcap.models.build import qformer_size
from lavis_msmedcap.models.checkpoints import save_checkpoint


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "mean nothing" in r.getMessage()]


@pytest.mark.parametrize("name", ["blip2_dual_qformer", "msmedcap_image_text_matching"])
def test_the_demo_says_once_that_it_is_random_and_what_to_do(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    load_model_and_preprocess(name, "demo", is_eval=True)
    (warning,) = warnings_of(caplog)
    assert warning.startswith("RANDOM weights in branch clip (all of it) and branch sam (all of it")
    assert "model.load_checkpoint(path)" in warning


def test_the_trained_captioner_has_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    load_model_and_preprocess("msmedcap", "demo", is_eval=True)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_bert_leaves_queries_and_heads_random(
    stage1_settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = Blip2DualQformer.from_config(stage1_settings)
    state = {n: v for n, v in start.trainable_state_dict().items() if ".clip." in n}
    save_checkpoint(tmp_path / "clip.safetensors", state, start.checkpoint_metadata())
    vocab = start.branch("sam").qformer.config.vocab_size
    bert = build_qformer(qformer_size(stage1_settings["qformer"], vocab), 16, 4).state_dict()
    beyond = ("_query", "crossattention", "position_ids", "decoder")
    torch.save(
        {key: v for key, v in bert.items() if not any(part in key for part in beyond)},
        tmp_path / "bert.pth",
    )
    stage1_settings["branches"]["clip"]["init"] = str(tmp_path / "clip.safetensors")
    stage1_settings["branches"]["sam"]["init"] = str(tmp_path / "bert.pth")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        Blip2DualQformer.from_config(stage1_settings)
    (warning,) = warnings_of(caplog)
    parts = "cross-attention, itm_head, query_tokens, temp, text_proj, vision_proj"
    assert warning.startswith(f"RANDOM weights in branch sam ({parts}), which stage 1")
    assert "scores of sam, and fused ones, mean nothing" in warning
    assert warning.endswith("ask for branch='clip' alone")
    assert "not in the file, as expected (fresh: BERT has no queries): 1" in caplog.text

    # what is copied from that branch is as random
    stage1_settings["branches"]["clip"]["init"] = "sam"
    caplog.clear()
    Blip2DualQformer.from_config(stage1_settings)
    (warning,) = warnings_of(caplog)
    assert "branch clip (cross-attention, itm_head, query" in warning


def test_trained_branches_have_nothing_to_say(
    stage1_settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = Blip2DualQformer.from_config(stage1_settings)
    file = tmp_path / "trained.safetensors"
    save_checkpoint(file, trained.trainable_state_dict(), trained.checkpoint_metadata())
    for name in ("clip", "sam"):
        stage1_settings["branches"][name]["init"] = str(file)
    caplog.clear()
    Blip2DualQformer.from_config(stage1_settings)
    loaded = {"load_finetuned": True, "finetuned": str(file)}
    Blip2DualQformer.from_config({**stage1_settings, **loaded})
    assert warnings_of(caplog) == []
