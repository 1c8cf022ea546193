"""The paper's freezing rule, audited: Q-Formers, queries and linear layers train, nothing else.

All functions take parameters by the names of ``named_parameters()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.lora import MARK

# the paper's rule: only Q-Formers, queries and linear layers train (Fig. 2)
TRAINABLE_PARTS = (
    "qformer.",
    "query_tokens",
    "vision_proj.",
    "text_proj.",
    "itm_head.",
    "temp",
    "llm_proj.",
)

NORM_CURE = "; for this layer norm set model.branches.clip.encoder.freeze_ln=false"


def audit_trainable(
    parameters: Iterable[tuple[str, nn.Parameter]], settings: Mapping[str, Any]
) -> dict[str, int]:
    """Checks that what is trainable is what the paper's rule says, no more and no less.

    Args:
        parameters: All parameters of a model of branches, with their names.
        settings: The ``model:`` section.

    Returns:
        Number of trainable values by ``branch.part``.

    Raises:
        WeightsError: If something else than Q-Formers, queries and linear layers is trainable
            (the layer norm behind the ViT and LoRA only where ``freeze_ln: false`` and
            ``llm.lora`` ask for them), or one of those is frozen.
    """
    counts: dict[str, int] = {}
    for name, parameter in parameters:
        wanted = _has_to_train(name, settings)
        if parameter.requires_grad and not wanted:
            cure = NORM_CURE if ".encoder.ln." in name else ""
            raise WeightsError(
                f"{name} is trainable; only Q-Formers, queries and linears may be{cure}"
            )
        if wanted and not parameter.requires_grad:
            raise WeightsError(
                f"{name} is frozen, but Q-Formers, queries and linears have to train; call its "
                "requires_grad_(True). To keep a branch of stage 1 as it is, set "
                "model.branches.<name>.train_on=[]"
            )
        if wanted:
            branch, part = name.split(".")[1:3]
            key = "llm.lora" if MARK in name else f"{branch}.{part}"
            counts[key] = counts.get(key, 0) + parameter.numel()
    return counts


def _has_to_train(name: str, settings: Mapping[str, Any]) -> bool:
    """Tells whether the paper's rule and the settings make a parameter train."""
    if MARK in name:
        return bool((settings.get("llm") or {}).get("lora"))
    if not name.startswith("branches."):
        return False
    _, branch, part = name.split(".", 2)
    if not part.startswith("encoder.ln."):
        return part.startswith(TRAINABLE_PARTS)
    own = (settings.get("branches") or {}).get(branch) or {}
    return not (own.get("encoder") or {}).get("freeze_ln", True)


def describe_trainable(counts: Mapping[str, int], total: int) -> str:
    """Returns the trainable set as a table.

    Args:
        counts: From `audit_trainable`.
        total: Number of all values, the frozen ones included.
    """
    lines = [f"  {name:<24}{count:>14,}" for name, count in counts.items()]
    head = f"trainable: {sum(counts.values()):,} of {total:,} parameters"
    return "\n".join([head, *lines])


def optimizer_groups(
    parameters: Iterable[nn.Parameter], weight_decay: float
) -> list[dict[str, Any]]:
    """Returns optimizer groups: matrices with weight decay, vectors and biases without.

    Args:
        parameters: The trainable ones.
        weight_decay: That of the matrices.
    """
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for parameter in parameters:
        groups[parameter.ndim < 2]["params"].append(parameter)
    return [group for group in groups if group["params"]]
