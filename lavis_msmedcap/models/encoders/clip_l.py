"""CLIP ViT-L of OpenAI: the other encoder of general semantics that LAVIS has (Eq. 1).

LAVIS' own ``clip_vit.VisionTransformer`` is used unchanged; this file gives it a size and keeps
its layer norms in float32, where that class computes them.
"""

from __future__ import annotations

import torch
from lavis.models.clip_vit import LayerNorm, VisionTransformer

from lavis_msmedcap.models.encoders.clip_tower import ClipTower
from lavis_msmedcap.models.encoders.patches import require_whole_patches

MLP_RATIO = 4.0


class ClipLEncoder(ClipTower):
    """CLIP ViT-L without its last layers, followed by the layer norm ``ln_vision`` of BLIP-2.

    Args:
        image_size: Side of the square CLIP view in pixels.
        patch_size: Side of a patch in pixels; 14.
        width: C; 1024.
        depth: Number of blocks; LAVIS' ``create_clip_vit_L`` builds the first 21 of OpenAI's 24
            (its ``layers=22`` counts one that it leaves out).
        num_heads: Attention heads; 16.
        mlp_ratio: Hidden width of the MLP over C; always 4.

    Raises:
        ValueError: If ``mlp_ratio`` is not 4, or ``patch_size`` does not divide ``image_size``.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 14,
        width: int = 1024,
        depth: int = 21,
        num_heads: int = 16,
        mlp_ratio: float = MLP_RATIO,
    ) -> None:
        if mlp_ratio != MLP_RATIO:
            raise ValueError(f"mlp_ratio is {mlp_ratio}; the MLP of clip_l is always 4 times wider")
        require_whole_patches(image_size, patch_size)
        vit = VisionTransformer(
            input_resolution=image_size,
            patch_size=patch_size,
            width=width,
            layers=depth + 1,
            heads=num_heads,
            use_grad_checkpointing=False,
        )
        super().__init__(vit, image_size, width)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Holds the ViT in ``dtype``, its layer norms in float32."""
        super().set_precision(dtype)
        for part in self.vit.modules():
            if isinstance(part, LayerNorm):
                part.float()
