"""What the authors' code feeds SAM, reproduced to the bit; it serves their checkpoints only.

THIS IS A BUG KEPT ON PURPOSE. Their code hands the CLIP-normalised float tensor to torchvision's
``ToPILImage``, which multiplies by 255 and converts to 8 bits without clipping. Normalised values
lie between -1.8 and 2.2, so that most of them wrap around modulo 256: a grey ramp of 0..255 becomes
three saw teeth (grey 32 turns into 175, 124 into 4, in the red channel), and SAM sees neither the
picture nor more pixels than CLIP. For anything else than their weights use the raw view
(`lavis_msmedcap.imaging.views`).

Dimensions: B batch, H W pixels of the CLIP view, T side of the SAM view.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

# Hugging Face's SamImageProcessor, in units of 0..1
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
RESCALED = (np.arange(256) * (1 / 255)).astype(np.float32)  # computed in float64 there, too


def wrap_to_uint8(image: Tensor) -> Tensor:
    """Multiplies by 255, cuts off the fraction, and keeps the remainder of 256.

    That is what PyTorch's ``byte()`` does, by way of a 64-bit integer; numpy, which newer versions
    of ``ToPILImage`` use, does the same on x86. C leaves the conversion undefined outside of
    0..255, so it is written out in integers here.

    Args:
        image: float (...), normalised with CLIP's mean and standard deviation.

    Returns:
        uint8 (...).
    """
    scaled = image.to(torch.float32) * 255
    return scaled.trunc().to(torch.int64).remainder(256).to(torch.uint8)


def authors_sam_view(image: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Makes the SAM view as ``ToPILImage`` and Hugging Face's ``SamImageProcessor`` do.

    The image is enlarged by PIL on the CPU, picture by picture, because that is what decides its
    last bits.

    Args:
        image: float (B, 3, H, W), normalised with CLIP's mean and standard deviation.
        size: Side T.

    Returns:
        Normalised SAM view float32 (B, 3, T, T), zero outside the picture, and valid sizes int64
        (B, 2), both on the device of ``image``.
    """
    height, width = ResizeLongestSide.get_preprocess_shape(*image.shape[-2:], size)
    view = torch.zeros(len(image), 3, size, size)
    for row, pixels in enumerate(wrap_to_uint8(image).permute(0, 2, 3, 1).cpu()):
        picture = Image.fromarray(pixels.contiguous().numpy())
        enlarged = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        normalised = (RESCALED[enlarged] - MEAN) / STD  # (height, width, 3)
        view[row, :, :height, :width] = torch.from_numpy(normalised).permute(2, 0, 1)
    valid_sizes = torch.tensor([[height, width]]).repeat(len(image), 1)
    return view.to(image.device), valid_sizes.to(image.device)
