"""Files of SAM's shape, and resolutions other than that of the weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.weights import read_weights

SIDE, PATCH = 64, 8
SIZES = {
    "image_size": SIDE,
    "patch_size": PATCH,
    "width": 24,
    "depth": 3,
    "num_heads": 2,
    "window_size": 3,
    "global_attn_indexes": [0, 2],
    "out_chans": 16,
}


def peer(side: int = SIDE) -> ImageEncoderViT:
    """segment-anything's own encoder at the sizes above, with positions that vary smoothly."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=side,
        patch_size=PATCH,
        embed_dim=24,
        depth=3,
        num_heads=2,
        out_chans=16,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(0, 2),
    )
    for name, parameter in encoder.named_parameters():
        if "pos" in name:  # zero at the start
            sides = parameter.squeeze(0).shape[:-1]
            steps = [torch.linspace(0, 1 + axis, n) for axis, n in enumerate(sides)]
            waves = torch.stack(torch.meshgrid(*steps, indexing="ij")).sum(0)[..., None]
            parameter.data = (waves + torch.randn(parameter.shape[-1])).sin().view_as(parameter)
    return encoder.eval()


def file_of(encoder: ImageEncoderViT) -> dict[str, Tensor]:
    named = {f"image_encoder.{key}": value for key, value in encoder.state_dict().items()}
    return {
        **named,
        "prompt_encoder.not_a_point_embed.weight": torch.zeros(1, 4),
        "mask_decoder.iou_token.weight": torch.zeros(1, 4),
        "mask_decoder.mask_tokens.weight": torch.zeros(3, 4),
    }


def smooth_view(side: int) -> Tensor:
    """The same soft pattern at any resolution: float (1, 3, side, side)."""
    steps = torch.linspace(0, 3, 2 * side + 1)[1::2]  # pixel centres
    pattern = torch.sin(steps)[:, None] * torch.cos(steps)[None]
    return torch.stack([pattern, pattern.t(), -pattern])[None]


def whole(side: int = SIDE) -> Tensor:
    return torch.tensor([[side, side]])


def as_hugging_face(file: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of transformers' SamModel, as version 4.53.3 has them."""
    parts = [
        (r"^image_encoder\.", "vision_encoder."),
        (r"\.blocks\.(\d+)\.norm", r".layers.\1.layer_norm"),
        (r"\.blocks\.", ".layers."),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"\.neck\.0\.", ".neck.conv1."),
        (r"\.neck\.1\.", ".neck.layer_norm1."),
        (r"\.neck\.2\.", ".neck.conv2."),
        (r"\.neck\.3\.", ".neck.layer_norm2."),
    ]
    renamed = {"shared_image_embedding.positional_embedding": torch.zeros(2, 8)}
    for name, value in file.items():
        for pattern, replacement in parts:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rename",
    [
        lambda w: w,
        lambda w: {f"module.{key}": value for key, value in w.items()},
        lambda w: {k[14:]: v for k, v in w.items() if k.startswith("image_encoder.")},
        as_hugging_face,
    ],
    ids=["segment-anything", "DistributedDataParallel", "the encoder alone", "Hugging Face"],
)
def test_any_file_of_sams_shape_is_taken(rename: Callable[..., dict[str, Tensor]]) -> None:
    theirs, view = peer(), smooth_view(SIDE)
    ours = build_encoder("sam", SIZES, rename(file_of(theirs)), "file.pth")
    torch.testing.assert_close(ours.feature_map(view), theirs(view), atol=1e-6, rtol=1e-6)


def test_a_medsam_training_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Weights under ``model``, beside the optimizer; what is left out is told with its number."""
    path = tmp_path / "medsam_vit_b.pth"
    content = {f"module.{key}": value for key, value in file_of(peer()).items()}
    torch.save({"model": content, "optimizer": {"lr": 0.1}, "epoch": 7}, path)
    with caplog.at_level("INFO"):
        ours = build_encoder("sam", SIZES, read_weights(path), str(path))
    assert torch.equal(ours.vit.pos_embed, peer().pos_embed)
    assert f"loaded {len(ours.state_dict())} tensors from {path}" in caplog.text
    assert "not needed (the prompt encoder: nobody points at a place here): 1" in caplog.text
    assert "not needed (the mask decoder: no masks are made here): 2" in caplog.text


def test_a_key_of_another_network_is_an_error() -> None:
    file = {**file_of(peer()), "image_encoder.adapter.weight": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"unexpected: vit\.adapter\.weight"):
        build_encoder("sam", SIZES, file, "adapted.pth")


# --- resolution ----------------------------------------------------------------------------------


def test_the_resolution_of_the_weights_changes_no_bit(caplog: pytest.LogCaptureFixture) -> None:
    file = file_of(peer())
    with caplog.at_level("INFO"):
        ours = build_encoder("sam", SIZES, file, "sam.pth").vit.state_dict()
    assert all(torch.equal(value, file[f"image_encoder.{name}"]) for name, value in ours.items())
    assert "resized" not in caplog.text


@pytest.mark.parametrize("side", [32, 96, 128])
def test_relative_positions_are_resized_as_segment_anything_does_at_run_time(
    side: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own encoder at the old size takes any view once the absolute positions fit."""
    theirs, view = peer(), smooth_view(side)
    with caplog.at_level("INFO"):
        ours = build_encoder("sam", {**SIZES, "image_size": side}, file_of(theirs), "sam.pth")
    grid = theirs.pos_embed.detach().permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(side // PATCH,) * 2, mode="bicubic", align_corners=False)
    theirs.pos_embed.data = resized.permute(0, 2, 3, 1)
    result = ours(view, whole(side))

    torch.testing.assert_close(ours.feature_map(view), theirs(view), atol=1e-6, rtol=1e-6)
    assert result.embeds.shape == (1, (side // PATCH) ** 2, 16)
    assert ours.vit.blocks[0].attn.rel_pos_h.shape == (2 * side // PATCH - 1, 12)
    window = "blocks.1.attn.rel_pos_w"
    assert torch.equal(ours.vit.state_dict()[window], theirs.state_dict()[window])
    assert f"resized from 8 x 8 to {side // PATCH} x {side // PATCH} patches" in caplog.text
    assert f"trained at 64 pixels, image_size is {side}" in caplog.text


def test_a_smooth_picture_gives_close_features_at_a_higher_resolution() -> None:
    """Close is 0.11 of their norm; positions turned, mirrored or not stretched give over 0.19."""
    file = file_of(peer())
    for name in list(file):  # no windows: at twice the resolution they cover half as much
        if "blocks.1.attn.rel_pos" in name:
            file[name] = file["image_encoder.blocks.0.attn.rel_pos_h"]
    # patches are told by their mean alone: their slope halves with the resolution
    patches = file["image_encoder.patch_embed.proj.weight"]
    file["image_encoder.patch_embed.proj.weight"] = patches[:, :, :1, :1].expand_as(patches) / 8
    every = {**SIZES, "global_attn_indexes": [0, 1, 2]}
    low = build_encoder("sam", every, file, "sam.pth")
    high = build_encoder("sam", {**every, "image_size": 128}, file, "sam.pth")
    expected = low.feature_map(smooth_view(SIDE))[..., 1:-1, 1:-1]  # the neck pads the border
    coarse = F.avg_pool2d(high.feature_map(smooth_view(128)), 2)[..., 1:-1, 1:-1]
    assert (coarse - expected).norm() < 0.15 * expected.norm()


def test_windows_in_the_place_of_global_blocks_are_not_stretched() -> None:
    """A wrong list of global blocks stays an error at another resolution, too."""
    wrong = {**SIZES, "image_size": 128, "global_attn_indexes": [0, 1]}
    with pytest.raises(WeightsError, match=r"wrong shape: vit\.blocks\.1\.attn\.rel_pos_h"):
        build_encoder("sam", wrong, file_of(peer()), "sam.pth")


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "side"), [(2, 32), (4, 16)])
def test_pooled_tokens_at_1024_pixels(pool: int, side: int) -> None:
    """A picture of 1024 x 600 fills 37.5 of 64 columns; cells average what shows the picture."""
    sizes = {**SIZES, "image_size": 1024, "patch_size": 16, "window_size": 14, "width": 8}
    sizes.update(depth=1, num_heads=1, global_attn_indexes=[], out_chans=6)
    settings = {**sizes, "tokens": "spatial_pooled", "pool": pool}
    encoder = build_encoder("sam", settings, None, "random")
    view, valid = torch.randn(1, 3, 1024, 1024), torch.tensor([[1024, 600]])
    result = encoder(view, valid)
    assert encoder.width == 6
    assert result.embeds.shape == (1, side * side, 6)

    features = encoder.feature_map(view)[0, :, :, :38]  # (S, 64, 38): 38 columns touch the picture
    mask = result.atts.view(side, side)
    columns = -(-38 // pool)
    assert mask[:, :columns].all()
    assert not mask[:, columns:].any()
    cells = result.embeds[0].t().view(6, side, side)
    for row, column in ((0, 0), (side - 1, columns - 1), (3, columns - 1)):
        part = features[:, row * pool : (row + 1) * pool, column * pool : (column + 1) * pool]
        torch.testing.assert_close(cells[:, row, column], part.mean((1, 2)), atol=1e-5, rtol=1e-5)


def test_a_pool_that_leaves_a_rest_is_refused() -> None:
    settings = {**SIZES, "tokens": "spatial_pooled", "pool": 3}
    with pytest.raises(ValueError, match="does not divide the 8 positions"):
        build_encoder("sam", settings, None, "random")
