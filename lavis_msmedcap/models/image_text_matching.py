"""Image-text matching under LAVIS' calling convention: ``model(samples, match_head="itm")``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis.common.registry import registry
from torch import Tensor

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer


@registry.register_model("msmedcap_image_text_matching")
class MSMedCapITM(Blip2DualQformer):
    """Stage-1 model whose ``forward`` matches, in the place of ``blip2_image_text_matching``.

    Supported model types:
        - demo, paper: those of ``blip2_dual_qformer``, whose checkpoints it loads

    Usage:
        >>> from lavis.models import load_model_and_preprocess
        >>> model, vis, txt = load_model_and_preprocess("msmedcap_image_text_matching")
        >>> model({"image": image, "text_input": "a chest radiograph"}, match_head="itm")
    """

    NAME = "msmedcap_image_text_matching"

    def forward(  # type: ignore[override]
        self, samples: Mapping[str, Any], match_head: str = "itm", branch: str | None = None
    ) -> Tensor:
        """Matches each image with its text.

        Args:
            samples: ``image`` (see `encode_image`) and ``text_input``, B strings or one.
            match_head: ``itm`` or ``itc``.
            branch: ``clip``, ``sam``, or ``fused``, the default: their mean.

        Returns:
            ``itm``: logits (B, 2), column 1 for a match. ``itc``: cosine similarities (B, 1) of
            the pairs, as in LAVIS; `match` gives those of all images with all texts.

        Raises:
            ValueError: If the head or branch is unknown, or an input is absent.
        """
        scores = self.match(samples, match_head, branch)
        return scores if match_head == "itm" else scores.diagonal()[:, None]
