"""The keys and values that a network keeps of what it has read, layer by layer.

Dimensions: R rows (sequences under way), T tokens so far.
"""

from __future__ import annotations

from torch import Tensor

KeyValues = tuple[tuple[Tensor, ...], ...]  # per layer keys and values, each (R, heads, T, width)


def repeat_rows(cache: KeyValues, copies: int) -> KeyValues:
    """Makes ``copies`` rows of each, next to each other."""
    if copies == 1:
        return cache
    return tuple(
        tuple(states.repeat_interleave(copies, dim=0) for states in layer) for layer in cache
    )


def reorder_tail(cache: KeyValues, rows: Tensor, start: int) -> None:
    """Lets row ``i`` continue from row ``rows[i]``, in place, from token ``start`` on.

    Args:
        cache: Changed in place.
        rows: int64 (R,); a row and the one it continues from share their first ``start`` tokens.
        start: Number of shared tokens; with no token after them nothing moves.
    """
    for layer in cache:
        for states in layer:
            written = states[:, :, start:]
            if written.shape[2]:
                written.copy_(written.index_select(0, rows))
