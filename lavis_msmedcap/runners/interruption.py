"""What is said when Ctrl-C ends a run: where its files are, and how its checkpoint is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NO_RESUME = "This version cannot take up an interrupted run"


def describe_interruption(
    root: Path, checkpoints: Mapping[str, str], stage: int | None, evaluates: bool
) -> str:
    """Says what an interrupted run leaves behind.

    Args:
        root: The run directory.
        checkpoints: How far the run had come (``epoch 2, step 80``) by name of a checkpoint file.
        stage: 1 for a model whose checkpoint stage 2 starts from.
        evaluates: Whether the run only evaluates.

    Returns:
        One fact per line.
    """
    place = f"run directory: {root}"
    if evaluates:
        return f"{place}\nSplits that had been finished have their results there; start it again."
    if not checkpoints:
        return f"{place}\nNo checkpoint was written yet. {NO_RESUME}; start it again."
    written = ", ".join(f"{name} ({state})" for name, state in checkpoints.items())
    uses = [
        f"evaluate it (lavis.evaluate) with model.finetuned={root}",
        f"train on from its weights with model.load_finetuned=true model.finetuned={root}",
    ]
    if stage == 1:
        uses[0] = f"start stage 2 (caption.yaml) from it with model.stage1={root}"
    return "\n".join(
        [
            place,
            f"checkpoints: {written}",
            f"{NO_RESUME}, but you can",
            *(f"  - {use}" for use in uses),
        ]
    )
