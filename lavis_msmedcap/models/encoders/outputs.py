"""What an encoder returns: tokens and their mask."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ImageEmbeds(NamedTuple):
    """Output of a frozen encoder.

    Attributes:
        embeds: float (B, N, C) image tokens.
        atts: int64 (B, N), 1 for tokens that show the image, 0 for padding.
    """

    embeds: Tensor
    atts: Tensor

    def rows(self, index: Tensor) -> ImageEmbeds:
        """Returns the samples named by ``index`` (K,) as a batch of K."""
        return ImageEmbeds(self.embeds[index], self.atts[index])
