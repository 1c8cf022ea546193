"""Random numbers that depend on where a training is, not on how it came there.

Every training step, and every sample that is read for it, seeds the random generators anew from its
own place in the training. So a run that was interrupted draws the same numbers from there on as one
that was not, whatever state the generators, loader workers included, had been in.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: object) -> int:
    """Hashes a place in the training to a seed below 2**63."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_generators(*parts: object) -> None:
    """Seeds the process-wide generators of Python, NumPy and torch (CUDA too) from a place."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - LAVIS' processors draw from this generator
    torch.manual_seed(seed)
