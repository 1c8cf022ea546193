"""Fingerprints of vocabularies, kept in checkpoints: as many words may be other words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Protocol

VOCABULARIES = "vocabularies"  # entry of a checkpoint's header: fingerprint by configuration key


class Vocabulary(Protocol):
    """What is asked of a tokenizer."""

    def get_vocab(self) -> Mapping[str, int]:
        """Returns the number of every word."""
        ...


def fingerprint(tokenizer: Vocabulary) -> str:
    """Hashes the words of a tokenizer with their numbers, wherever its files lie."""
    words = sorted((number, word) for word, number in tokenizer.get_vocab().items())
    return hashlib.blake2b(json.dumps(words).encode(), digest_size=16).hexdigest()


def read_fingerprints(text: str | None) -> dict[str, str]:
    """Reads the entry of a checkpoint's header; empty if there is none, or it cannot be read."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}
