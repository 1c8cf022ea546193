"""The encoder clip_l equals LAVIS' ``clip_vit.VisionTransformer`` on weights in the file's layout.

Tolerance 1e-6: the same module runs on the same numbers, so only names, fitting of the position
embedding and the layer norm behind the ViT are under test.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lavis.models import clip_vit
from lavis.models.blip2_models.blip2 import LayerNorm
from torch import Tensor, nn

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.encoders.freeze import is_frozen

WIDTH, DEPTH = 24, 3
SIZES = {"image_size": 32, "patch_size": 8, "width": WIDTH, "depth": DEPTH, "num_heads": 2}

pytestmark = pytest.mark.parity


def lavis_vit(side: int = 32, depth: int = DEPTH) -> nn.Module:
    """LAVIS' class, which builds one block fewer than ``layers`` says."""
    return clip_vit.VisionTransformer(side, 8, WIDTH, depth + 1, 2, False).eval()


def published(depth: int = DEPTH + 3) -> dict[str, Tensor]:
    """A file with OpenAI's last blocks, norm and projection, which the encoder has no place for."""
    torch.manual_seed(0)
    state = {
        key: torch.randn_like(v) * 0.2 for key, v in lavis_vit(depth=depth).state_dict().items()
    }
    beyond = {"ln_post.weight": torch.ones(WIDTH), "ln_post.bias": torch.zeros(WIDTH)}
    return {**state, **beyond, "proj": torch.randn(WIDTH, 16)}


@pytest.mark.parametrize("side", [32, 48])
def test_tokens_equal_lavis(side: int) -> None:
    weights = published()
    theirs = lavis_vit(side)
    fitted = dict(weights)
    clip_vit.interpolate_pos_embed(theirs, fitted)
    assert not theirs.load_state_dict(fitted, strict=False).missing_keys
    view = torch.randn(2, 3, side, side)
    expected = LayerNorm(WIDTH)(theirs(view))

    ours = build_encoder("clip_l", {**SIZES, "image_size": side}, weights, "clip_vit_L.pth")
    result = ours(view)

    assert is_frozen(ours)
    assert ours.width == WIDTH
    torch.testing.assert_close(result.embeds, expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(result.atts, torch.ones(2, (side // 8) ** 2 + 1, dtype=torch.long))


def test_openais_whole_clip_gives_its_image_half(caplog: Any) -> None:
    weights = published()
    whole = {f"visual.{key}": value for key, value in weights.items()}
    whole["positional_embedding"] = torch.randn(7, 5)  # of the text half, which has the same names
    whole["transformer.resblocks.0.ln_1.weight"] = torch.ones(5)
    view = torch.randn(1, 3, 32, 32)
    with caplog.at_level("INFO"):
        encoder = build_encoder("clip_l", SIZES, whole, "ViT-L-14.pt")
    half = build_encoder("clip_l", SIZES, weights, "clip_vit_L.pth")
    assert torch.equal(encoder(view).embeds, half(view).embeds)
    assert "not needed (the encoder is CLIP's image half): 2" in caplog.text
    assert "not needed (BLIP-2 stops before CLIP's norm and projection): 3" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("ln_pre.weight"), r"missing: vit\.ln_pre\.weight"),
        (lambda w: w.update(other=torch.ones(1)), r"unexpected: vit\.other"),
        (
            lambda w: w.update({"transformer.resblocks.6.ln_1.weight": torch.ones(WIDTH)}),
            r"unexpected: vit\.transformer\.resblocks\.6",
        ),
    ],
)
def test_every_key_is_accounted_for(change: Any, message: str) -> None:
    weights = published()
    change(weights)
    with pytest.raises(WeightsError, match=message):
        build_encoder("clip_l", SIZES, weights, "clip_vit_L.pth")


def test_its_own_state_comes_back() -> None:
    first = build_encoder("clip_l", SIZES, published(), "clip_vit_L.pth")
    again = build_encoder("clip_l", SIZES, first.state_dict(), "clip_l.safetensors")
    view = torch.randn(1, 3, 32, 32)
    assert torch.equal(first(view).embeds, again(view).embeds)


def test_half_precision_keeps_the_layer_norms_in_float32() -> None:
    view = torch.randn(1, 3, 32, 32)
    exact = build_encoder("clip_l", SIZES, published(), "clip_vit_L.pth")(view)
    encoder = build_encoder("clip_l", SIZES, published(), "clip_vit_L.pth", "bf16")
    result = encoder(view)
    assert encoder.vit.conv1.weight.dtype == torch.bfloat16
    assert encoder.vit.ln_pre.weight.dtype == torch.float32
    assert result.embeds.dtype == torch.float32
    torch.testing.assert_close(
        result.embeds, exact.embeds, atol=0.1, rtol=0.1
    )  # 8 bits of mantissa


def test_another_mlp_is_refused() -> None:
    with pytest.raises(ValueError, match="always 4 times wider"):
        build_encoder("clip_l", {**SIZES, "mlp_ratio": 2.0}, None, "random")
