"""What a check of ``msmedcap doctor`` returns."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, MISSING = "ok", "note", "MISSING"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        status: ``OK``, ``NOTE`` (good to know) or ``MISSING`` (will not work).
        text: One line; where something is amiss, with the cure.
    """

    status: str
    text: str
