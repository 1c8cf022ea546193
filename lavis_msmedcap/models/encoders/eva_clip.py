"""EVA-CLIP ViT: the encoder of general semantics (Eq. 1 of the paper).

LAVIS' own ``VisionTransformer`` is used unchanged; this file gives it a size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lavis.models.eva_vit import VisionTransformer
from torch import nn
from torch.overrides import TorchFunctionMode

from lavis_msmedcap.models.encoders.clip_tower import ClipTower
from lavis_msmedcap.models.encoders.patches import require_whole_patches


class PlainNumbersOnCpu(TorchFunctionMode):
    """Keeps ``torch.linspace`` on the CPU where the default device is another.

    LAVIS' constructor reads the rates of its drop path out of such a tensor, which the meta device
    (shapes without memory) cannot give.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Calls ``func``, on the CPU if it is ``torch.linspace``."""
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


class EvaClipEncoder(ClipTower):
    """EVA-CLIP ViT followed by the layer norm ``ln_vision`` of BLIP-2.

    Args:
        image_size: Side of the square CLIP view in pixels.
        patch_size: Side of a patch in pixels; EVA ViT-g uses 14.
        width: C; 1408 for ViT-g.
        depth: Number of blocks; BLIP-2 uses the first 39 of ViT-g.
        num_heads: Attention heads; 16 for ViT-g.
        mlp_ratio: Hidden width of the MLP over C; 4.3637 for ViT-g.

    Raises:
        ValueError: If ``patch_size`` does not divide ``image_size``.
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
        require_whole_patches(image_size, patch_size)
        with PlainNumbersOnCpu():
            vit = VisionTransformer(
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
        super().__init__(vit, image_size, width)
