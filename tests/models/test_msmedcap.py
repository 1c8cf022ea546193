from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TEXTS, train_steps
from torch import Tensor

from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap


def build(settings: dict[str, Any]) -> MSMedCap:
    torch.manual_seed(1)
    return MSMedCap.from_config(settings)


@pytest.fixture
def stage1_run(stage1_settings: dict[str, Any], tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = Blip2DualQformer.from_config(stage1_settings)
    run = tmp_path / "pretrain" / "20260101-000000-abcdef"
    run.mkdir(parents=True)
    save_checkpoint(
        run / "checkpoint_last.safetensors",
        model.trainable_state_dict(),
        model.checkpoint_metadata(),
    )
    return run


def rewrite(run: Path, change: Any) -> None:
    file = run / "checkpoint_last.safetensors"
    state, metadata = read_checkpoint(file)
    change(state)
    save_checkpoint(file, state, metadata)


def test_stage1_result_is_loaded_from_the_newest_run(
    stage2_settings: dict[str, Any], stage1_run: Path
) -> None:
    model = build({**stage2_settings, "stage1": str(stage1_run.parent)})
    state, _ = read_checkpoint(stage1_run / "checkpoint_last.safetensors")
    own = model.trainable_state_dict()
    shared = [name for name in own if ".llm_proj." not in name]
    assert len(shared) > 40
    assert all(torch.equal(own[name], state[name]) for name in shared)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("branches.sam.query_tokens"), "missing: branches.sam.query_tokens"),
        (lambda s: s.update({"branches.sam.x": torch.ones(1)}), "unexpected: branches.sam.x"),
        (
            lambda s: s.update({"branches.clip.query_tokens": torch.ones(1, 9, 16)}),
            r"num_query_token 9, but it is 3 here",
        ),
        (lambda s: s["branches.clip.query_tokens"].fill_(float("nan")), "not finite"),
        (
            lambda s: [s.pop(name) for name in list(s) if name.startswith("branches.sam.")],
            "holds nothing of the sam branch",
        ),
    ],
)
def test_a_stage1_result_that_does_not_fit_is_an_error(
    stage2_settings: dict[str, Any], stage1_run: Path, change: Any, message: str
) -> None:
    rewrite(stage1_run, change)
    with pytest.raises((ConfigError, WeightsError), match=message):
        build({**stage2_settings, "stage1": str(stage1_run)})


def test_absent_stage1_names_the_cure(stage2_settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {**stage2_settings, "stage1": str(tmp_path / "nothing")}
    with pytest.raises(ConfigError, match="Run stage 1 first"):
        build(settings)
    assert any("Run stage 1 first" in line for line in MSMedCap.missing_inputs(settings))


def test_missing_files_are_told_together(stage2_settings: dict[str, Any], tmp_path: Path) -> None:
    stage2_settings["llm"]["weights"] = str(tmp_path / "opt-2.7b")
    stage2_settings["branches"]["clip"]["encoder"]["weights"] = str(tmp_path / "eva.pth")
    with pytest.raises(ConfigError) as caught:
        build(stage2_settings)
    assert [p.split(":")[0] for p in caught.value.problems] == [
        "model.branches.clip.encoder.weights",
        "model.llm.weights",
    ]


def test_a_dropped_branch_leaves_its_stage1_keys_unused(
    stage2_settings: dict[str, Any], stage1_run: Path, packed_images: Tensor
) -> None:
    stage2_settings["branches"]["sam"] = None
    model = build({**stage2_settings, "stage1": str(stage1_run)}).eval()
    assert model.visual_prefix(packed_images).shape == (5, 3, 24)


def test_prefix_is_clip_then_sam(stage2_settings: dict[str, Any], packed_images: Tensor) -> None:
    model = build(stage2_settings).eval()
    prefix = model.visual_prefix(packed_images)
    assert prefix.shape == (5, 3 + 4, 24)
    sam = model.encode_image(packed_images, ["sam"])["sam"]
    torch.testing.assert_close(prefix[:, 3:], model.branch("sam").visual_prefix(sam))


def test_loss_is_taken_on_caption_tokens_only(
    stage2_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage2_settings).eval()
    output = model({"image": packed_images, "text_input": TEXTS})
    tokens = torch.tensor(
        [
            len(model.opt_tokenizer(" " + t + "\n", add_special_tokens=False).input_ids)
            for t in TEXTS
        ]
    )
    weighted = (output["per_sample"]["loss_lm"] * tokens).sum() / tokens.sum()
    torch.testing.assert_close(output["loss"].detach(), weighted)


def test_same_caption_alone_and_in_a_batch(
    stage2_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage2_settings).eval()
    prompts = ["Question: Describe the image. Answer:", "a radiograph of", "two", "", "the hand"]
    for beams in (1, 4):
        together = model.generate(
            {"image": packed_images, "prompt": prompts}, num_beams=beams, max_length=10
        )
        alone = [
            model.generate(
                {"image": packed_images[i : i + 1], "prompt": prompts[i]},
                num_beams=beams,
                max_length=10,
            )[0]
            for i in range(5)
        ]
        assert together == alone
        assert len(set(together)) > 1


def test_number_of_captions_and_prompts(
    stage2_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage2_settings).eval()
    samples = {"image": packed_images}
    assert len(model.generate(samples, num_beams=3, num_captions=2, max_length=5)) == 10
    assert (
        len(model.generate(samples, use_nucleus_sampling=True, num_captions=3, max_length=5)) == 15
    )
    with pytest.raises(ValueError, match="2 prompts for 5 images"):
        model.generate({**samples, "prompt": ["a", "b"]})


def test_nothing_frozen_changes_in_training(
    stage2_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage2_settings)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert any(name.startswith("opt_model.") for name in frozen)
    losses = train_steps(model, {"image": packed_images, "text_input": TEXTS}, 4)
    assert losses[-1] < losses[0]
    assert all(torch.equal(dict(model.named_parameters())[n], v) for n, v in frozen.items())
    assert not any(part.training for part in model.opt_model.modules())
    parts = {"qformer", "query_tokens", "llm_proj"}
    assert {key.split(".")[1] for key in model.audit_trainable()} == parts


def test_checkpoint_round_trip_and_wrong_model(
    stage2_settings: dict[str, Any], stage1_run: Path, packed_images: Tensor, tmp_path: Path
) -> None:
    model = build(stage2_settings).eval()
    file = tmp_path / "captioner.safetensors"
    torch.nn.init.normal_(model.query_tokens)  # so that a fresh model would differ
    assert not torch.equal(build(stage2_settings).query_tokens, model.query_tokens)
    save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())
    twin = build({**stage2_settings, "load_finetuned": True, "finetuned": str(file)}).eval()
    assert torch.equal(model.visual_prefix(packed_images), twin.visual_prefix(packed_images))
    with pytest.raises(WeightsError, match=r"use it as model\.stage1"):
        model.load_checkpoint(str(stage1_run))
    with pytest.raises(WeightsError, match=r"Use model\.finetuned"):
        model.load_stage1(str(file))


def test_llm_folder_without_its_files_is_listed(
    stage2_settings: dict[str, Any], tmp_path: Path
) -> None:
    assert MSMedCap.missing_inputs(stage2_settings) == []
    (tmp_path / "empty").mkdir()
    stage2_settings["llm"] = {key: str(tmp_path / "empty") for key in ("weights", "tokenizer")}
    problems = MSMedCap.missing_inputs(stage2_settings)
    assert ["config.json" in problems[0], "vocab.json" in problems[1]] == [True, True]
