from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch.utils.data import default_collate

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.imaging import views as views_module
from lavis_msmedcap.imaging.views import (
    make_clip_view,
    make_sam_view,
    normalize_clip,
    normalize_sam,
    pack_image,
    pack_views,
    unpack_views,
    views_from_clip_normalized,
)

SHAPES = [(97, 61), (61, 97), (64, 64), (300, 211), (20, 31)]  # (height, width)


def _picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(-20, 21, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def _sam_preprocess(size):
    """segment-anything's own preprocessing, bound to an object that has what it reads."""

    class Holder:
        pixel_mean = torch.tensor([123.675, 116.28, 103.53]).view(-1, 1, 1)
        pixel_std = torch.tensor([58.395, 57.12, 57.375]).view(-1, 1, 1)

        class image_encoder:  # noqa: N801
            img_size = size

    return lambda x: Sam.preprocess(Holder, x)


def _levels_off(view, picture):
    """Differences from a Pillow picture, in grey levels (H, W, 3)."""
    return np.abs(view.permute(1, 2, 0).numpy().astype(int) - np.asarray(picture))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [64, 224])
def test_resize_is_pillows_within_a_level(shape, size):
    picture = _picture(*shape)
    bicubic = Image.Resampling.BICUBIC
    # rows first, then columns: what Pillow did in one call before it chose the cheaper order
    expected = picture.resize((size, picture.height), bicubic).resize((size, size), bicubic)
    off = _levels_off(make_clip_view(picture, size), expected)
    assert off.max() <= 2  # bicubic weights of both signs: 1 per pass
    assert (off > 0).mean() < 0.01


@pytest.mark.parity
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [64, 224])
def test_clip_view_is_what_lavis_evaluates(shape, size):
    from lavis.processors.blip_processors import BlipImageEvalProcessor

    picture = _picture(*shape)
    view = make_clip_view(picture, size)
    same = normalize_clip(view.unsqueeze(0))[0]
    off = (same - BlipImageEvalProcessor(image_size=size)(picture)).abs() * 255 * 0.27
    assert off.max() < 3.1
    assert off.mean() < 0.3  # 0.005 where Pillow takes the rows first, too
    exact = Image.fromarray(view.permute(1, 2, 0).numpy())  # which no processor resizes again
    assert torch.equal(same, BlipImageEvalProcessor(image_size=size)(exact))


@pytest.mark.parity
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [128, 256])
def test_sam_view_is_what_segment_anything_sees(shape, size):
    picture = _picture(*shape)
    view, valid = make_sam_view(picture, size)
    theirs = ResizeLongestSide(size).apply_image(np.array(picture))
    assert valid == theirs.shape[:2]
    difference = view[:, : valid[0], : valid[1]].permute(1, 2, 0).numpy().astype(int) - theirs
    assert np.abs(difference).max() <= 1

    ours = normalize_sam(view.unsqueeze(0), torch.tensor([valid]))[0]
    expected = _sam_preprocess(size)(torch.from_numpy(theirs).permute(2, 0, 1))
    assert ours.shape == expected.shape == (3, size, size)
    assert (ours - expected).abs().max() <= 1 / 57.0  # one 8-bit level
    assert torch.equal(ours == 0, expected == 0)


def test_views_without_torchs_resize_of_bytes(monkeypatch):
    picture = _picture(97, 61)
    fast = pack_image(picture, 32, 64)
    monkeypatch.setattr(views_module, "_TORCH_RESIZES_BYTES", False)  # PyTorch 2.0
    slow = pack_image(picture, 32, 64)
    off = (fast[32:].int() - slow[32:].int()).abs()
    assert torch.equal(fast[:32], slow[:32])
    assert off.max() <= 3
    assert off.float().mean() < 0.3
    assert torch.equal(
        make_clip_view(picture, 32),
        torch.from_numpy(np.array(picture.resize((32, 32), Image.Resampling.BICUBIC))).permute(
            2, 0, 1
        ),
    )


@pytest.mark.parametrize("shape", [(1, 400), (400, 1), (1, 1)])
def test_thin_pictures_keep_a_row(shape):
    view, valid = make_sam_view(_picture(*shape), 64)
    assert max(valid) == 64
    assert min(valid) >= 1
    assert view[:, : valid[0], : valid[1]].any()


def test_packed_views_come_back(tmp_path):
    picture = _picture(30, 50)
    packed = pack_image(picture, 32, 64)
    views = unpack_views(packed)
    sam, valid = make_sam_view(picture, 64)
    assert packed.dtype == torch.uint8
    assert packed.shape == (32 + 3 * 32 * 32 + 3 * 64 * 64,)
    assert torch.equal(views.clip[0], make_clip_view(picture, 32))
    assert torch.equal(views.sam[0], sam)
    assert views.valid_sizes.tolist() == [list(valid)]
    assert views.original_sizes.tolist() == [[30, 50]]
    assert views.valid_sizes.dtype == torch.int64


def test_header_is_little_endian():
    packed = pack_image(_picture(30, 50), 32, 64)
    header = np.frombuffer(packed[:32].numpy().tobytes(), dtype="<i4")
    assert header.tolist() == [0x4D534D43, 1, 32, 64, 38, 64, 30, 50]


def test_packed_views_survive_what_lavis_does_to_an_image():
    pictures = [_picture(30, 50, seed=1), _picture(50, 30, seed=2)]
    packed = [pack_image(picture, 33, 65) for picture in pictures]  # odd sizes: no alignment
    batch = default_collate(packed).to("cpu", non_blocking=True)
    views = unpack_views(batch)
    for row, one in enumerate(packed):
        single = unpack_views(one.unsqueeze(0))
        assert torch.equal(views.clip[row : row + 1], single.clip)
        assert torch.equal(views.sam[row : row + 1], single.sam)
        assert torch.equal(views.valid_sizes[row : row + 1], single.valid_sizes)
    sliced = unpack_views(torch.cat([torch.zeros(2, 3, dtype=torch.uint8), batch], 1)[:, 3:])
    assert torch.equal(sliced.sam, views.sam)


def test_a_full_size_image_stays_below_four_megabytes():
    assert pack_image(_picture(64, 48), 364, 1024).numel() <= 4_000_000


def test_foreign_tensors_are_refused():
    packed = pack_image(_picture(20, 20), 16, 32)
    broken = packed.clone()
    broken[0] ^= 1
    with pytest.raises(DataError, match="magic"):
        unpack_views(broken)
    with pytest.raises(DataError, match="magic"):
        unpack_views(packed[:-1])
    with pytest.raises(DataError, match="too short"):
        unpack_views(packed[:10])
    with pytest.raises(DataError, match="uint8"):
        unpack_views(packed.float())
    other = pack_views(
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 16, 16, dtype=torch.uint8),
        (16, 16),
        (20, 20),
    )
    with pytest.raises(DataError, match="differ"):
        unpack_views(torch.stack([packed, other]))


@pytest.mark.parametrize(
    "view", [torch.zeros(3, 4, 5, dtype=torch.uint8), torch.zeros(3, 4, 4), torch.zeros(4, 4)]
)
def test_pack_refuses_what_is_no_view(view):
    good = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match="SAM view"):
        pack_views(good, view, (4, 4), (4, 4))


def test_normalize_sam_zeroes_padding_per_image():
    sam = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
    normalised = normalize_sam(sam, torch.tensor([[8, 4], [2, 8]]))
    assert torch.all(normalised[0, :, :, 4:] == 0)
    assert torch.all(normalised[0, :, :, :4] != 0)
    assert torch.all(normalised[1, :, 2:] == 0)
    assert torch.all(normalised[1, :, :2] != 0)


def test_views_from_an_image_of_blip2_processors():
    picture = _picture(64, 64)
    clip = normalize_clip(make_clip_view(picture, 64).unsqueeze(0))
    same, sam, valid = views_from_clip_normalized(clip, 64, 64)
    assert torch.equal(same, clip)
    expected = normalize_sam(make_sam_view(picture, 64)[0].unsqueeze(0), valid)
    assert torch.allclose(sam, expected, atol=1e-4)
    smaller, larger, valid = views_from_clip_normalized(clip.half().expand(2, -1, -1, -1), 32, 128)
    assert smaller.shape == (2, 3, 32, 32)
    assert larger.shape == (2, 3, 128, 128)
    assert larger.dtype == torch.float32
    assert valid.tolist() == [[128, 128]] * 2


def test_views_from_an_oblong_clip_image_are_padded():
    image = torch.randn(1, 3, 32, 64)
    _, sam, valid = views_from_clip_normalized(image, 32, 128)
    assert valid.tolist() == [[64, 128]]
    assert torch.all(sam[:, :, 64:] == 0)
