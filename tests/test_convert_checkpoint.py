"""``msmedcap convert-checkpoint``: what is trained here runs in stock BLIP-2, and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from lavis_models import lavis_stage1, lavis_stage2
from packaging.version import Version
from safetensors.torch import load_file
from tiny_models import TEXTS
from torch import Tensor

from lavis_msmedcap import cli
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.imaging.views import normalize_clip, unpack_views
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap

EPOCH = {"epoch": "3", "best_metric": "0.5"}


def convert(*words: object) -> int:
    return cli.main(["convert-checkpoint", *map(str, words)])


def converted(*words: object) -> None:
    assert convert(*words) == 0


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert convert(*words) == 2
    return capsys.readouterr().err


@pytest.fixture
def encoder_file(stage1_settings: dict[str, Any], tmp_path: Path) -> Path:
    """A BLIP-2 checkpoint with ViT and layer norm, which both models start from."""
    torch.manual_seed(2)
    model = lavis_stage1(stage1_settings)
    torch.nn.init.normal_(model.ln_vision.weight)
    torch.nn.init.normal_(model.ln_vision.bias)
    with torch.no_grad():  # BERT's initial spread of 0.02 would leave the image without influence
        for parameter in model.visual_encoder.parameters():
            parameter.mul_(20 if parameter.ndim > 1 else 1)
    torch.save({"model": model.state_dict()}, tmp_path / "start.pth")
    return tmp_path / "start.pth"


def trained(model: Any, file: Path) -> Any:
    """Gives a model random weights that matter, as training would, and writes its checkpoint."""
    torch.manual_seed(4)
    for parameter in model.trainable_state_dict().values():
        parameter.add_(torch.randn_like(parameter) * 0.5)
    for name in model.branches:
        if hasattr(model.branch(name), "temp"):
            model.branch(name).temp.data.fill_(0.07)
    save_checkpoint(file, model.trainable_state_dict(), {**model.checkpoint_metadata(), **EPOCH})
    return model.eval()


@pytest.fixture
def stage1(stage1_settings: dict[str, Any], encoder_file: Path, tmp_path: Path) -> Any:
    stage1_settings["branches"]["clip"]["encoder"]["weights"] = str(encoder_file)
    return trained(Blip2DualQformer.from_config(stage1_settings), tmp_path / "stage1.safetensors")


@pytest.fixture
def stage2(stage2_settings: dict[str, Any], encoder_file: Path, tmp_path: Path) -> Any:
    stage2_settings["branches"]["clip"]["encoder"]["weights"] = str(encoder_file)
    return trained(MSMedCap.from_config(stage2_settings), tmp_path / "stage2.safetensors")


def same_checkpoint(first: Path, second: Path, without: str = "nothing") -> None:
    (ours, metadata), (again, again_metadata) = map(read_checkpoint, (first, second))
    kept = {name: value for name, value in ours.items() if without not in name}
    assert again.keys() == kept.keys()
    assert all(
        torch.equal(again[n], v) and again[n].dtype == v.dtype and again[n].shape == v.shape
        for n, v in kept.items()
    )
    if without == "nothing":
        assert again_metadata == metadata


# --- in stock BLIP-2 -----------------------------------------------------------------------------


@pytest.mark.parity
def test_clip_branch_of_stage1_runs_in_stock_blip2(
    stage1: Any, stage1_settings: dict[str, Any], packed_images: Tensor, tmp_path: Path
) -> None:
    converted(tmp_path / "stage1.safetensors", tmp_path / "b.pth", "--to=blip2", "--branch=clip")
    theirs = lavis_stage1(stage1_settings).eval()
    message = theirs.load_checkpoint(str(tmp_path / "b.pth"))
    assert message.unexpected_keys == []
    missing = [k for k in message.missing_keys if not k.startswith("visual_encoder.")]
    assert missing == ["Qformer.bert.embeddings.position_ids"]  # a constant
    theirs.visual_encoder.load_state_dict(stage1.visual_encoder.state_dict())  # eva_vit_g.pth there
    view = normalize_clip(unpack_views(packed_images).clip)
    for mode, field in (
        ("image", "image_embeds_proj"),
        ("text", "text_embeds_proj"),
        ("multimodal", "multimodal_embeds"),
    ):
        expected = theirs.extract_features({"image": view, "text_input": TEXTS}, mode)[field]
        found = stage1.extract_features({"image": packed_images, "text_input": TEXTS}, mode)[field]
        assert float(found.std()) > 0.05
        # the same operations on the same bits, only LAVIS' layer norm casts back and forth
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parity
def test_clip_branch_of_stage2_runs_in_stock_blip2_opt(
    stage2: Any, stage2_settings: dict[str, Any], packed_images: Tensor, tmp_path: Path
) -> None:
    converted(tmp_path / "stage2.safetensors", tmp_path / "b.pth", "--to=blip2", "--branch=clip")
    theirs = lavis_stage2(stage2_settings).eval()
    theirs.load_checkpoint(str(tmp_path / "b.pth"))
    theirs.visual_encoder.load_state_dict(stage2.visual_encoder.state_dict())
    theirs.opt_model = stage2.opt_model  # LAVIS rounds it to half precision
    ours = MSMedCap(
        {"clip": stage2.branch("clip")},
        stage2.opt_model,
        stage2.opt_tokenizer,
        stage2.prompt,
        stage2.max_txt_len,
    ).eval()
    view = normalize_clip(unpack_views(packed_images).clip)
    prompted = [f"{stage2.prompt} {text}" for text in TEXTS]  # LAVIS' dataset does it
    expected = theirs({"image": view, "text_input": prompted})["loss"]
    loss = ours({"image": packed_images, "text_input": TEXTS})["loss"]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    if Version(transformers.__version__) < Version("4.27"):  # where LAVIS 1.0.2 generates
        captions = theirs.generate({"image": view}, num_beams=3, max_length=16)
        assert ours.generate({"image": packed_images}, num_beams=3, max_length=16) == captions
        assert len(set(captions)) > 1


@pytest.mark.parity
def test_training_goes_on_in_stock_blip2_and_comes_back(
    stage2: Any, stage2_settings: dict[str, Any], packed_images: Tensor, tmp_path: Path
) -> None:
    """What LAVIS saves after a step has the LLM's head and constants, and no notes of ours."""
    converted(tmp_path / "stage2.safetensors", tmp_path / "b.pth", "--to=blip2", "--branch=clip")
    theirs = lavis_stage2(stage2_settings)
    theirs.load_checkpoint(str(tmp_path / "b.pth"))
    theirs.visual_encoder.load_state_dict(stage2.visual_encoder.state_dict())
    view = normalize_clip(unpack_views(packed_images).clip)
    prompted = [f"{stage2.prompt} {text}" for text in TEXTS]
    theirs({"image": view, "text_input": prompted})["loss"].backward()
    torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], 0.1).step()
    torch.save({"model": theirs.state_dict(), "epoch": 0}, tmp_path / "checkpoint_0.pth")
    ours, arch = tmp_path / "ours.safetensors", "--arch=msmedcap"
    converted(tmp_path / "checkpoint_0.pth", ours, "--to=ours", arch)
    stage2_settings["branches"]["sam"] = None
    model = MSMedCap.from_config(
        {**stage2_settings, "load_finetuned": True, "finetuned": str(ours)}
    )
    assert torch.equal(model.opt_proj.weight, theirs.opt_proj.weight)
    assert torch.equal(model.ln_vision.weight, theirs.ln_vision.weight)
    assert not torch.equal(model.ln_vision.weight, stage2.ln_vision.weight)  # LAVIS trains it


# --- there and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_round_trip_over_the_authors_names(
    request: Any, tmp_path: Path, stage: str, suffix: str
) -> None:
    request.getfixturevalue(stage)
    source, there = tmp_path / f"{stage}.safetensors", tmp_path / f"there.{suffix}"
    converted(source, there, "--to=authors")
    converted(there, tmp_path / "back.safetensors", "--to=ours")
    same_checkpoint(source, tmp_path / "back.safetensors")


@pytest.mark.parametrize("branch", ["clip", "sam"])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_round_trip_over_blip2_names(request: Any, tmp_path: Path, stage: str, branch: str) -> None:
    request.getfixturevalue(stage)
    other = {"clip": "sam", "sam": "clip"}[branch]
    source, there = tmp_path / f"{stage}.safetensors", tmp_path / "there.pth"
    converted(source, there, "--to=blip2", "--branch", branch)
    converted(there, tmp_path / "back.safetensors", "--to=ours")
    same_checkpoint(source, tmp_path / "back.safetensors", without=f"branches.{other}.")
    # once more, from a model of one branch: now the header is the same too
    converted(tmp_path / "back.safetensors", there, "--to=blip2", "--force")
    converted(there, tmp_path / "again.safetensors", "--to=ours")
    same_checkpoint(tmp_path / "back.safetensors", tmp_path / "again.safetensors")


def test_trained_layer_norm_survives(stage2_settings: dict[str, Any], tmp_path: Path) -> None:
    stage2_settings["branches"]["clip"]["encoder"]["freeze_ln"] = False
    trained(MSMedCap.from_config(stage2_settings), tmp_path / "a.safetensors")
    converted(tmp_path / "a.safetensors", tmp_path / "a.pth", "--to=authors")
    converted(tmp_path / "a.pth", tmp_path / "back.safetensors", "--to=ours")
    same_checkpoint(tmp_path / "a.safetensors", tmp_path / "back.safetensors")
    assert "branches.clip.encoder.ln.weight" in load_file(tmp_path / "back.safetensors")


def test_the_captioner_that_ships_goes_there_and_back(tmp_path: Path) -> None:
    """Its header has no settings; none are asked for on the way back."""
    shipped = package_path("assets/demo/msmedcap.safetensors")
    norm = package_path("assets/demo/eva_clip.safetensors")
    converted(shipped, tmp_path / "there.pth", "--to=authors", "--layer-norm", norm)
    converted(tmp_path / "there.pth", tmp_path / "back.safetensors", "--to=ours")
    same_checkpoint(shipped, tmp_path / "back.safetensors")
    arguments = ("--to=blip2", "--branch=clip", "--cfg-path", "projects/msmedcap/evaluate.yaml")
    converted(shipped, tmp_path / "blip2.pth", *arguments)
    state = torch.load(tmp_path / "blip2.pth", weights_only=True)["model"]
    assert torch.equal(state["ln_vision.weight"], load_file(norm)["ln.weight"])


# --- files of others -----------------------------------------------------------------------------


@pytest.fixture
def foreign(stage2: Any, tmp_path: Path) -> Path:
    """The authors' captioner: the same tensors, and nothing else said of it."""
    converted(tmp_path / "stage2.safetensors", tmp_path / "there.pth", "--to=authors")
    state = torch.load(tmp_path / "there.pth", weights_only=True)["model"]
    torch.save({"model": state}, tmp_path / "authors.pth")
    return tmp_path / "authors.pth"


def test_settings_come_from_the_run_configuration(
    foreign: Path,
    stage2: Any,
    stage2_settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "ours.safetensors"
    error = refused(capsys, foreign, target, "--to=ours")
    assert "--cfg-path, or --arch msmedcap" in error
    config = tmp_path / "run.yaml"
    settings = {**stage2_settings, "prompt": "my prompt"}
    config.write_text(yaml.safe_dump({"model": settings, "datasets": {}, "run": {}}))
    converted(foreign, target, "--to=ours", "--cfg-path", config)
    tensors, metadata = read_checkpoint(target)
    assert metadata["arch"] == "msmedcap"
    assert "my prompt" in metadata["model"]
    assert torch.equal(tensors["branches.clip.encoder.ln.bias"], stage2.ln_vision.bias)
    settings["arch"] = "blip2_dual_qformer"
    config.write_text(yaml.safe_dump({"model": settings, "datasets": {}, "run": {}}))
    arguments = (foreign, target, "--to=ours", "--force", "--cfg-path", config)
    assert "the checkpoint is of a msmedcap" in refused(capsys, *arguments)
    arguments = (foreign, target, "--to=ours", "--force", "--arch", "blip2_dual_qformer")
    assert "is of a msmedcap by its names" in refused(capsys, *arguments)


def test_what_became_of_every_key_is_printed(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(foreign, weights_only=True)
    content["model"]["sam_model.shared_image_embedding.positional_embedding"] = torch.ones(2)
    content["model"]["Qformer.cls.predictions.bias"] = torch.ones(2)
    torch.save(content, foreign)
    capsys.readouterr()
    converted(foreign, tmp_path / "ours.safetensors", "--to=ours", "--arch=msmedcap")
    output = capsys.readouterr().out
    assert "authors.pth: names of authors" in output
    assert "not needed (the frozen SAM encoder has a file of its own): 1" in output
    assert "not needed (the text half of the Q-Former serves stage 1 only): 1" in output


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "Qformer.bert.adapter.weight",
            torch.ones(1),
            "unexpected: branches.clip.qformer.bert.ada",
        ),
        ("t5_proj.weight", torch.ones(1), "unexpected: t5_proj.weight"),
        ("opt_proj.bias", torch.full((24,), float("inf")), "not finite: branches.clip.llm_proj"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    foreign: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: Tensor,
    message: str,
) -> None:
    content = torch.load(foreign, weights_only=True)
    content["model"][name] = value
    torch.save(content, foreign)
    target = tmp_path / "ours.safetensors"
    assert message in refused(capsys, foreign, target, "--to=ours", "--arch=msmedcap")
    assert not target.exists()


# --- arguments -----------------------------------------------------------------------------------


def test_wrong_arguments(stage2: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "stage2.safetensors"
    target = tmp_path / "b.pth"
    assert "choose one with --branch clip or --branch sam" in refused(
        capsys, source, target, "--to=blip2"
    )
    assert "end it in .safetensors" in refused(capsys, source, target, "--to=ours")
    assert "has the names of ours already" in refused(
        capsys, source, tmp_path / "x.safetensors", "--to=ours"
    )
    assert "no checkpoint at" in refused(capsys, tmp_path / "nothing", target, "--to=blip2")
    target.write_text("mine")
    arguments = (source, target, "--to=blip2", "--branch=sam")
    assert "--force to overwrite" in refused(capsys, *arguments)
    assert target.read_text() == "mine"
    converted(*arguments, "--force")
    arguments = (target, tmp_path / "x.pth", "--to=authors", "--branch=clip")
    assert "was converted from a sam branch" in refused(capsys, *arguments)


def test_layer_norm_is_never_made_up(
    stage2: Any, encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "stage2.safetensors", tmp_path / "b.pth"
    moved = encoder_file.rename(tmp_path / "elsewhere.pth")
    arguments = (source, target, "--to=blip2", "--branch=clip")
    assert "--layer-norm" in refused(capsys, *arguments)
    assert not target.exists()
    assert "has no layer norm of a ViT" in refused(capsys, *arguments, "--layer-norm", source)
    converted(*arguments, "--layer-norm", moved)
    state = torch.load(target, weights_only=True)["model"]
    assert torch.equal(state["ln_vision.weight"], stage2.ln_vision.weight)


def test_fresh_layer_norm_of_an_encoder_without_file(
    stage2_settings: dict[str, Any], tmp_path: Path
) -> None:
    trained(MSMedCap.from_config(stage2_settings), tmp_path / "a.safetensors")
    converted(tmp_path / "a.safetensors", tmp_path / "a.pth", "--to=authors")
    state = torch.load(tmp_path / "a.pth", weights_only=True)["model"]
    assert torch.equal(state["ln_vision.weight"], torch.ones(24))


def test_help_shows_kinds_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        convert("--help")
    output = capsys.readouterr().out
    assert stop.value.code == 0
    for part in ("--branch {clip,sam}", "--layer-norm FILE", "examples:", "there and back"):
        assert part in output
