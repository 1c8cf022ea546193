"""The authors' SAM input against torchvision's ToPILImage, PIL, and Hugging Face's processor."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToPILImage, ToTensor

from lavis_msmedcap.imaging.authors_view import authors_sam_view, wrap_to_uint8
from lavis_msmedcap.imaging.views import CLIP_MEAN, CLIP_STD, normalize_clip

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# pixel_values of transformers 4.53.3's SamImageProcessor() (Pillow 13.0.0) for pictures drawn one
# after the other from one generator: SHA-256 of the float32 bytes (3, 1024, 1024), and three values
PROCESSED = {
    (224, 224): (
        "a2885618fb44b558",
        (-0.4910523295402527, 0.7829132676124573, 0.07790856808423996),
    ),
    (364, 364): (
        "f04ce44e051a303b",
        (-2.015155553817749, 0.17016805708408356, -0.0789541676640510),
    ),
    (40, 24): ("02e8353e3dbf24de", (0.5364329218864441, 0.0476190522313118, 0.32191726565361023)),
}
normalize = Compose([ToTensor(), Normalize(CLIP_MEAN, CLIP_STD)])  # of LAVIS' image processors


def this_machine_wraps() -> bool:
    """C leaves the conversion undefined; x86-64 keeps the low byte."""
    values = np.linspace(-500, 600, 200, dtype=np.float32)
    return bool((values.astype(np.uint8) == np.trunc(values).astype(np.int64) % 256).all())


def noise(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def hugging_face(picture: Image.Image, size: int) -> np.ndarray:
    """SamImageProcessor, step by step: resize, rescale, normalise, pad."""
    scale = size / max(picture.size)
    width, height = (int(side * scale + 0.5) for side in picture.size)
    pixels = np.asarray(picture.resize((width, height), resample=Image.Resampling.BILINEAR))
    rescaled = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    mean, std = np.array(MEAN, dtype=np.float32), np.array(STD, dtype=np.float32)
    normalised = ((rescaled - mean) / std).transpose(2, 0, 1)
    return np.pad(normalised, ((0, 0), (0, size - height), (0, size - width)))


def test_the_wrap_of_grey_values() -> None:
    """Red channel of greys; the numbers were worked out by hand from the mean and the deviation."""
    grey = torch.tensor([0, 32, 120, 124, 255], dtype=torch.uint8).view(1, 1, 1, 5)
    wrapped = wrap_to_uint8(normalize_clip(grey.repeat(1, 3, 1, 1)))
    assert wrapped[0, 0, 0].tolist() == [55, 175, 246, 4, 236]


def test_a_ramp_of_grey_becomes_saw_teeth() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).repeat(1, 3, 1, 1)
    red = wrap_to_uint8(normalize_clip(ramp))[0, 0, 0].int()
    assert int((red.diff() < 0).sum()) == 3


@pytest.mark.skipif(not this_machine_wraps(), reason="this machine converts floats another way")
@pytest.mark.parametrize("size", [(224, 224), (364, 364), (40, 24)])
def test_the_bytes_equal_torchvision(size: tuple[int, int]) -> None:
    tensor = normalize(noise(*size))
    expected = np.asarray(ToPILImage()(tensor)).transpose(2, 0, 1)
    assert np.array_equal(wrap_to_uint8(tensor).numpy(), expected)
    assert torch.equal(wrap_to_uint8(tensor), tensor.mul(255).byte())  # of older ToPILImages


@pytest.mark.parametrize("size", [(224, 224), (40, 24), (24, 41)])
def test_the_view_equals_hugging_faces_processor_to_the_bit(size: tuple[int, int]) -> None:
    tensors = torch.stack([normalize(noise(*size)), normalize(noise(*size)).flip(2)])
    view, valid = authors_sam_view(tensors, 256)
    for row, tensor in enumerate(tensors):
        picture = Image.fromarray(wrap_to_uint8(tensor).permute(1, 2, 0).contiguous().numpy())
        assert np.array_equal(view[row].numpy(), hugging_face(picture, 256))
    longest = max(size)
    assert valid.tolist() == [[int(side * 256 / longest + 0.5) for side in size]] * 2


def test_the_view_has_the_bytes_that_transformers_4_53_gave() -> None:
    generator = np.random.default_rng(0)
    for size, (digest, values) in PROCESSED.items():
        pixels = torch.from_numpy(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        image = (pixels.permute(2, 0, 1)[None] + 0.5) / 255  # which the 8-bit step turns back
        (view,), _ = authors_sam_view(image, 1024)
        found = [view[0, 0, 0], view[1, 500, 300], view[2, 1023, 600]]
        torch.testing.assert_close(torch.stack(found), torch.tensor(values))
        assert hashlib.sha256(view.numpy().tobytes()).hexdigest().startswith(digest)
