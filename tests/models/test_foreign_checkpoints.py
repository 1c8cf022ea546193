"""Loading files of BLIP-2 and of the authors' code: every key explained, else one clear error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis_models import lavis_stage1, lavis_stage2
from pickles import Payload
from safetensors.torch import save_file
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoint_names import from_ours, with_aliases
from lavis_msmedcap.models.checkpoints import read_any_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap

LAYER = "bert.encoder.layer.1.attention.output.dense.weight"
NORM = {"branches.clip.encoder.ln.weight": torch.full((24,), 1.5)}
NORM["branches.clip.encoder.ln.bias"] = torch.full((24,), 0.5)


def without_vit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: v for name, v in state.items() if not name.startswith("visual_encoder.")}


def as_authors(settings: dict[str, Any]) -> dict[str, Any]:
    """Gives the SAM encoder, in place, what the authors' code trains with."""
    settings["branches"]["sam"]["encoder"].update(tokens="channel", input="authors")
    return settings


def build(settings: dict[str, Any], **changes: Any) -> MSMedCap:
    torch.manual_seed(3)
    return MSMedCap.from_config({**settings, **changes})


@pytest.fixture
def clip_only(stage2_settings: dict[str, Any]) -> dict[str, Any]:
    branches = {**stage2_settings["branches"], "sam": None}
    return {**stage2_settings, "branches": branches}


@pytest.fixture
def blip2_file(stage2_settings: dict[str, Any], tmp_path: Path) -> Path:
    """Like ``blip2_pretrained_opt2.7b.pth``: what LAVIS trains, and a head of the LLM."""
    torch.manual_seed(9)
    model = lavis_stage2(stage2_settings)
    torch.nn.init.normal_(model.ln_vision.weight)
    state = without_vit(model.state_dict())
    assert "opt_model.lm_head.weight" in state
    torch.save({"model": state, "epoch": 3, "config": {"run": {"seed": 1}}}, tmp_path / "opt.pth")
    return tmp_path / "opt.pth"


@pytest.fixture
def authors_state(stage2_settings: dict[str, Any]) -> dict[str, Tensor]:
    """What the authors' stage 2 saves, with the constants of the SAM model that LAVIS keeps."""
    model = build(as_authors(stage2_settings))
    state = {name: torch.randn_like(v) for name, v in model.trainable_state_dict().items()}
    theirs = from_ours({**state, **NORM}, "authors")
    constants = {
        "sam_model.shared_image_embedding.positional_embedding": torch.ones(2, 4),
        "sam_Qformer.bert.embeddings.position_ids": torch.arange(4)[None],
    }
    return {**theirs, **constants}


def test_blip2_captioner_runs_in_a_model_of_the_clip_branch(
    clip_only: dict[str, Any], blip2_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = build(clip_only, load_finetuned=True, finetuned=str(blip2_file))
    state = torch.load(blip2_file, weights_only=True)["model"]
    assert torch.equal(model.query_tokens, state["query_tokens"])
    assert torch.equal(model.opt_proj.weight, state["opt_proj.weight"])
    assert torch.equal(model.ln_vision.weight, state["ln_vision.weight"])
    assert torch.equal(model.Qformer.state_dict()[LAYER], state[f"Qformer.{LAYER}"])
    assert "opt.pth (names of blip2)" in caplog.text
    assert "not needed (the frozen LLM has files of its own)" in caplog.text
    assert "not needed (a constant): 1" in caplog.text


def test_blip2_file_in_a_dual_model_names_every_missing_tensor_of_sam(
    stage2_settings: dict[str, Any], blip2_file: Path
) -> None:
    with pytest.raises(WeightsError) as error:
        build(stage2_settings, load_finetuned=True, finetuned=str(blip2_file))
    message = str(error.value)
    names = [n for n in build(stage2_settings).trainable_state_dict() if ".sam." in n]
    assert f"({len(names)} keys)" in message
    for name in names:
        head, _, tail = name.partition(".layer.")
        assert head in message
        assert tail[1:] in message  # without the number of the layer
    assert "layer.{0,1}.attention.self.query.weight" in message
    assert "nothing of the sam branch" in message
    assert "model.branches.sam=null" in message


def test_blip2_stage1_file_serves_as_stage1(
    clip_only: dict[str, Any], stage1_settings: dict[str, Any], tmp_path: Path
) -> None:
    theirs = without_vit(lavis_stage1(stage1_settings).state_dict())
    save_file({k: v.clone() for k, v in theirs.items()}, tmp_path / "blip2.safetensors")
    model = build(clip_only, stage1=str(tmp_path / "blip2.safetensors"))
    assert torch.equal(model.query_tokens, theirs["query_tokens"])
    with pytest.raises(WeightsError, match=r"holds a blip2_dual_qformer.*model\.stage1"):
        model.load_checkpoint(str(tmp_path / "blip2.safetensors"))


@pytest.mark.parametrize("text_half", [False, True])
def test_authors_captioner_runs_here(
    stage2_settings: dict[str, Any],
    authors_state: dict[str, Tensor],
    packed_images: Tensor,
    tmp_path: Path,
    text_half: bool,
) -> None:
    if text_half:  # as in the file that the authors merge for generation
        authors_state["sam_Qformer.bert.encoder.layer.0.intermediate.dense.weight"] = torch.ones(1)
        authors_state["Qformer.cls.predictions.bias"] = torch.ones(1)
    torch.save({"model": authors_state}, tmp_path / "authors.pth")
    model = build(stage2_settings, load_finetuned=True, finetuned=str(tmp_path / "authors.pth"))
    own = model.state_dict()
    assert torch.equal(own["branches.sam.llm_proj.weight"], authors_state["sam_opt_proj.weight"])
    assert torch.equal(own["branches.clip.encoder.ln.weight"], NORM[next(iter(NORM))])
    assert model.eval().visual_prefix(packed_images).shape == (5, 3 + 4, 24)


def test_authors_stage1_of_sam_alone_and_their_merge(
    stage1_settings: dict[str, Any], stage2_settings: dict[str, Any], tmp_path: Path
) -> None:
    as_authors(stage2_settings)
    dual = Blip2DualQformer.from_config(as_authors(stage1_settings))
    state = {**with_aliases(dual.trainable_state_dict()), **NORM}
    sam = from_ours({n: v for n, v in state.items() if ".sam." in n}, "authors")
    assert "itm_head.bias" in sam
    torch.save({"model": sam}, tmp_path / "sam.pth")
    clip = from_ours({n: v for n, v in state.items() if ".clip." in n}, "blip2")
    merged = {**clip, **{n: v for n, v in sam.items() if n.startswith("sam_")}}
    torch.save({"model": merged}, tmp_path / "merged.pth")

    model = build(stage2_settings, stage1=str(tmp_path / "merged.pth"))
    assert torch.equal(model.branch("sam").query_tokens, sam["sam_query_tokens"])
    with pytest.raises(WeightsError, match="nothing of the clip branch"):
        build(stage2_settings, stage1=str(tmp_path / "sam.pth"))
    stage1_settings["branches"]["clip"] = None
    alone = {**stage1_settings, "load_finetuned": True, "finetuned": str(tmp_path / "sam.pth")}
    assert torch.equal(
        Blip2DualQformer.from_config(alone).branch("sam").itm_head.bias, sam["itm_head.bias"]
    )


def drop_sam(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if name.startswith("sam_Qformer.")]:
        del state[name]


def rename(state: dict[str, Tensor]) -> None:
    state[f"Qformer.{LAYER}x"] = state.pop(f"Qformer.{LAYER}")


def reshape(state: dict[str, Tensor]) -> None:
    state["sam_query_tokens"] = torch.ones(1, 9, 16)


def spoil(state: dict[str, Tensor]) -> None:
    state["opt_proj.bias"][3] = float("nan")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (drop_sam, ["missing: branches.sam.qformer.bert.encoder.layer.{0,1}.attention"]),
        (rename, [f"missing: branches.clip.qformer.{LAYER}", f"unexpected: .*{LAYER}x"]),
        (reshape, [r"wrong shape: branches.sam.query_tokens is \(1, 9, 16\).*\(1, 4, 16\)"]),
        (reshape, ["model.branches.sam.encoder.tokens=channel"]),
        (spoil, ["not finite: branches.clip.llm_proj.bias"]),
        (lambda state: state.pop("ln_vision.bias"), ["missing: branches.clip.encoder.ln.bias"]),
        (lambda state: state.update({"t5_proj.bias": torch.ones(1)}), ["unexpected: t5_proj.bias"]),
    ],
)
def test_what_does_not_fit_is_one_error_that_names_it(
    stage2_settings: dict[str, Any],
    authors_state: dict[str, Tensor],
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], object],
    messages: list[str],
) -> None:
    change(authors_state)
    torch.save({"model": authors_state}, tmp_path / "authors.pth")
    model = build(stage2_settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for message in ["authors.pth .* does not fit", *messages]:
        with pytest.raises(WeightsError, match=message.replace("{", r"\{")):
            model.load_checkpoint(str(tmp_path / "authors.pth"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_truncated_file_and_file_of_another_kind(
    clip_only: dict[str, Any], blip2_file: Path, tmp_path: Path
) -> None:
    model = build(clip_only)
    content = blip2_file.read_bytes()
    blip2_file.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"opt\.pth is damaged"):
        model.load_checkpoint(str(blip2_file))
    torch.save({"bert.pooler.dense.bias": torch.ones(2)}, tmp_path / "bert.pth")
    with pytest.raises(WeightsError, match=r"no checkpoint of a Q-Former.*bert\.pooler"):
        model.load_checkpoint(str(tmp_path / "bert.pth"))


def test_a_file_with_code_in_it_is_refused_and_not_run(
    clip_only: dict[str, Any], blip2_file: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    state = torch.load(blip2_file, weights_only=True)
    torch.save({**state, "extra": Payload(marker)}, blip2_file)
    with pytest.raises(WeightsError, match="can run code"):
        build(clip_only).load_checkpoint(str(blip2_file))
    assert not marker.exists()


def test_a_file_that_brings_another_vit_is_refused(
    clip_only: dict[str, Any], stage2_settings: dict[str, Any], tmp_path: Path
) -> None:
    theirs = lavis_stage2(stage2_settings).state_dict()
    file = tmp_path / "caption_coco.pth"
    torch.save({"model": theirs}, file)
    with pytest.raises(WeightsError, match=r"set model\.branches\.clip\.encoder\.weights to this"):
        build(clip_only, load_finetuned=True, finetuned=str(file))
    encoder = clip_only["branches"]["clip"]["encoder"]
    encoder.update(weights=str(file), precision="bf16")
    model = build(clip_only, load_finetuned=True, finetuned=str(file))
    assert torch.equal(
        model.visual_encoder.cls_token, theirs["visual_encoder.cls_token"].bfloat16()
    )


def test_kind_and_branch_of_a_file_without_our_mark(tmp_path: Path) -> None:
    torch.save({"Qformer.x": torch.ones(1), "temp": torch.tensor(0.07)}, tmp_path / "q.pth")
    found = read_any_checkpoint(tmp_path / "q.pth", "sam")
    assert (found.kind, found.metadata) == ("blip2", {"arch": "unknown model"})
    assert set(found.tensors) == {"branches.sam.qformer.x", "branches.sam.temp"}
