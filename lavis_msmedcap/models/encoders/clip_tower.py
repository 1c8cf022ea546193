"""What the encoders of general semantics share: a CLIP ViT and the layer norm behind it (Eq. 1).

Dimensions: B batch, H W pixels, N image tokens (1 + patches), C encoder width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavis_msmedcap.models.encoders.outputs import ImageEmbeds


class Float32LayerNorm(nn.LayerNorm):
    """Layer norm computed in float32 whatever the input's precision (as LAVIS' ``ln_vision``)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., C) and returns float32."""
        return super().forward(x.float())


class ClipTower(nn.Module):
    """A CLIP ViT followed by the layer norm ``ln_vision`` of BLIP-2.

    Args:
        vit: Maps (B, 3, H, W) to (B, N, C) in the type of its weights.
        image_size: Side of the square CLIP view in pixels.
        width: C.
    """

    def __init__(self, vit: nn.Module, image_size: int, width: int) -> None:
        super().__init__()
        self.vit: Any = vit  # LAVIS' classes have no types
        self.ln = Float32LayerNorm(width)
        self.image_size = image_size
        self.width = width

    def set_precision(self, dtype: torch.dtype) -> None:
        """Holds the ViT in ``dtype``; the layer norm behind it stays float32."""
        self.vit.to(dtype)

    def forward(self, clip_view: Tensor) -> ImageEmbeds:
        """Encodes CLIP views.

        Args:
            clip_view: float (B, 3, H, W), normalised with CLIP's mean and standard deviation.

        Returns:
            Tokens float32 (B, N, C); every token is valid.
        """
        dtype = next(self.vit.parameters()).dtype  # the class token's, in every ViT here
        embeds = self.ln(self.vit(clip_view.to(dtype)))  # (B, N, C)
        atts = torch.ones(embeds.shape[:-1], dtype=torch.long, device=embeds.device)
        return ImageEmbeds(embeds, atts)
