"""The two views of an image, and the one uint8 tensor that carries both through LAVIS.

LAVIS moves a single ``samples["image"]`` tensor from processor to model, so both views travel
packed in one 1-D uint8 tensor per image: a header of eight little-endian int32, the CLIP view's
pixels, the SAM view's pixels. Normalisation happens on the model's device, from 8-bit pixels, which
makes a sample four times smaller than float views.

Legend: B batch, S side of the CLIP view, T side of the SAM view, n bytes of a packed image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.common.errors import DataError

MAGIC = 0x4D534D43
VERSION = 1
_HEADER_FIELDS = 8
_HEADER_BYTES = 4 * _HEADER_FIELDS

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# in units of 0..255, as segment-anything's Sam keeps them
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)

_TORCH_RESIZES_BYTES = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 1)
_PILLOW_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Views(NamedTuple):
    """Unpacked views of a batch.

    Attributes:
        clip: uint8 (B, 3, S, S).
        sam: uint8 (B, 3, T, T), zero outside the valid size.
        valid_sizes: int64 (B, 2), height and width of the picture inside the SAM view.
        original_sizes: int64 (B, 2), height and width of the picture as read.
    """

    clip: Tensor
    sam: Tensor
    valid_sizes: Tensor
    original_sizes: Tensor


def make_clip_view(image: Image.Image, size: int) -> Tensor:
    """Squashes a picture to a square, as LAVIS' evaluation processors do.

    Args:
        image: RGB picture.
        size: Side S.

    Returns:
        uint8 (3, S, S), see `resize` for how near it is to LAVIS'.
    """
    return resize(_to_chw(image), (size, size), "bicubic")


def make_sam_view(image: Image.Image, size: int) -> tuple[Tensor, tuple[int, int]]:
    """Scales a picture's longest side to ``size`` and pads right and bottom with zeros.

    Args:
        image: RGB picture.
        size: Side T.

    Returns:
        uint8 (3, T, T), and the (height, width) that the picture fills.
    """
    return _sam_view(_to_chw(image), size)


def pack_image(image: Image.Image, clip_size: int, sam_size: int) -> Tensor:
    """Makes both views of an RGB picture and packs them: uint8 (n,)."""
    pixels = _to_chw(image)
    sam, valid_size = _sam_view(pixels, sam_size)
    clip = resize(pixels, (clip_size, clip_size), "bicubic")
    return pack_views(clip, sam, valid_size, (image.height, image.width))


def resize(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resizes 8-bit pixels with antialiasing, 3 to 9 times as fast as Pillow.

    PyTorch (from 2.1 on) rounds the filter's weights to 16 bits, Pillow to 22: results differ by
    one grey level in less than 1 % of the values, by two in single ones. Pillow 13 resizes the
    columns of tall pictures first; bicubic values, rounded in between, then differ by up to three,
    0.3 in the mean, as they do from older Pillows.

    Args:
        pixels: uint8 (3, H, W), fastest where the channels lie together in memory.
        size: Height and width.
        mode: "bilinear" or "bicubic".

    Returns:
        uint8 (3, *size).
    """
    if tuple(pixels.shape[1:]) == size:
        return pixels.contiguous()
    if _TORCH_RESIZES_BYTES:
        resized = F.interpolate(pixels[None], size, mode=mode, align_corners=False, antialias=True)
        return resized[0].contiguous()
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    return _to_chw(picture.resize(size[::-1], _PILLOW_FILTERS[mode])).contiguous()


def pack_views(
    clip: Tensor, sam: Tensor, valid_size: tuple[int, int], original_size: tuple[int, int]
) -> Tensor:
    """Packs two views of one image.

    Args:
        clip: uint8 (3, S, S).
        sam: uint8 (3, T, T).
        valid_size: Height and width of the picture inside the SAM view.
        original_size: Height and width of the picture as read.

    Returns:
        uint8 (n,) with n = 32 + 3*S*S + 3*T*T.

    Raises:
        DataError: If a view is not uint8, not square or not of three channels.
    """
    for name, view in (("CLIP", clip), ("SAM", sam)):
        square = view.dim() == 3 and view.shape[0] == 3 and view.shape[1] == view.shape[2]
        if not square or view.dtype != torch.uint8:
            raise DataError(
                f"the {name} view has shape {tuple(view.shape)} and dtype {view.dtype}; expected "
                "uint8 (3, S, S)"
            )
    fields = [MAGIC, VERSION, clip.shape[-1], sam.shape[-1], *valid_size, *original_size]
    header = torch.from_numpy(np.array(fields, dtype="<i4").view(np.uint8))
    return torch.cat([header, clip.reshape(-1), sam.reshape(-1)])


def unpack_views(packed: Tensor) -> Views:
    """Unpacks images on the device where they are.

    Args:
        packed: uint8 (B, n) or (n,), all with the same view sizes.

    Returns:
        The views of the batch; B is 1 for a single image.

    Raises:
        DataError: If the tensor was not made by `pack_views`, its images differ in view size, or
            there is none.
    """
    if packed.dtype != torch.uint8 or packed.dim() not in (1, 2):
        raise DataError(
            f"packed views must be uint8 (B, n) or (n,), got {packed.dtype} {tuple(packed.shape)}; "
            "make them with the msmedcap_image_train or msmedcap_image_eval processor"
        )
    batch = packed.unsqueeze(0) if packed.dim() == 1 else packed
    if not len(batch):
        raise DataError("the batch of packed views is empty; expected at least one image")
    header = _decode_header(batch)  # (B, 8)
    clip_size, sam_size = _check_header(header, batch.shape[1])
    clip_end = _HEADER_BYTES + 3 * clip_size * clip_size
    return Views(
        clip=batch[:, _HEADER_BYTES:clip_end].reshape(-1, 3, clip_size, clip_size),
        sam=batch[:, clip_end:].reshape(-1, 3, sam_size, sam_size),
        valid_sizes=header[:, 4:6],
        original_sizes=header[:, 6:8],
    )


def normalize_clip(clip: Tensor) -> Tensor:
    """Normalises a CLIP view exactly as ToTensor and Normalize of LAVIS' processors do.

    Args:
        clip: uint8 (B, 3, S, S).

    Returns:
        float32 (B, 3, S, S).
    """
    mean, std = _per_channel(CLIP_MEAN, clip.device), _per_channel(CLIP_STD, clip.device)
    return clip.to(torch.float32).div_(255).sub_(mean).div_(std)


def normalize_sam(sam: Tensor, valid_sizes: Tensor) -> Tensor:
    """Normalises a SAM view; the padding is zero after normalisation, as segment-anything has it.

    Args:
        sam: uint8 or float (B, 3, T, T) in units of 0..255.
        valid_sizes: int (B, 2), height and width of each picture.

    Returns:
        float32 (B, 3, T, T).
    """
    mean, std = _per_channel(SAM_MEAN, sam.device), _per_channel(SAM_STD, sam.device)
    normalised = sam.to(torch.float32, copy=True).sub_(mean).div_(std)
    rows = torch.arange(sam.shape[-2], device=sam.device) >= valid_sizes[:, :1]  # (B, T)
    columns = torch.arange(sam.shape[-1], device=sam.device) >= valid_sizes[:, 1:]  # (B, T)
    outside = rows[:, None, :, None] | columns[:, None, None, :]  # (B, 1, T, T)
    return normalised.masked_fill_(outside, 0.0)


def views_from_clip_normalized(
    image: Tensor, clip_size: int, sam_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Makes both views from an image that BLIP-2's own processors have already normalised.

    The SAM view is the enlarged CLIP picture: it shows no detail that the processor has removed.

    Args:
        image: float (B, 3, H, W), normalised with CLIP's mean and standard deviation.
        clip_size: Side S.
        sam_size: Side T.

    Returns:
        CLIP view float32 (B, 3, S, S), normalised SAM view float32 (B, 3, T, T), and valid sizes
        int64 (B, 2) inside the SAM view.
    """
    image = image.to(torch.float32)
    mean, std = _per_channel(CLIP_MEAN, image.device), _per_channel(CLIP_STD, image.device)
    pixels = (image * std + mean).clamp_(0, 1) * 255
    height, width = (
        max(1, side) for side in ResizeLongestSide.get_preprocess_shape(*image.shape[-2:], sam_size)
    )
    sam = _resize(pixels, (height, width), "bilinear")
    sam = F.pad(sam, (0, sam_size - width, 0, sam_size - height))
    valid_sizes = torch.tensor([[height, width]], device=image.device).repeat(len(image), 1)
    clip = _resize(image, (clip_size, clip_size), "bicubic")
    return clip, normalize_sam(sam, valid_sizes), valid_sizes


def _sam_view(pixels: Tensor, size: int) -> tuple[Tensor, tuple[int, int]]:
    """Makes the SAM view of uint8 (3, H, W)."""
    shape = ResizeLongestSide.get_preprocess_shape(*pixels.shape[1:], size)
    # a picture more than 2T times longer than wide would otherwise vanish
    height, width = (max(1, side) for side in shape)
    view = torch.zeros(3, size, size, dtype=torch.uint8)
    view[:, :height, :width] = resize(pixels, (height, width), "bilinear")
    return view, (height, width)


def _to_chw(image: Image.Image) -> Tensor:
    """Returns the pixels of an RGB picture as uint8 (3, H, W), channels together in memory."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)


def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """Returns float32 (3, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)


def _resize(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resizes float (B, 3, H, W) with antialiasing; the same tensor if the size already fits."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size, mode=mode, align_corners=False, antialias=True)


def _decode_header(batch: Tensor) -> Tensor:
    """Reads the header as int64 (B, 8), from single bytes so that alignment does not matter."""
    octets = batch[:, :_HEADER_BYTES].to(torch.int64)
    if octets.shape[1] < _HEADER_BYTES:
        raise DataError(f"{batch.shape[1]} bytes per image are no packed views: too short")
    scale = torch.tensor([1, 1 << 8, 1 << 16, 1 << 24], device=batch.device)
    return (octets.view(-1, _HEADER_FIELDS, 4) * scale).sum(-1)


def _check_header(header: Tensor, length: int) -> tuple[int, int]:
    """Returns the sides S and T that all images of the batch share."""
    kinds = {tuple(row[:4]) for row in header.tolist()}  # the only transfer to the CPU
    if len(kinds) > 1:
        raise DataError(f"the images of a batch differ in (magic, version, S, T): {sorted(kinds)}")
    magic, version, clip_size, sam_size = kinds.pop()
    expected = _HEADER_BYTES + 3 * (clip_size**2 + sam_size**2)
    if (magic, version) != (MAGIC, VERSION) or length != expected:
        raise DataError(
            f"{length} bytes per image with magic {magic:#x} and version {version} are not packed "
            f"views (magic {MAGIC:#x}, version {VERSION}); make them with the msmedcap_image_train "
            "or msmedcap_image_eval processor"
        )
    return clip_size, sam_size
