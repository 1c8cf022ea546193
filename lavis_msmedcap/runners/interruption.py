"""What is said when a run ends before its time: where its files are, and how to go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def describe_interruption(
    root: Path,
    checkpoints: Mapping[str, str],
    stage: int | None,
    evaluates: bool,
    state: str | None,
    automatic: bool = False,
) -> str:
    """Says what an interrupted run leaves behind.

    Args:
        root: The run directory.
        checkpoints: How far the run had come (``epoch 2, step 80``) by name of a checkpoint file.
        stage: 1 for a model whose checkpoint stage 2 starts from.
        evaluates: Whether the run only evaluates.
        state: Name of the newest state to go on from, None if there is none.
        automatic: Whether the configuration has ``run.resume: auto``.

    Returns:
        One fact per line.
    """
    place = f"run directory: {root}"
    if evaluates:
        return f"{place}\nSplits that had been finished have their results there; start it again."
    if state is None:
        return f"{place}\nNothing had been saved yet; start it again."
    option = "" if automatic else " with --options run.resume=auto"
    lines = [place, f"last good state: {state}", f"go on with it: the same command{option}"]
    if checkpoints:
        written = ", ".join(f"{name} ({state})" for name, state in checkpoints.items())
        use = f"evaluate it (lavis.evaluate) with model.finetuned={root}"
        if stage == 1:
            use = f"start stage 2 (caption.yaml) from it with model.stage1={root}"
        lines += [f"checkpoints: {written}", f"or {use}"]
    return "\n".join(lines)
