"""The few lines of a run's configuration that a reader of its report wants to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_LETTERS = (("general", "G"), ("medical", "M"))
_RUN_KEYS = (
    ("max_epoch", "Epochs"),
    ("max_iters", "Optimizer steps"),
    ("batch_size_train", "Batch size"),
    ("init_lr", "Learning rate"),
    ("seed", "Seed"),
    ("num_beams", "Beams"),
    ("max_len", "Longest caption"),
)


def run_facts(run_dir: Path) -> list[tuple[str, str]]:
    """Reads the highlights of ``config.yaml``.

    Args:
        run_dir: Run directory; without a readable configuration in it only its name is known.

    Returns:
        Labels and values, in the order in which they should be shown.
    """
    facts = [("Run", run_dir.resolve().name)]
    config = _read(run_dir / "config.yaml")
    model = _section(config, "model")
    run = _section(config, "run")
    name = " · ".join(str(model[key]) for key in ("arch", "model_type") if model.get(key))
    facts += [("Model", name)] if name else []
    branches = recipe(_section(model, "branches"))
    facts += [("Trained on (CLIP, SAM)", branches)] if branches else []
    datasets = ", ".join(str(key) for key in _section(config, "datasets"))
    facts += [("Datasets", datasets)] if datasets else []
    facts += [
        (label, str(run[key]))
        for key, label in _RUN_KEYS
        if isinstance(run.get(key), (str, int, float))
    ]
    return facts


def recipe(branches: Mapping[str, Any]) -> str:
    """Writes what each branch trains on as the paper's tables do: ``(G, G+M)``.

    Args:
        branches: The ``branches`` section of a model; a branch that is dropped shows as a dash.
    """
    if not branches:
        return ""
    return f"({', '.join(_domains(branches.get(name)) for name in ('clip', 'sam'))})"


def _domains(branch: object) -> str:
    domains = branch.get("train_on") if isinstance(branch, Mapping) else None
    if not isinstance(domains, Sequence):
        return "–"  # noqa: RUF001 - a dash for people
    return "+".join(letter for domain, letter in _LETTERS if domain in domains) or "–"  # noqa: RUF001


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _section(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, Mapping) else {}
