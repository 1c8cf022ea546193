"""The settings that a conversion is given for a checkpoint, against what the file itself tells.

A file tells its settings in its header or notes, and sizes by its tensors. What it cannot tell (a
file of the authors' code says nothing of its SAM input) is taken on the configuration's word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.checkpoint_check import width_problems
from lavis_msmedcap.models.checkpoint_settings import (
    AUTHORS_FACTS,
    differences,
    facts_of_settings,
    facts_of_shapes,
    sort_out,
    trained_settings,
)
from lavis_msmedcap.models.checkpoints import Checkpoint, of_authors_code

SAM_INPUT = "model.branches.sam.encoder.input"


def compare_settings(
    settings: Mapping[str, Any], checkpoint: Checkpoint, source: str, config: str
) -> list[str]:
    """Compares a ``model:`` section with what a checkpoint tells of its training.

    Args:
        settings: The section, complete.
        checkpoint: What was read, under our names.
        source: Where it came from, for messages.
        config: The file of the section, for messages.

    Returns:
        Lines for the report: harmless differences, and what the file does not tell.

    Raises:
        ConfigError: If they contradict each other, with one sentence for each key.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    theirs = {**facts_of_settings(trained_settings(checkpoint.metadata)), **facts_of_shapes(shapes)}
    ours = facts_of_settings(settings)
    wrong, other = sort_out(differences(theirs, ours), settings, same_arch=True)
    problems = [
        f"{d.key} is {json.dumps(d.ours)}, but {source} was trained with {json.dumps(d.theirs)}; "
        f"add --options {d.key}={json.dumps(d.theirs)}, or give the configuration of its training"
        for d in wrong
    ]
    problems += width_problems(shapes, source, settings, wrong)
    if problems:
        raise ConfigError(problems, config)
    lines = [
        f"  {d.key} is {json.dumps(d.ours)}, in the file {json.dumps(d.theirs)}" for d in other
    ]
    untold = [key for key in ours if key not in theirs]
    if untold:
        lines.append(f"settings taken from {config}, the file does not tell them: {len(untold)}")
        lines += _told_of_sam_input(
            ours, untold, of_authors_code(checkpoint.kind, checkpoint.metadata)
        )
    return lines


def _told_of_sam_input(ours: Mapping[str, Any], untold: list[str], of_authors: bool) -> list[str]:
    """Names the setting that no tensor shows and that a wrong word would ruin in silence."""
    if SAM_INPUT not in untold:
        return []
    word, usual = json.dumps(ours[SAM_INPUT]), json.dumps(AUTHORS_FACTS[SAM_INPUT])
    hint = f" (the authors' code has {usual})" if of_authors else ""
    return [f"  {SAM_INPUT} among them, {word}: make sure that it is so{hint}"]
