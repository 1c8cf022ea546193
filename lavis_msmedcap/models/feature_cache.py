"""Keeps what the frozen encoders made of an image, so that later epochs need not make it again.

Encoders are frozen and their input is bytes (packed views), so the bytes are the key: whatever the
processor, the dataset or the epoch, the same views have the same features. An augmented image is
simply new. Each image is encoded alone, not in the batch it came with: a batch of another size may
round differently, and training must not depend on who met an image first.

Dimensions: B batch, n bytes of a packed image, N image tokens, C encoder width.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lavis_msmedcap.models.encoders.outputs import ImageEmbeds

logger = logging.getLogger(__name__)

GIB = 2**30


def _each(
    compute: Callable[[Tensor], ImageEmbeds], images: Sequence[Tensor]
) -> Iterable[ImageEmbeds]:
    """Encodes images one by one; on a CPU several at a time, as one is too small for all cores."""
    threads = min(len(images), torch.get_num_threads())
    if threads < 2 or images[0].device.type != "cpu":
        return [compute(image) for image in images]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(compute, images))


class FeatureCache:
    """Features in main memory, up to a limit; what comes after is encoded every time.

    Nothing is thrown out to make room: epochs meet the images in a new order each time, so that
    what was used last tells nothing about what is used next.

    Args:
        limit_gib: Most memory for features, in GiB.
    """

    def __init__(self, limit_gib: float) -> None:
        self.limit = int(limit_gib * GIB)
        self.size = 0
        self._kept: dict[tuple[str, bytes], ImageEmbeds] = {}

    def __len__(self) -> int:
        """Number of images of all branches."""
        return len(self._kept)

    def encode(
        self, branch: str, packed: Tensor, compute: Callable[[Tensor], ImageEmbeds]
    ) -> ImageEmbeds:
        """Returns the features of a batch, computing those that are not kept.

        Args:
            branch: Name of the branch whose encoder it is.
            packed: uint8 (B, n), packed views.
            compute: Encodes one image, uint8 (1, n).

        Returns:
            Tokens (B, N, C) and mask (B, N) on the device of ``packed``.
        """
        images = packed.cpu()
        keys = [(branch, hashlib.blake2b(row.numpy(), digest_size=16).digest()) for row in images]
        new = {key: packed[i : i + 1] for i, key in enumerate(keys) if key not in self._kept}
        fresh = dict(zip(new, _each(compute, list(new.values()))))
        for key, features in fresh.items():
            self._keep(key, features)
        rows = [fresh[key] if key in fresh else self._kept[key] for key in keys]
        embeds = torch.cat([row.embeds.to(packed.device) for row in rows])
        return ImageEmbeds(embeds, torch.cat([row.atts.to(packed.device) for row in rows]))

    def _keep(self, key: tuple[str, bytes], features: ImageEmbeds) -> None:
        size = sum(part.numel() * part.element_size() for part in features)
        if self.size + size > self.limit:
            if self.limit:
                logger.info(
                    "the feature cache is full: %d images in %.1f GiB; the others are encoded "
                    "every time (raise run.feature_cache_gib to keep more)",
                    len(self),
                    self.size / GIB,
                )
                self.limit = 0  # said once; smaller features do not squeeze in either
            return
        self.size += size
        self._kept[key] = ImageEmbeds(features.embeds.cpu(), features.atts.cpu())
