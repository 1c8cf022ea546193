"""Marks of frozen networks: a few of their values, kept in checkpoints.

What is trained behind a frozen encoder or in front of a frozen LLM is worth nothing beside another
one of the same shape. So a checkpoint keeps four values of one tensor of each sort, a sort being
what differs in the number of its layer only (the last layer's is taken): a few kilobytes of JSON,
read in milliseconds. They are compared within the rounding of 16-bit types, so that a checkpoint
may be loaded in any precision, and a quantised tensor is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

FROZEN = "frozen"  # entry of a checkpoint's header: the marks
VALUES = 4  # of each tensor, evenly spread
NUMBER = re.compile(r"\.\d+(?=\.)")
# tables that are resized with the image
RESIZED = re.compile(r"pos_embed|positional_embedding|rel_pos")
RELATIVE = 0.01  # bfloat16 rounds by up to 0.4 %
ABSOLUTE = 1e-6  # float16 rounds values near 0 by up to 3e-8

Marks = dict[str, list[float]]


def marks_of(model: nn.Module, parts: Iterable[str]) -> Marks:
    """Takes the marks of a model's frozen tensors.

    Args:
        model: On any device, in any precision.
        parts: Starts of the names of the frozen parts.

    Returns:
        Values by name of the tensor; what LoRA adds is left out, and so is its wrapping in names.
    """
    tensors = _tensors(model)
    parts = tuple(parts)
    chosen: dict[str, str] = {}
    for name, value in tensors.items():
        fits = name.startswith(parts) and not value.requires_grad and not RESIZED.search(name)
        if parts and fits and value.is_floating_point():
            chosen[NUMBER.sub(".#", name)] = name
    return {name: _values(tensors[name]) for name in chosen.values()}


def read_marks(text: str | None) -> Marks | None:
    """Reads the marks in a checkpoint's header.

    Returns:
        None if there are none, or they are damaged or of other software.
    """
    try:
        marks = json.loads(text or "null")
    except ValueError:
        return None
    readable = isinstance(marks, dict) and all(map(_are_values, marks.values()))
    return marks if readable else None


def _are_values(mark: Any) -> bool:
    """Tells whether a mark is what `marks_of` takes of a tensor."""
    if not isinstance(mark, list) or len(mark) != VALUES:
        return False
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in mark)


def odd_marks(
    marks: Mapping[str, list[float]], model: nn.Module, parts: Iterable[str]
) -> list[str]:
    """Finds the frozen tensors that are not those that the marks were taken of.

    Args:
        marks: Of a checkpoint.
        model: The model that is to load it.
        parts: Starts of the names of the frozen parts; marks of other parts are passed over.

    Returns:
        Their names; of a part that has none of the marked tensors, all names.
    """
    tensors = _tensors(model)
    odd = []
    for part in parts:
        marked = [name for name in marks if name.startswith(part)]
        known = [name for name in marked if name in tensors]
        odd += [n for n in known if _differ(marks[n], tensors[n])] if known else marked
    return odd


def odd_tensors(marks: Mapping[str, list[float]], tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of those tensors that are not the marked ones; unmarked ones pass."""
    return [name for name, v in tensors.items() if name in marks and _differ(marks[name], v)]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name.replace(".base_layer.", "."): value for name, value in model.named_parameters()}


def _values(tensor: Tensor) -> list[float]:
    """Returns `VALUES` values at evenly spread places, six digits each."""
    flat = tensor.detach().flatten()
    places = [i * (len(flat) - 1) // (VALUES - 1) for i in range(VALUES)]
    return [float(f"{value:.6g}") for value in flat[places].float().tolist()]


def _differ(marks: list[float], tensor: Tensor) -> bool:
    if not tensor.is_floating_point():  # quantised
        return False
    have, want = torch.tensor(_values(tensor)), torch.tensor(marks, dtype=torch.float32)
    return bool((have - want).norm() > RELATIVE * want.norm() + ABSOLUTE)
