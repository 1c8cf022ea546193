"""Segment Anything's image encoder: fine detail (Eq. 2 of the paper).

segment-anything's ``ImageEncoderViT`` is used unchanged; this file turns its feature map into
tokens for a Q-Former and marks the tokens that only show padding.

Dimensions: B batch, T side of the SAM view in pixels, h w side of the feature map (T / patch size),
S channels of the feature map (256 at every published size), N image tokens, C token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.encoders.patches import require_whole_patches

TOKEN_LAYOUTS = ("spatial", "spatial_pooled", "channel")
SAM_INPUTS = ("raw", "authors")
POOL = 2


class SamEncoder(nn.Module):
    """SAM's ViT with a named choice of how its feature map becomes tokens.

    Args:
        image_size: T, the longest side of the image in pixels; 1024 for published weights.
        patch_size: Side of a patch in pixels; 16.
        width: Width of the ViT; 768 / 1024 / 1280 for vit_b / vit_l / vit_h.
        depth: Number of blocks; 12 / 24 / 32.
        num_heads: Attention heads; 12 / 16 / 16.
        mlp_ratio: Hidden width of the MLP over the ViT's width.
        window_size: Side of the local attention windows in patches; 14.
        global_attn_indexes: Blocks with global attention; (2, 5, 8, 11) for vit_b.
        out_chans: S, channels of the feature map.
        tokens: ``spatial``: one token of width S per position. ``spatial_pooled``: the same after
            average pooling. ``channel``: one token of width h * w per channel, which is what the
            authors' code does and what their checkpoints need.
        pool: Pooling factor per side of ``spatial_pooled``; at 1024 pixels 2 gives 32 x 32 tokens,
            4 gives 16 x 16.
        input: What the model feeds this encoder. ``raw``: the picture. ``authors``: what the
            authors' code makes of the CLIP view, see `lavis_msmedcap.imaging.authors_view`.

    Raises:
        ValueError: If ``tokens`` or ``input`` is unknown, ``patch_size`` does not divide
            ``image_size``, or ``pool`` leaves a rest of positions.
    """

    def __init__(
        self,
        image_size: int = 1024,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        window_size: int = 14,
        global_attn_indexes: Sequence[int] = (2, 5, 8, 11),
        out_chans: int = 256,
        tokens: str = "spatial",
        pool: int = POOL,
        input: str = "raw",
    ) -> None:
        super().__init__()
        require_whole_patches(image_size, patch_size)
        grid = image_size // patch_size
        for key, value, known in (("tokens", tokens, TOKEN_LAYOUTS), ("input", input, SAM_INPUTS)):
            if value not in known:
                raise ValueError(f"{key} is {value!r}; expected one of {', '.join(known)}")
        if tokens == "spatial_pooled" and grid % pool:
            raise ValueError(f"pool is {pool}, which does not divide the {grid} positions per side")
        self.vit = ImageEncoderViT(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            out_chans=out_chans,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window_size,
            global_attn_indexes=tuple(global_attn_indexes),
        )
        self.image_size = image_size
        self.patch_size = patch_size
        self.tokens = tokens
        self.pool = pool
        self.input = input
        self.width = grid * grid if tokens == "channel" else out_chans

    def set_precision(self, dtype: torch.dtype) -> None:
        """Holds the ViT in ``dtype``."""
        self.vit.to(dtype)

    @property
    def num_tokens(self) -> int:
        """N, the number of tokens of one image."""
        side = self.image_size // self.patch_size
        if self.tokens == "channel":
            channels: int = self.vit.neck[0].out_channels
            return channels
        return (side // self.pool) ** 2 if self.tokens == "spatial_pooled" else side * side

    def feature_map(self, sam_view: Tensor) -> Tensor:
        """Returns SAM's image embedding (B, S, h, w), before it is cut into tokens."""
        dtype = self.vit.patch_embed.proj.weight.dtype
        return self.vit(sam_view.to(dtype)).float()

    def forward(self, sam_view: Tensor, valid_sizes: Tensor) -> ImageEmbeds:
        """Encodes SAM views.

        Args:
            sam_view: float (B, 3, T, T), normalised with SAM's mean and standard deviation, zero
                outside the image.
            valid_sizes: int64 (B, 2), height and width in pixels of the image inside the view.

        Returns:
            Tokens float32 (B, N, C); tokens that show no pixel of the image have attention 0.
        """
        features = self.feature_map(sam_view)  # (B, S, h, w)
        if self.tokens == "channel":
            embeds = features.flatten(2)  # (B, S, h * w): a channel is a token
            return ImageEmbeds(embeds, embeds.new_ones(embeds.shape[:-1], dtype=torch.long))
        valid = self._valid_positions(features, valid_sizes)  # (B, h, w)
        if self.tokens == "spatial_pooled":
            features, valid = _masked_average_pool(features, valid, self.pool)
        embeds = features.flatten(2).transpose(1, 2)  # (B, h * w, S)
        return ImageEmbeds(embeds.contiguous(), valid.flatten(1).long())

    def _valid_positions(self, features: Tensor, valid_sizes: Tensor) -> Tensor:
        """Marks with True the positions (B, h, w) whose patch holds at least one image pixel."""
        height, width = features.shape[-2:]
        starts_y = torch.arange(height, device=features.device) * self.patch_size
        starts_x = torch.arange(width, device=features.device) * self.patch_size
        sizes = valid_sizes.to(features.device)
        rows = starts_y < sizes[:, :1]  # (B, h)
        columns = starts_x < sizes[:, 1:]  # (B, w)
        return rows[:, :, None] & columns[:, None, :]


def _masked_average_pool(features: Tensor, valid: Tensor, pool: int) -> tuple[Tensor, Tensor]:
    """Averages the valid positions of each pool x pool cell.

    Args:
        features: (B, S, h, w).
        valid: bool (B, h, w).
        pool: Cell side.

    Returns:
        Features (B, S, h / pool, w / pool), and which cells hold a valid position.
    """
    mask = valid[:, None].to(features.dtype)  # (B, 1, h, w)
    share = F.avg_pool2d(mask, pool)
    pooled = F.avg_pool2d(features * mask, pool) / share.clamp_min(1e-6)
    return pooled, share[:, 0] > 0
