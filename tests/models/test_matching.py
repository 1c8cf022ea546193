"""Features, matching and retrieval with both branches; parity of one branch is in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lavis.models import load_model_and_preprocess
from PIL import Image
from tiny_models import TEXTS, spread
from torch import Tensor

from lavis_msmedcap.models.image_text_matching import MSMedCapITM


@pytest.fixture
def model(stage1_settings: dict[str, Any]) -> MSMedCapITM:
    torch.manual_seed(0)
    model = MSMedCapITM.from_config(stage1_settings).eval()
    spread(model)
    return model


@pytest.fixture
def samples(packed_images: Tensor) -> dict[str, Any]:
    return {"image": packed_images, "text_input": TEXTS}


def test_fused_queries_are_clips_before_sams(model: MSMedCapITM, samples: dict[str, Any]) -> None:
    for mode in ("image", "multimodal"):
        fused, clip, sam = (
            model.extract_features(samples, mode=mode, branch=name)
            for name in ("fused", "clip", "sam")
        )
        name = "image_embeds" if mode == "image" else "multimodal_embeds"
        assert torch.equal(fused[name], torch.cat([clip[name], sam[name]], dim=1))
        assert fused[name].shape == (5, 3 + 4, 16)


def test_code_written_for_blip2_compares_fused_features_within_each_branch(
    model: MSMedCapITM, samples: dict[str, Any]
) -> None:
    best = {}
    for name in ("clip", "sam", "fused"):
        image = model.extract_features(samples, mode="image", branch=name)
        text = model.extract_features(samples, mode="text", branch=name)
        # the lines of LAVIS' feature extraction example
        features_image, features_text = image.image_embeds_proj, text.text_embeds_proj[:, 0, :]
        best[name] = (features_image @ features_text.t()).amax(dim=1)  # (image, text)
        torch.testing.assert_close(
            features_image.norm(dim=-1), torch.ones(features_image.shape[:2])
        )
    assert features_image.shape == (5, 3 + 4, 8 + 8)
    assert text.text_embeds.shape[-1] == 16 + 16
    torch.testing.assert_close(best["fused"], torch.maximum(best["clip"], best["sam"]))
    assert (best["clip"] - best["sam"]).abs().max() > 1e-2
    blocks = torch.zeros_like(features_image)
    blocks[:, :3, :8] = model.extract_features(samples, mode="image").image_embeds_proj
    blocks[:, 3:, 8:] = model.extract_features(samples, "image", "sam").image_embeds_proj
    assert torch.equal(features_image, blocks)


def test_fused_scores_are_the_mean_of_the_branches(
    model: MSMedCapITM, samples: dict[str, Any]
) -> None:
    for head, shape in (("itm", (5, 2)), ("itc", (5, 5))):
        clip, sam = (model.match(samples, head, name) for name in ("clip", "sam"))
        assert clip.shape == shape
        assert (clip - sam).abs().max() > 1e-2
        torch.testing.assert_close(model.match(samples, head), (clip + sam) / 2)
        assert torch.equal(model.match(samples, head), model.match(samples, head, "fused"))


def test_a_score_does_not_depend_on_the_company(
    model: MSMedCapITM, samples: dict[str, Any], packed_images: Tensor
) -> None:
    together = {head: model(samples, match_head=head) for head in ("itm", "itc")}
    assert together["itc"].shape == (5, 1)
    for index, text in enumerate(TEXTS):
        alone = {"image": packed_images[index : index + 1], "text_input": text}  # one bare string
        for head, scores in together.items():
            expected = scores[index : index + 1]
            torch.testing.assert_close(
                model(alone, match_head=head), expected, atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"match_head": "itg"}, "match_head is 'itg'; expected one of itm, itc"),
        ({}, {"branch": "dino"}, "branch is 'dino'; this model has: clip, sam, fused"),
        ({"image": None}, {}, r"match_head 'itm' needs samples\['image'\]"),
        ({"text_input": None}, {"match_head": "itc"}, r"'itc' needs samples\['text_input'\]"),
        ({"text_input": "hand"}, {}, "1 texts for 5 images"),
    ],
)
def test_a_wrong_call_is_a_clear_error(
    model: MSMedCapITM,
    samples: dict[str, Any],
    change: dict[str, Any],
    arguments: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        model({**samples, **change}, **arguments)


def test_lavis_matching_example_with_another_name() -> None:
    raw_image = Image.new("RGB", (80, 60), "gray")
    caption = "a radiograph of the hand"
    # LAVIS' example (blip2_image_text_matching), but for the name
    model, vis_processors, text_processors = load_model_and_preprocess(
        "msmedcap_image_text_matching", "demo", device="cpu", is_eval=True
    )
    img = vis_processors["eval"](raw_image).unsqueeze(0)
    txt = text_processors["eval"](caption)
    itm_output = model({"image": img, "text_input": txt}, match_head="itm")
    itm_scores = torch.nn.functional.softmax(itm_output, dim=1)
    assert itm_scores.shape == (1, 2)
    assert 0 < itm_scores[:, 1].item() < 1
    itc_score = model({"image": img, "text_input": txt}, match_head="itc")
    assert -1 <= itc_score.item() <= 1
