"""Kept features are the encoders' own, whatever batch an image was first met in."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.feature_cache import GIB, FeatureCache


class Counting:
    """An encoder that counts: the mean of an image's bytes as a single token."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Tensor) -> ImageEmbeds:
        self.calls += 1
        embeds = image.float().mean(1).view(-1, 1, 1)
        return ImageEmbeds(embeds, torch.ones(len(image), 1, dtype=torch.long))


def images(count: int, start: int = 0) -> Tensor:
    return (torch.arange(start, start + count, dtype=torch.uint8)[:, None]).repeat(1, 10)


def test_an_image_is_encoded_once_per_branch() -> None:
    cache, encode = FeatureCache(1.0), Counting()
    first = cache.encode("clip", images(3), encode)
    again = cache.encode("clip", images(4).flip(0), encode)
    assert encode.calls == 4
    assert first.embeds.flatten().tolist() == [0, 1, 2]
    assert again.embeds.flatten().tolist() == [3, 2, 1, 0]
    cache.encode("sam", images(1), encode)
    assert encode.calls == 5
    assert len(cache) == 5


def test_what_does_not_fit_is_encoded_every_time(caplog: pytest.LogCaptureFixture) -> None:
    cache, encode = FeatureCache(2 * 12 / GIB), Counting()  # 12 bytes: one float32, one int64
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            cache.encode("clip", images(4), encode)
    assert (len(cache), cache.size) == (2, 24)
    assert encode.calls == 4 + 2
    assert caplog.text.count("feature cache is full") == 1


@pytest.fixture
def models(stage1_settings: dict[str, Any]) -> tuple[Blip2DualQformer, Blip2DualQformer]:
    """The same model without and with a cache."""
    plain = Blip2DualQformer.from_config(stage1_settings).eval()
    kept = Blip2DualQformer.from_config(stage1_settings).eval()
    kept.load_state_dict(plain.state_dict())
    kept.keep_features(0.1)
    return plain, kept


def test_kept_features_equal_those_of_the_encoders(
    models: tuple[Blip2DualQformer, Blip2DualQformer], packed_images: Tensor
) -> None:
    plain, kept = models
    expected = plain.encode_image(packed_images)
    for _ in range(2):
        found = kept.encode_image(packed_images)
        for name in ("clip", "sam"):
            # one image at a time instead of five: matrix products round differently
            assert torch.allclose(found[name].embeds, expected[name].embeds, atol=1e-5)
            assert torch.equal(found[name].atts, expected[name].atts)


def test_kept_features_do_not_depend_on_the_batch(
    models: tuple[Blip2DualQformer, Blip2DualQformer], packed_images: Tensor
) -> None:
    _, kept = models
    together = kept.encode_image(packed_images)["sam"].embeds
    kept.keep_features(0.1)  # empty again
    alone = torch.cat([kept.encode_image(image[None])["sam"].embeds for image in packed_images])
    assert torch.equal(together, alone)


def test_an_encoder_that_trains_is_not_kept(
    stage1_settings: dict[str, Any], packed_images: Tensor
) -> None:
    stage1_settings["branches"]["clip"]["encoder"]["freeze_ln"] = False
    model = Blip2DualQformer.from_config(stage1_settings)
    model.keep_features(0.1)
    before = model.encode_image(packed_images)["clip"].embeds
    assert before.requires_grad
    with torch.no_grad():
        model.ln_vision.weight.mul_(2)
    assert not torch.equal(model.encode_image(packed_images)["clip"].embeds, before)
