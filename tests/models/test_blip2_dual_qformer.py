from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import TEXTS, spread
from torch import Tensor

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer

MEDICAL, GENERAL = ["medical"] * 5, ["general"] * 5


def build(settings: dict[str, Any]) -> Blip2DualQformer:
    torch.manual_seed(0)
    return Blip2DualQformer.from_config(settings)


def test_general_batch_trains_both_branches_and_medical_batch_only_sam(
    stage1_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage1_settings)
    for domain, trained in ((GENERAL, {"clip", "sam"}), (MEDICAL, {"sam"})):
        model.zero_grad(set_to_none=True)
        samples = {"image": packed_images, "text_input": TEXTS, "domain": domain}
        output = model(samples)
        output["loss"].backward()
        with_gradient = {n.split(".")[1] for n, p in model.named_parameters() if p.grad is not None}
        assert with_gradient == trained
        assert {key.split("/")[0] for key in output["logs"]} == trained
        total = sum(output["logs"].values())
        torch.testing.assert_close(output["loss"].detach(), total)


def test_rows_of_a_mixed_batch_go_to_the_branches_of_their_domain(
    stage1_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage1_settings)
    domain = ["general", "medical", "general", "medical", "medical"]
    output = model({"image": packed_images, "text_input": TEXTS, "domain": domain})
    in_clip = ~output["per_sample"]["clip/loss_itc"].isnan()
    assert in_clip.tolist() == [True, False, True, False, False]
    assert not output["per_sample"]["sam/loss_itc"].isnan().any()


def test_a_batch_that_no_branch_trains_on_is_an_error(
    stage1_settings: dict[str, Any], packed_images: Tensor
) -> None:
    stage1_settings["branches"]["sam"] = None
    model = build(stage1_settings)
    assert model.train_domains == {"general"}
    with pytest.raises(ValueError, match="no branch trains on domain"):
        model({"image": packed_images, "text_input": TEXTS, "domain": MEDICAL})


@pytest.mark.parametrize("dropped", ["clip", "sam"])
def test_one_branch_alone_trains_and_extracts(
    stage1_settings: dict[str, Any], packed_images: Tensor, dropped: str
) -> None:
    stage1_settings["branches"][dropped] = None
    model = build(stage1_settings)
    output = model({"image": packed_images, "text_input": TEXTS, "domain": GENERAL})
    assert torch.isfinite(output["loss"])
    features = model.extract_features({"image": packed_images}, mode="image")
    kept = "sam" if dropped == "clip" else "clip"
    queries = stage1_settings["branches"][kept]["num_query_token"]
    assert features.image_embeds_proj.shape == (5, queries, 8)


def test_temperature_of_each_branch(stage1_settings: dict[str, Any]) -> None:
    model = build(stage1_settings)
    model.branch("sam").temp.data.fill_(0.125)
    assert model.gauges() == {"clip/temp": pytest.approx(0.07), "sam/temp": 0.125}


def test_batch_of_one_and_loss_weights(
    stage1_settings: dict[str, Any], packed_images: Tensor
) -> None:
    stage1_settings["loss_weights"] = {"lm": 0.0}
    model = build(stage1_settings)
    samples = {"image": packed_images[:1], "text_input": TEXTS[:1], "domain": ["medical"]}
    output = model(samples)
    assert torch.isfinite(output["loss"])
    assert output["loss"].item() == pytest.approx(output["loss_itc"].item())


def test_features_have_blip2_names_and_shapes(
    stage1_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage1_settings).eval()
    samples = {"image": packed_images, "text_input": TEXTS}
    text = model.extract_features(samples, mode="text", branch="sam")
    assert text.text_embeds.shape[0] == 5
    torch.testing.assert_close(
        text.text_embeds_proj.norm(dim=-1), torch.ones(text.text_embeds.shape[:2])
    )
    assert model.extract_features(samples).multimodal_embeds.shape == (5, 3, 16)
    with pytest.raises(ValueError, match="mode is 'picture'"):
        model.extract_features(samples, mode="picture")
    with pytest.raises(ValueError, match="needs samples"):
        model.extract_features({"image": packed_images}, mode="text")
    assert model.Qformer is model.branch("clip").qformer
    assert model.visual_encoder is model.branch("clip").encoder.vit
    assert model.query_tokens.shape == (1, 3, 16)


def test_settings_of_an_omegaconf_node_go_into_the_checkpoint_as_json(
    stage1_settings: dict[str, Any],
) -> None:
    model = build(OmegaConf.create(stage1_settings))
    assert json.loads(model.checkpoint_metadata()["model"]) == stage1_settings


def test_nothing_frozen_changes_in_training(
    stage1_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage1_settings)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(model.get_optimizer_params(0.05), lr=1e-2)
    model.train()
    for domain in (GENERAL, MEDICAL, GENERAL):
        optimizer.zero_grad()
        model({"image": packed_images, "text_input": TEXTS, "domain": domain})["loss"].backward()
        optimizer.step()
    now = dict(model.named_parameters())
    assert len(frozen) > 20
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert not any("encoder.vit" in name for name in trained)
    assert any(not torch.equal(now[name], value) for name, value in trained.items())
    assert not any(part.training for part in model.branch("sam").encoder.modules())


def test_blip2_normalised_image_is_taken_with_one_warning(
    stage1_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = build(stage1_settings)
    image = torch.randn(2, 3, 16, 16)
    for _ in range(2):
        model.extract_features({"image": image}, mode="image", branch="sam")
    assert sum("without the detail" in record.message for record in caplog.records) == 1
    with pytest.raises(ValueError, match="expected the packed views"):
        model.extract_features({"image": torch.zeros(2, 3, 16)}, mode="image")


@pytest.mark.parametrize("branch", ["clip", "sam"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_q_former_writes_by_itself(
    stage1_settings: dict[str, Any], packed_images: Tensor, branch: str, beams: int
) -> None:
    model = build(stage1_settings).eval()
    spread(model)
    arguments = {"num_beams": beams, "max_length": 8, "min_length": 3, "branch": branch}
    together = model.generate({"image": packed_images}, **arguments)
    alone = [model.generate({"image": image[None]}, **arguments)[0] for image in packed_images]
    assert together == alone
    assert len(set(together)) > 1


def test_what_generate_lacks_is_a_clear_error(
    stage1_settings: dict[str, Any], packed_images: Tensor
) -> None:
    model = build(stage1_settings).eval()
    with pytest.raises(ValueError, match="must be clip or sam, not fused"):
        model.generate({"image": packed_images}, branch="fused")
    with pytest.raises(ValueError, match=r"generate needs samples\['image'\]"):
        model.generate({"text_input": TEXTS})
    with pytest.raises(ValueError, match="min_length is 10"):
        model.generate({"image": packed_images}, max_length=5)
