"""A CLIP encoder's own file fitted only the view that it was written at, and any view was taken.

EVA's and OpenAI's files have their positions interpolated; one in this package's names was
refused with a wrong shape. A view that patches do not fill lost its rest in silence.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lavis.models import load_model

from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.weights import read_weights

SIZES = {"image_size": 32, "patch_size": 8, "width": 64, "depth": 2, "num_heads": 2}
POSITIONS = {"eva_clip": "vit.pos_embed", "clip_l": "vit.positional_embedding"}
SAM = {"window_size": 2, "global_attn_indexes": [1], "out_chans": 16}


@pytest.mark.parametrize("name", POSITIONS)
def test_own_names_give_what_the_published_names_give(name: str) -> None:
    torch.manual_seed(0)
    own = build_encoder(name, SIZES, None, "random").state_dict()
    own[POSITIONS[name]].normal_()
    own["ln.weight"].normal_()
    published = {k.removeprefix("vit."): v for k, v in own.items() if k.startswith("vit.")}
    larger = {**SIZES, "image_size": 48}
    found = build_encoder(name, larger, own, "own.safetensors").state_dict()
    expected = build_encoder(name, larger, published, "published.pth").state_dict()
    assert found[POSITIONS[name]].shape[-2] == 1 + 36
    assert all(torch.equal(found[k], v) for k, v in expected.items() if k.startswith("vit."))
    assert torch.equal(found["ln.weight"], own["ln.weight"])
    same = build_encoder(name, SIZES, own, "own.safetensors").state_dict()
    assert all(torch.equal(same[key], value) for key, value in own.items())


def test_the_encoder_that_ships_at_twice_the_size() -> None:
    weights = read_weights(package_path("assets/demo/eva_clip.safetensors"))
    sizes = dict(load_model("msmedcap").settings["branches"]["clip"]["encoder"])
    for key in ("name", "weights", "precision", "freeze_ln"):
        del sizes[key]
    encoder = build_encoder("eva_clip", {**sizes, "image_size": 128}, weights, "demo")
    assert encoder(torch.randn(1, 3, 128, 128)).embeds.shape == (1, 1 + 16 * 16, 128)


@pytest.mark.parametrize(("name", "more"), [("eva_clip", {}), ("clip_l", {}), ("sam", SAM)])
def test_patches_have_to_fill_the_view(name: str, more: dict[str, Any]) -> None:
    sizes = {**SIZES, **more, "image_size": 100}
    message = r"image_size is 100, which patch_size \(8\) does not divide; choose 96 or 104"
    with pytest.raises(ValueError, match=message):
        build_encoder(name, sizes, None, "random")
