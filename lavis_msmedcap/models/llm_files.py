"""Reading a language model's folder in the Hugging Face layout; nothing outside it is looked up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.weights import read_weights

WEIGHTS_NAMES = (  # in order of preference; an index lists the shards of a split file
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_config(weights: Path) -> dict[str, Any]:
    """Reads ``config.json`` of a model folder (or beside a weights file).

    Raises:
        WeightsError: If it is missing, no JSON, or does not say which model it is of.
    """
    path = config_path(weights)
    if not path.is_file():
        raise WeightsError(f"LLM: {path} does not exist; it comes with the model's weights")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"LLM: {path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise WeightsError(f"LLM: {path} has no model_type; expected that of a causal LM")
    return content


def config_path(weights: Path) -> Path:
    """Returns where ``config.json`` belongs."""
    return (weights.parent if weights.is_file() else weights) / "config.json"


def read_llm_weights(weights: Path) -> dict[str, Tensor]:
    """Reads all tensors of a model: one file, or the shards that an index lists.

    Raises:
        WeightsError: If a file is missing or damaged, or holds more than tensors.
    """
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(weights):
        tensors.update(read_weights(path))
    return tensors


def _weight_files(weights: Path) -> list[Path]:
    """Finds the files that hold the weights: one, or the shards that an index lists."""
    path = weights
    if weights.is_dir():
        found = [weights / name for name in WEIGHTS_NAMES if (weights / name).is_file()]
        if not found:
            raise WeightsError(
                f"LLM: no weights in {weights}; expected {WEIGHTS_NAMES[0]} or one "
                f"of {', '.join(WEIGHTS_NAMES[1:])}"
            )
        path = found[0]
    if path.suffix != ".json":
        return [path]
    try:
        shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        return [path.parent / name for name in sorted(shards)]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"LLM: {path} is not an index with a weight_map") from error


def missing_llm_files(weights: Path) -> list[str]:
    """Lists the files that a model lacks, shards of an index included.

    Args:
        weights: Folder, or one weights file with ``config.json`` beside it.
    """
    missing = [] if config_path(weights).is_file() else ["config.json"]
    if not weights.is_file() and not any((weights / name).is_file() for name in WEIGHTS_NAMES):
        return [*missing, f"{WEIGHTS_NAMES[0]} (or {WEIGHTS_NAMES[2]})"]
    try:
        return missing + [path.name for path in _weight_files(weights) if not path.is_file()]
    except WeightsError:  # an index that cannot be read: told in full when it is loaded
        return missing
