"""What ``model.branches.<name>.init`` may say, and in which order branches are filled.

scratch          random weights
blip2, bert      the file that model.pretrained.blip2 or model.pretrained.bert names
clip, sam        the other branch, after it was filled itself
anything else    a checkpoint or a BERT: path, address or name of the catalog
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lavis_msmedcap.common.config_check import nearest
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.models.checkpoint_names import BRANCHES
from lavis_msmedcap.models.weight_catalog import CATALOG
from lavis_msmedcap.models.weight_files import is_remote

SCRATCH = "scratch"
PRETRAINED = ("blip2", "bert")
WORDS = (SCRATCH, *PRETRAINED, *BRANCHES)


@dataclass(frozen=True)
class StartingPoint:
    """Where a branch's starting weights come from: a file or another branch.

    Attributes:
        key: Configuration key that names it.
        file: Path as written there; None if the key is null.
        branch: Name of another branch.
        is_bert: Whether the file is announced as a BERT.
    """

    key: str
    file: str | None = None
    branch: str | None = None
    is_bert: bool = False


def starting_points(model: Mapping[str, Any], stage: int = 1) -> dict[str, StartingPoint]:
    """Reads the starting points that a stage needs.

    Args:
        model: The ``model:`` section.
        stage: 1, or 2: its Q-Formers come from stage 1, and only the layer norm behind the CLIP
            branch's ViT, which is frozen and so in no checkpoint, from a starting point.

    Returns:
        Starting points by branch, those that copy a branch last; branches with random weights and
        branches that are null are left out.
    """
    active = {name: branch for name, branch in (model.get("branches") or {}).items() if branch}
    points = {name: _point(name, branch, model) for name, branch in active.items()}
    needed = {
        name: point
        for name, point in points.items()
        if active[name].get("init", SCRATCH) != SCRATCH
        and (stage == 1 or (name == "clip" and point.branch is None and not point.is_bert))
    }
    return dict(sorted(needed.items(), key=lambda item: item[1].branch is not None))


def starting_problems(model: Mapping[str, Any], stage: int = 1) -> list[str]:
    """Says which starting points cannot be, one sentence each; files are not looked for."""
    points = starting_points(model, stage)
    problems = []
    for name, point in points.items():
        key = f"model.branches.{name}.init"
        if point.branch is not None:
            problems += _branch_problems(key, name, point.branch, model)
        elif point.file is None:
            problems.append(
                f"{key} is {point.key.rpartition('.')[2]}, but {point.key} names no file; set it, "
                "or choose another starting point"
            )
        elif unknown_word(point.file):
            near = nearest(point.file, (*WORDS, *CATALOG))
            hint = f"; did you mean {near}?" if near else ""
            problems.append(
                f"{point.key} is {point.file!r}, which is neither a file nor one of "
                f"{', '.join(WORDS)}, nor a name of `msmedcap weights list`{hint}"
            )
    return problems


def untrained_branches(model: Mapping[str, Any]) -> list[str]:
    """Returns the branches that a stage-1 training leaves with random weights.

    They train on no domain, and their starting point gives no trained reader of their encoder: a
    BERT knows no images, and what reads one encoder's tokens is no reader of another's.

    Args:
        model: The ``model:`` section of the training.
    """
    if model.get("load_finetuned"):  # whatever that checkpoint holds
        return []
    branches = {name: own for name, own in (model.get("branches") or {}).items() if own}
    idle = [name for name, own in branches.items() if own.get("train_on") == []]
    of_clip = {"clip": ("blip2",)}  # a word that gives this branch all it needs
    return [
        name
        for name in idle
        if (init := branches[name].get("init", SCRATCH)) in WORDS
        and init not in of_clip.get(name, ())
    ]


def told_origins(model: Mapping[str, Any]) -> str:
    """Says which files may have given the layer norm of the CLIP branch in a training.

    Args:
        model: The ``model:`` section of the training; empty if it is not known.
    """
    point = starting_points(model, stage=2).get("clip")
    encoder = ((model.get("branches") or {}).get("clip") or {}).get("encoder") or {}
    files = {
        "model.finetuned": model.get("finetuned") if model.get("load_finetuned") else None,
        "model.stage1": None if model.get("load_finetuned") else model.get("stage1"),
        "model.branches.clip.init": None if point is None else point.file,
        "model.branches.clip.encoder.weights": encoder.get("weights"),
    }
    told = ", ".join(f"{key} was {file}" for key, file in files.items() if file)
    return f"in the training {told}" if told else f"in the training that of {' or '.join(files)}"


def unknown_word(value: str) -> bool:
    """Tells whether a starting point is neither a path, nor an address, nor a known name."""
    is_path = any(mark in value for mark in (os.sep, "/", ".", ":", "~", "$"))
    return not is_path and not is_remote(value) and not resolve_path(value).exists()


def _point(name: str, branch: Mapping[str, Any], model: Mapping[str, Any]) -> StartingPoint:
    value = branch.get("init")
    key = f"model.branches.{name}.init"
    if value in PRETRAINED:
        file = (model.get("pretrained") or {}).get(value)
        return StartingPoint(f"model.pretrained.{value}", file, is_bert=value == "bert")
    if value in BRANCHES:
        return StartingPoint(key, branch=value)
    return StartingPoint(key, file=value)


def _branch_problems(key: str, name: str, other: str, model: Mapping[str, Any]) -> list[str]:
    settings = model["branches"].get(other)
    cure = f"choose another starting point ({', '.join((SCRATCH, *PRETRAINED))}, or a path)"
    if other == name:
        return [f"{key} is {other}, which is the branch itself; {cure}"]
    if not settings:
        return [f"{key} is {other}, but that branch is null; {cure}, or keep that branch"]
    if settings.get("init") == name:
        return [f"{key} is {other} and model.branches.{other}.init is {name}: a circle; {cure}"]
    return []
