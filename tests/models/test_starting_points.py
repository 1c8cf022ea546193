"""``model.branches.<name>.init`` at every value, and what is no starting point."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis_models import lavis_stage1
from torch import Tensor

from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.branch import build_qformer
from lavis_msmedcap.models.build import qformer_size
from lavis_msmedcap.models.checkpoint_names import from_ours
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.models.starting_points import starting_points, starting_problems

SELF = "qformer.bert.encoder.layer.0.attention.self.query.weight"
CROSS = "qformer.bert.encoder.layer.0.crossattention.self.{}.weight"


def build(settings: dict[str, Any], seed: int = 1) -> Blip2DualQformer:
    torch.manual_seed(seed)
    return Blip2DualQformer.from_config(settings)


def with_init(settings: dict[str, Any], **init: str) -> dict[str, Any]:
    for name, value in init.items():
        settings["branches"][name]["init"] = value
    return settings


@pytest.fixture
def blip2(stage1_settings: dict[str, Any], tmp_path: Path) -> dict[str, Tensor]:
    """Writes ``blip2.pth`` and returns its tensors."""
    torch.manual_seed(5)
    state = lavis_stage1(stage1_settings).state_dict()
    state["ln_vision.bias"] = torch.full((24,), 0.25)
    torch.save({"model": state}, tmp_path / "blip2.pth")
    stage1_settings["pretrained"] = {"blip2": str(tmp_path / "blip2.pth")}
    return state


def test_blip2_by_word_and_by_path(
    stage1_settings: dict[str, Any], blip2: dict[str, Tensor], tmp_path: Path
) -> None:
    for value in ("blip2", str(tmp_path / "blip2.pth")):
        model = build(with_init(stage1_settings, clip=value))
        assert torch.equal(model.query_tokens, blip2["query_tokens"])
        assert torch.equal(model.ln_vision.bias, blip2["ln_vision.bias"])
        assert torch.equal(model.branch("clip").temp, blip2["temp"])


def test_blip2_for_the_sam_branch_leaves_what_reads_the_encoder_fresh(
    stage1_settings: dict[str, Any], blip2: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fresh = build(stage1_settings).branch("sam").state_dict()
    sam = build(with_init(stage1_settings, sam="blip2")).branch("sam").state_dict()
    assert torch.equal(sam[SELF], blip2["Q" + SELF[1:]])
    assert torch.equal(sam[CROSS.format("query")], blip2["Q" + CROSS.format("query")[1:]])
    for name in (CROSS.format("key"), CROSS.format("value"), "query_tokens"):
        assert torch.equal(sam[name], fresh[name])
    assert "image tokens of another width): 2" in caplog.text
    assert "different numbers of queries): 1" in caplog.text


def test_bert_by_word(stage1_settings: dict[str, Any], tmp_path: Path) -> None:
    size = qformer_size(stage1_settings["qformer"], 60)
    bert = {
        key: torch.randn_like(value)
        for key, value in build_qformer(size, 16, 4).state_dict().items()
        if not any(p in key for p in ("_query", "crossattention", "position_ids", "decoder"))
    }
    vocab = build(stage1_settings).branch("sam").qformer.config.vocab_size
    bert["bert.embeddings.word_embeddings.weight"] = torch.randn(vocab - 1, 16)
    bert["cls.predictions.bias"] = torch.randn(vocab - 1)
    torch.save(bert, tmp_path / "bert.pth")
    stage1_settings["pretrained"] = {"bert": str(tmp_path / "bert.pth")}
    sam = build(with_init(stage1_settings, sam="bert")).branch("sam").state_dict()
    assert torch.equal(sam[SELF], bert[SELF[8:]])
    dense = "qformer.bert.encoder.layer.1.intermediate{}.dense.weight"
    assert torch.equal(sam[dense.format("_query")], sam[dense.format("")])


def test_another_branch_is_copied_after_it_was_filled(
    stage1_settings: dict[str, Any], blip2: dict[str, Tensor]
) -> None:
    # sam stands behind clip in the settings; turned round, the order must not matter
    for names in (("clip", "sam"), ("sam", "clip")):
        branches = stage1_settings["branches"]
        stage1_settings["branches"] = {name: branches[name] for name in names}
        model = build(with_init(stage1_settings, clip="blip2", sam="clip"))
        assert list(model.branches) == list(names)
        sam = model.branch("sam").state_dict()
        assert torch.equal(sam[SELF], blip2["Q" + SELF[1:]])
        assert torch.equal(sam["itm_head.bias"], blip2["itm_head.bias"])
    own = dict(model.named_parameters())
    pointers = {own[f"branches.{name}.{SELF}"].data_ptr() for name in ("clip", "sam")}
    assert len(pointers) == 2  # copied, not shared


def test_clip_from_sam_keeps_its_layer_norm(stage1_settings: dict[str, Any]) -> None:
    model = build(with_init(stage1_settings, clip="sam"))
    clip, sam = (model.branch(name).state_dict() for name in ("clip", "sam"))
    assert torch.equal(clip[SELF], sam[SELF])
    assert not torch.equal(clip[CROSS.format("key")][:, :16], sam[CROSS.format("key")])
    assert torch.equal(model.ln_vision.weight, torch.ones(24))


def test_own_and_authors_checkpoints_by_path(
    stage1_settings: dict[str, Any], tmp_path: Path
) -> None:
    trained = build(stage1_settings, seed=8)
    state = trained.trainable_state_dict()
    save_checkpoint(tmp_path / "own.safetensors", state, trained.checkpoint_metadata())
    sam_only = {name: v for name, v in state.items() if ".sam." in name}
    torch.save({"model": from_ours(sam_only, "authors")}, tmp_path / "authors.pth")
    for file in ("own.safetensors", "authors.pth"):
        settings = with_init(stage1_settings, sam=str(tmp_path / file))
        own = build(settings).trainable_state_dict()
        assert all(torch.equal(own[name], value) for name, value in sam_only.items())
        assert not torch.equal(own[f"branches.clip.{SELF}"], state[f"branches.clip.{SELF}"])


def test_a_checkpoint_of_other_sizes_is_an_error_that_names_them(
    stage1_settings: dict[str, Any], blip2: dict[str, Tensor], tmp_path: Path
) -> None:
    blip2["query_tokens"] = torch.ones(1, 7, 16)
    torch.save({"model": blip2}, tmp_path / "blip2.pth")
    with pytest.raises(WeightsError, match=r"blip2\.pth.*\n.*query_tokens is \(1, 7, 16\)"):
        build(with_init(stage1_settings, clip="blip2"))


def test_a_word_and_its_file_must_agree(
    stage1_settings: dict[str, Any], blip2: dict[str, Tensor]
) -> None:
    stage1_settings["pretrained"]["bert"] = stage1_settings["pretrained"]["blip2"]
    with pytest.raises(WeightsError, match=r"model\.pretrained\.bert: .*expected a BERT"):
        build(with_init(stage1_settings, sam="bert"))


@pytest.mark.parametrize(
    ("init", "drop", "parts"),
    [
        ({"clip": "sam", "sam": "clip"}, None, ["branches.clip.init is sam and", "a circle"]),
        ({"sam": "sam"}, None, ["branches.sam.init is sam, which is the branch itself"]),
        ({"sam": "clip"}, "clip", ["branches.sam.init is clip, but that branch is null"]),
        ({"sam": "bert"}, None, ["sam.init is bert, but model.pretrained.bert names no file"]),
        ({"sam": "brt"}, None, ["sam.init is 'brt'", "did you mean bert?"]),
        ({"clip": "bilp2"}, None, ["clip.init is 'bilp2'", "did you mean blip2?"]),
        ({"clip": "nowhere/blip2.pth"}, None, ["clip.init: ", "nowhere/blip2.pth does not exist"]),
    ],
)
def test_what_is_no_starting_point(
    stage1_settings: dict[str, Any], init: dict[str, str], drop: str | None, parts: list[str]
) -> None:
    settings = with_init(stage1_settings, **init)
    if drop:
        settings["branches"][drop] = None
    with pytest.raises(ConfigError) as error:
        build(settings)
    for part in parts:
        assert part in str(error.value)


def test_stage2_needs_only_the_file_of_the_layer_norm(
    stage2_settings: dict[str, Any], blip2: dict[str, Tensor], tmp_path: Path
) -> None:
    settings = with_init(stage2_settings, clip="blip2", sam="bert")
    settings["pretrained"] = {"blip2": str(tmp_path / "blip2.pth"), "bert": "nowhere.pth"}
    model = MSMedCap.from_config(settings)
    assert torch.equal(model.ln_vision.bias, blip2["ln_vision.bias"])
    assert not torch.equal(model.query_tokens, blip2["query_tokens"])
    circle = with_init(stage2_settings, clip="sam", sam="clip")
    assert starting_points(circle, stage=2) == {}
    assert starting_problems(circle, stage=2) == []
    assert len(starting_problems(circle)) == 2


def test_blip2_checkpoint_as_encoder_weights_at_another_image_size(
    stage1_settings: dict[str, Any],
    blip2: dict[str, Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    encoder = stage1_settings["branches"]["clip"]["encoder"]
    encoder.update(weights=str(tmp_path / "blip2.pth"), image_size=32)
    model = build(stage1_settings)
    vit = model.visual_encoder
    assert torch.equal(vit.cls_token, blip2["visual_encoder.cls_token"])
    assert vit.pos_embed.shape == (1, 1 + 16, 24)
    assert torch.equal(vit.pos_embed[:, 0], blip2["visual_encoder.pos_embed"][:, 0])
    assert torch.equal(model.ln_vision.bias, blip2["ln_vision.bias"])
    assert not torch.equal(model.query_tokens, blip2["query_tokens"])
    assert "are its ViT" in caplog.text

    without = {k: v for k, v in blip2.items() if not k.startswith("visual_encoder.")}
    torch.save({"model": without}, tmp_path / "blip2.pth")
    with pytest.raises(WeightsError, match=r"holds a Q-Former, but no ViT"):
        build(stage1_settings)
