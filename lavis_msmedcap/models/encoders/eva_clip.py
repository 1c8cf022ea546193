"""EVA-CLIP ViT: the encoder of general semantics (Eq. 1 of the paper).

LAVIS' own ``VisionTransformer`` is used unchanged; this file gives it a size, weights, a precision
and a frozen state.

Dimensions: B batch, H W pixels, N image tokens (1 + patches), C encoder width.
"""

from __future__ import annotations

from functools import partial

import torch
from lavis.models.eva_vit import VisionTransformer
from torch import Tensor, nn

from lavis_msmedcap.models.encoders.outputs import ImageEmbeds


class Float32LayerNorm(nn.LayerNorm):
    """Layer norm computed in float32 whatever the input's precision (as LAVIS' ``ln_vision``)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., C) and returns float32."""
        return super().forward(x.float())


class EvaClipEncoder(nn.Module):
    """EVA-CLIP ViT followed by the layer norm ``ln_vision`` of BLIP-2.

    Args:
        image_size: Side of the square CLIP view in pixels.
        patch_size: Side of a patch in pixels; EVA ViT-g uses 14.
        width: C; 1408 for ViT-g.
        depth: Number of blocks; BLIP-2 uses the first 39 of ViT-g.
        num_heads: Attention heads; 16 for ViT-g.
        mlp_ratio: Hidden width of the MLP over C; 4.3637 for ViT-g.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 14,
        width: int = 1408,
        depth: int = 39,
        num_heads: int = 16,
        mlp_ratio: float = 4.3637,
    ) -> None:
        super().__init__()
        self.vit = VisionTransformer(
            img_size=image_size,
            patch_size=patch_size,
            use_mean_pooling=False,
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.ln = Float32LayerNorm(width)
        self.image_size = image_size
        self.width = width

    def forward(self, clip_view: Tensor) -> ImageEmbeds:
        """Encodes CLIP views.

        Args:
            clip_view: float (B, 3, H, W), normalised with CLIP's mean and standard deviation.

        Returns:
            Tokens float32 (B, N, C); every token is valid.
        """
        dtype = self.vit.patch_embed.proj.weight.dtype
        embeds = self.ln(self.vit(clip_view.to(dtype)))  # (B, N, C)
        atts = torch.ones(embeds.shape[:-1], dtype=torch.long, device=embeds.device)
        return ImageEmbeds(embeds, atts)
