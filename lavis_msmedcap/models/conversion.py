"""Checkpoints from one kind to another: ours, BLIP-2's, the authors' (see `checkpoint_names`).

Values are never changed, so that there and back gives the same bits. What a kind has beyond ours
is added on the way there (second names of tied tensors; the layer norm behind the ViT, which is
frozen here and trained in LAVIS) and noted in the file, so that it can be taken out on the way
back. A checkpoint that lacks a tensor, or has one that its network has no place for, is refused:
LAVIS loads such files without a word and leaves the rest random.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.checkpoint_names import (
    BLIP2,
    NOT_TRAINED,
    OURS,
    STAGE1_ONLY,
    branches_of,
    from_ours,
    to_ours,
    with_aliases,
)
from lavis_msmedcap.models.checkpoint_settings import trained_settings
from lavis_msmedcap.models.checkpoints import ADDED, Checkpoint
from lavis_msmedcap.models.frozen_marks import FROZEN, odd_tensors, read_marks
from lavis_msmedcap.models.inventory import LAYER_NORM, blank_tensors
from lavis_msmedcap.models.starting_points import starting_points, told_origins
from lavis_msmedcap.models.weight_files import locate
from lavis_msmedcap.models.weights import ExpectedKeys, LoadReport, load_strict, read_weights

BRANCH = "branch"  # note: which branch the one of a BLIP-2 file is
HEADER = ("format", "format_version")  # marks of our own files
SAM_HEADS = r"^branches\.sam\.((vision|text)_proj\.|itm_head\.|temp$)"
INCOMPLETE = (
    "Take the original of a file that was cut or edited; where the training had other sizes than "
    "--cfg-path says, correct those."
)


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint.

    Attributes:
        tensors: Values by the names of the new kind.
        metadata: What the file is to say of itself.
        report: What became of every key.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    report: LoadReport


def convert(
    checkpoint: Checkpoint,
    kind: str,
    source: str,
    branch: str | None = None,
    layer_norm: Mapping[str, Tensor] | None = None,
) -> Converted:
    """Converts a checkpoint.

    Args:
        checkpoint: What was read, under our names.
        kind: ``ours``, ``blip2`` or ``authors``.
        source: Where it came from, for messages.
        branch: The only branch to keep; None keeps all.
        layer_norm: ``weight`` and ``bias`` of the layer norm behind the CLIP branch's ViT, for a
            foreign kind; not needed where the checkpoint has it, and checked against the marks
            of its header.

    Raises:
        WeightsError: If a key is missing or cannot be explained, a shape is wrong, a value is not
            finite, a branch of the settings is not there, the kind cannot hold the branches, or the
            layer norm is needed and not given, or is not that of the training.
    """
    metadata = {key: v for key, v in checkpoint.metadata.items() if key not in HEADER}
    added = _names_in(metadata.pop(ADDED, "[]"), source)
    metadata.pop(BRANCH, None)
    tensors = checkpoint.tensors
    if branch is not None:
        tensors = _only(branch, tensors, source)
        metadata = _settings_of(branch, metadata)
    _require_branches(tensors, metadata, source)
    needs_norm = kind == OURS and checkpoint.kind != OURS
    tensors, report = _trained(tensors, checkpoint.kind, metadata, source, needs_norm)
    if kind == OURS:
        tensors = {name: value for name, value in tensors.items() if name not in added}
        report.loaded = len(tensors)
        return Converted(tensors, metadata, report)
    from_ours(tensors, kind)  # a kind that cannot hold the branches is told before what else lacks
    complete = with_aliases(tensors)
    if "clip" in branches_of(tensors) and f"{LAYER_NORM}weight" not in tensors:
        if layer_norm is None:
            raise WeightsError(NO_LAYER_NORM.format(source, kind))
        norm = {f"{LAYER_NORM}{key}": value for key, value in layer_norm.items()}
        _require_that_of_training(norm, metadata, source)
        complete.update(norm)
    metadata[ADDED] = json.dumps([name for name in complete if name not in tensors])
    if kind == BLIP2:
        metadata[BRANCH] = branches_of(tensors)[0]
    return Converted(from_ours(complete, kind), metadata, report)


def _names_in(note: str, source: str) -> list[str]:
    """Reads the note of what an earlier conversion added."""
    try:
        names = json.loads(note)
    except ValueError:
        names = None
    if isinstance(names, list):
        return names
    raise WeightsError(
        f"{source}: its note {ADDED!r} is no list of names; the file was edited or is damaged, "
        "take the original"
    )


NO_LAYER_NORM = (
    "{0} has no layer norm of the CLIP branch, which is frozen here; a checkpoint of kind {1} "
    "needs it, because LAVIS would else run an untrained one. Give the file that training took it "
    "from with --layer-norm (the BLIP-2 checkpoint of model.branches.clip.init, or the encoder's "
    "weights), or the run configuration of the training with --cfg-path"
)


OTHER_LAYER_NORM = (
    "{0} was trained behind another layer norm than the one that was found for it: values in its "
    "header differ. Give the file that the training took it from with --layer-norm ({1})"
)


def _require_that_of_training(
    norm: Mapping[str, Tensor], metadata: Mapping[str, str], source: str
) -> None:
    """Refuses a layer norm that contradicts the checkpoint's marks of frozen networks."""
    if odd_tensors(read_marks(metadata.get(FROZEN)) or {}, norm):
        origins = told_origins(trained_settings(metadata))
        raise WeightsError(OTHER_LAYER_NORM.format(source, origins))


def layer_norm_of_file(location: str) -> dict[str, Tensor] | None:
    """Finds ``weight`` and ``bias`` of the CLIP branch's layer norm in a file.

    Args:
        location: An encoder's file of ours, or a checkpoint of any kind.

    Returns:
        The two tensors, or None if the file has none.

    Raises:
        WeightsError: If the file is missing or damaged.
    """
    weights = to_ours(read_weights(locate(location)))
    for prefix in (LAYER_NORM, "ln."):
        found = {
            key: weights[f"{prefix}{key}"]
            for key in ("weight", "bias")
            if f"{prefix}{key}" in weights
        }
        if len(found) == 2:
            return found
    return None


def layer_norm_of_training(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Finds the layer norm that a model was trained behind.

    As when the model was built: that of the starting point, else the encoder's own, else a fresh
    one (weights of 1, biases of 0).

    Args:
        settings: The ``model:`` section of the training.
        tensors: The checkpoint under our names, for the width.

    Returns:
        ``weight`` and ``bias``, or None if a file that may have it is not here.
    """
    point = starting_points(settings, stage=2).get("clip")
    locations = [
        None if point is None else point.file,
        (settings["branches"]["clip"].get("encoder") or {}).get("weights"),
    ]
    for location in locations:
        if location is None:
            continue
        if not locate(location).is_file():
            return None
        found = layer_norm_of_file(location)
        if found is not None:
            return found
    key = next(
        k
        for k in tensors
        if k.startswith("branches.clip.") and ".crossattention.self.key.weight" in k
    )
    width = tensors[key].shape[1]  # C
    return {"weight": torch.ones(width), "bias": torch.zeros(width)}


def _trained(
    tensors: Mapping[str, Tensor],
    kind: str,
    metadata: Mapping[str, str],
    source: str,
    needs_norm: bool,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Returns what our checkpoints hold of a checkpoint, which has to be complete.

    Args:
        tensors: Under our names.
        kind: What it is.
        metadata: What it says of itself.
        source: Where it came from, for messages.
        needs_norm: Whether the layer norm of a CLIP branch must be there too.

    Raises:
        WeightsError: Naming missing, unexpected, wrongly shaped and non-finite tensors.
    """
    captioner = metadata.get("arch") == "msmedcap"
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    blank = blank_tensors(shapes, trained_settings(metadata), captioner)
    missing, unused = {}, dict(NOT_TRAINED)
    if kind != OURS and captioner:
        unused.update(STAGE1_ONLY)
    if not needs_norm and not any(name.startswith(LAYER_NORM) for name in tensors):
        missing[rf"^{re.escape(LAYER_NORM)}"] = "the layer norm behind the ViT is frozen here"
    if FROZEN not in metadata and len(branches_of(tensors)) > 1 and not _heads_of_sam(tensors):
        missing[SAM_HEADS] = "the authors' code has no heads of ITC and ITM beside a CLIP branch"
    report = load_strict(blank, tensors, source, ExpectedKeys(missing, unused), INCOMPLETE)
    return {name: tensors[name] for name in tensors if name in blank}, report


def _heads_of_sam(tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of the SAM branch's heads."""
    return [name for name in tensors if re.search(SAM_HEADS, name)]


def _require_branches(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str
) -> None:
    """Refuses a checkpoint without a branch that its settings have."""
    settings = trained_settings(metadata)
    found = branches_of(tensors)
    for name, branch in (settings.get("branches") or {}).items():
        if branch and name not in found:
            raise WeightsError(
                f"{source} holds nothing of the {name} branch, which the settings of its training "
                "have. Take the original file; or convert what it holds, with "
                f"--branch {' or '.join(found)}"
            )


def _only(branch: str, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Leaves out the other branch."""
    found = branches_of(tensors)
    if branch not in found:
        held = " and ".join(found) or "no branch"
        raise WeightsError(f"{source} has {held}, not {branch}; choose another --branch")
    others = tuple(f"branches.{other}." for other in found if other != branch)
    return {name: v for name, v in tensors.items() if not name.startswith(others)}


def _settings_of(branch: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Drops the other branch from the settings that a checkpoint carries."""
    settings = trained_settings(metadata)
    if not settings.get("branches"):
        return dict(metadata)
    settings["branches"] = {k: v if k == branch else None for k, v in settings["branches"].items()}
    return {**metadata, "model": json.dumps(settings)}
