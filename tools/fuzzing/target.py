"""What is put under test."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Attributes:
        name: For the command line and the report.
        files: A small valid tree: content by path. One that is not empty is damaged in each case.
        read: Reads the tree in a folder to its end.
        damage: Damage that gets past a format's first check (a checksum, a parser); done in half of
            the cases.
    """

    name: str
    files: dict[str, bytes]
    read: Callable[[Path], object]
    damage: Damage | None = None
