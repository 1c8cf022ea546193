"""Captions, whose cleaning and swapping of sides must hold for any text."""

from __future__ import annotations

from pathlib import Path

from fuzzing.target import Target
from lavis_msmedcap.datasets.caption_text import STEPS, clean_caption, strip_marks
from lavis_msmedcap.datasets.laterality import can_swap, names_side, swap_sides


def caption_target() -> Target:
    """Returns a caption with something for every step of the cleaning."""
    text = (
        "Figure 2a. (A) CT\u00a0of the left lung (white arrow, 0.37 cm) [12]. \u00a9 2010 X. MRI."
    )
    return Target("caption", {"caption": text.encode()}, _read_caption)


def _read_caption(folder: Path) -> None:
    text = (folder / "caption").read_bytes().decode(errors="surrogateescape")
    for steps in ((), tuple(STEPS)):
        clean = clean_caption(text, steps)
        if len(clean.splitlines()) > 1 or clean != clean.strip():
            raise AssertionError(f"not on one line: {clean!r}")
        clean_caption(text, steps, unicode=False)
    strip_marks(text)
    swapped = swap_sides(text)
    if swap_sides(swapped) != text or can_swap(swapped) != can_swap(text):
        raise AssertionError("swapping sides twice is not where it began")
    if swapped != text and not names_side(text):
        raise AssertionError("a side was swapped that is not named")
