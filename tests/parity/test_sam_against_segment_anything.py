"""The SAM branch's encoder equals segment-anything's on weights of a checkpoint in its layout.

Tolerance 1e-6: the same module runs on the same numbers, so only the copy is under test.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from lavis_msmedcap.imaging.views import normalize_sam
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.encoders.freeze import is_frozen

SIDE, PATCH, CHANNELS = 64, 8, 16
SIZES = {
    "image_size": SIDE,
    "patch_size": PATCH,
    "width": 24,
    "depth": 2,
    "num_heads": 2,
    "window_size": 3,
    "global_attn_indexes": [1],
    "out_chans": CHANNELS,
}

pytestmark = pytest.mark.parity


@pytest.fixture
def sam() -> Sam:
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=SIDE,
        patch_size=PATCH,
        embed_dim=24,
        depth=2,
        num_heads=2,
        out_chans=CHANNELS,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
    )
    for parameter in encoder.parameters():  # rel_pos and pos_embed start at zero
        nn.init.normal_(parameter, std=0.1)
    grid = SIDE // PATCH
    prompt_encoder = PromptEncoder(CHANNELS, (grid, grid), (SIDE, SIDE), 4)
    transformer = TwoWayTransformer(depth=1, embedding_dim=CHANNELS, mlp_dim=16, num_heads=2)
    decoder = MaskDecoder(transformer_dim=CHANNELS, transformer=transformer)
    return Sam(encoder, prompt_encoder, decoder).eval()


@pytest.mark.parametrize("valid", [(64, 64), (64, 40), (17, 64)])
def test_tokens_equal_segment_anything(sam: Sam, valid: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (2, 3, *valid), dtype=torch.uint8)
    expected = sam.image_encoder(sam.preprocess(image.float()))  # (B, S, h, w)

    padded = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)
    padded[:, :, : valid[0], : valid[1]] = image
    sizes = torch.tensor([valid, valid])
    ours = build_encoder("sam", SIZES, sam.state_dict(), "test")
    result = ours(normalize_sam(padded, sizes), sizes)

    assert is_frozen(ours)
    torch.testing.assert_close(
        result.embeds, expected.flatten(2).transpose(1, 2), atol=1e-6, rtol=1e-6
    )
    rows, columns = -(-valid[0] // PATCH), -(-valid[1] // PATCH)  # patches touched by the image
    expected_mask = torch.zeros(2, 8, 8, dtype=torch.long)
    expected_mask[:, :rows, :columns] = 1
    assert torch.equal(result.atts, expected_mask.flatten(1))


def test_channel_layout_is_the_untransposed_map(sam: Sam) -> None:
    view, sizes = torch.randn(2, 3, SIDE, SIDE), torch.tensor([[64, 64], [64, 64]])
    ours = build_encoder("sam", {**SIZES, "tokens": "channel"}, sam.state_dict(), "test")
    expected = sam.image_encoder(view).view(2, CHANNELS, -1)
    torch.testing.assert_close(ours(view, sizes).embeds, expected, atol=1e-6, rtol=1e-6)
    assert ours.width == 64


def test_pooled_layout_averages_valid_positions_only(sam: Sam) -> None:
    view, sizes = torch.randn(1, 3, SIDE, SIDE), torch.tensor([[64, 24]])  # 3 of 8 columns
    ours = build_encoder("sam", {**SIZES, "tokens": "spatial_pooled"}, sam.state_dict(), "test")
    features = sam.image_encoder(view)
    result = ours(view, sizes)
    cells = result.embeds.transpose(1, 2).view(1, CHANNELS, 4, 4)
    torch.testing.assert_close(cells[0, :, 0, 0], features[0, :, :2, :2].mean((1, 2)))
    torch.testing.assert_close(cells[0, :, 0, 1], features[0, :, :2, 2].mean(1))
    assert result.atts.view(4, 4)[0].tolist() == [1, 1, 0, 0]
