"""The named sizes of Segment Anything's image encoder, and what size a weights file is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

# segment-anything's build_sam.py; patches, windows and channels are alike in all three
SAM_SIZES: dict[str, dict[str, Any]] = {
    "vit_b": {
        "width": 768,
        "depth": 12,
        "num_heads": 12,
        "global_attn_indexes": [2, 5, 8, 11],
    },
    "vit_l": {
        "width": 1024,
        "depth": 24,
        "num_heads": 16,
        "global_attn_indexes": [5, 11, 17, 23],
    },
    "vit_h": {
        "width": 1280,
        "depth": 32,
        "num_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
    },
}


def fill_size(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the key ``size`` by the keys that it stands for.

    Args:
        settings: Arguments of `SamEncoder`, with or without ``size``.

    Returns:
        The arguments without ``size``.

    Raises:
        ValueError: If the size is unknown, or a key beside it contradicts it.
    """
    rest = {key: value for key, value in settings.items() if key != "size"}
    size = settings.get("size")
    if size is None:
        return rest
    if size not in SAM_SIZES:
        raise ValueError(f"size is {size!r}; expected one of {', '.join(SAM_SIZES)}")
    conflict = size_conflict(settings)
    if conflict:
        raise ValueError(conflict)
    return {**rest, **SAM_SIZES[size]}


def size_conflict(settings: Mapping[str, Any]) -> str | None:
    """Says which keys contradict the size named beside them; None if none does."""
    size = settings.get("size")
    named = SAM_SIZES.get(str(size), {})
    wrong = {key: settings[key] for key in named if not _alike(settings.get(key), named[key])}
    if not wrong:
        return None
    have = ", ".join(f"{key} is {value}" for key, value in wrong.items())
    want = ", ".join(f"{key} {named[key]}" for key in wrong)
    return f"size is {size} ({want}), but {have} beside it; take out size, or the other keys"


def _alike(value: Any, named: Any) -> bool:
    """Tells whether a key is absent or says what the size says, as a tuple or as YAML's list."""
    return value is None or (list(value) if isinstance(value, tuple) else value) == named


class SamShape(NamedTuple):
    """What tells the sizes apart.

    Attributes:
        width: Width of the ViT.
        depth: Number of blocks.
        num_heads: Attention heads.
    """

    width: int
    depth: int
    num_heads: int

    def __str__(self) -> str:
        """Names the size where it has a name, and always its numbers."""
        numbers = f"width {self.width}, depth {self.depth}, {self.num_heads} heads"
        return f"of size {self.name} ({numbers})" if self.name else f"of {numbers}"

    @property
    def name(self) -> str | None:
        """``vit_b``, ``vit_l`` or ``vit_h``; None for any other size."""
        known = {
            (size["width"], size["depth"], size["num_heads"]): name
            for name, size in SAM_SIZES.items()
        }
        return known.get((self.width, self.depth, self.num_heads))


def shape_of(tensors: Mapping[str, Tensor]) -> SamShape | None:
    """Reads the size off the tensors of an image encoder.

    Args:
        tensors: Tensors under the names of `SamEncoder` (``vit.`` in front).

    Returns:
        None if a tensor that tells it is not there.
    """
    patches = tensors.get("vit.patch_embed.proj.weight")  # (C, 3, p, p)
    rel_pos = tensors.get("vit.blocks.0.attn.rel_pos_h")  # (2 * side - 1, C / heads)
    if patches is None or rel_pos is None:
        return None
    width = patches.shape[0]
    blocks = {key.split(".")[2] for key in tensors if key.startswith("vit.blocks.")}
    return SamShape(width, len(blocks), width // rel_pos.shape[1])
