"""What the files of a training tell: where it stands, whether they can be read, how it ended."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from lavis_msmedcap.common.whole_files import PART
from lavis_msmedcap.models.checkpoints import CHECKPOINT_NAMES, read_checkpoint
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_status import read_status
from lavis_msmedcap.runners.training_state import StateStore, read_state

AIMS = ("training", "state write", "checkpoint write", "evaluation", "start-up")
# what one run measures otherwise than another
MEASURED = ("seconds", "images_per_second", "data_wait", "memory_gib")


@dataclass(frozen=True)
class Moment:
    """Where a training stands, told from its files.

    Attributes:
        kind: One of `AIMS`, or which other file was being written.
        detail: The step, the epoch, or the file.
    """

    kind: str
    detail: str = ""


def newest_run(output: Path) -> Path | None:
    """Returns the run directory that was made last."""
    return max(output.glob("*/"), key=lambda root: root.name, default=None)


def half_written(root: Path) -> list[Path]:
    """Returns the files that are being written, or that a killed process had begun."""
    found = []
    for folder in (root, root / "resume", root / "result"):
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            found += [Path(entry.path) for entry in entries if PART in entry.name]
    return found


def epoch_to_validate(root: Path) -> int | None:
    """Returns the epoch that has ended and whose validation is not done, None if there is none."""
    states = StateStore(RunDirectory(root).states).paths()
    if not states:
        return None
    try:
        with safe_open(states[0], framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
    except OSError:  # the run has ended and removed it
        return None
    status = read_status(root)
    done = 0 if status is None else status.validated
    return progress["epoch"] if not progress["batch"] and progress["epoch"] > done else None


def is_finished(output: Path) -> bool:
    """Tells whether a training has done all that it had to do."""
    root = newest_run(output)
    status = None if root is None else read_status(root)
    return status is not None and status.finished


def moment_of(output: Path, started: float) -> Moment:
    """Says where a training stands that was started at a time."""
    root = newest_run(output)
    if root is None:
        return Moment("start-up", "no run directory")
    for part in half_written(root):
        name = part.name.partition(PART)[0]
        try:
            size = part.stat().st_size / 2**20
        except FileNotFoundError:  # of a process that lives: it is written now
            continue
        kind = "state write" if name.startswith("step-") else "checkpoint write"
        kind = kind if name.endswith(".safetensors") else f"{name} write"
        return Moment(kind, f"{name}, {size:.1f} MiB of it")
    table = RunDirectory(root).metrics
    if not table.is_file() or table.stat().st_mtime < started:
        return Moment("start-up", "before the first step")
    epoch = epoch_to_validate(root)
    if epoch is not None:
        return Moment("evaluation", f"after epoch {epoch}")
    return Moment("training", f"after step {rows(table)[-1]['step']}")


def check_readable(output: Path) -> int:
    """Reads every checkpoint and state of a training.

    Returns:
        How many there are.

    Raises:
        WeightsError: If a checkpoint is damaged.
        StateError: If a state is.
    """
    files = [path for name in CHECKPOINT_NAMES for path in output.glob(f"*/{name}")]
    for path in files:
        read_checkpoint(path)
    states = [path for root in output.glob("*/") for path in StateStore(root / "resume").paths()]
    for path in states:
        read_state(path)
    return len(files) + len(states)


def rows(path: Path) -> list[dict[str, str]]:
    """Reads a table without what one run measures otherwise than another."""
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    return [{name: v for name, v in row.items() if name not in MEASURED} for row in found]


def differences(whole: Path, output: Path) -> list[str]:
    """Lists in what a training differs from the whole one.

    Args:
        whole: Run directory of the whole one.
        output: Run directories of the other; one of them is finished.
    """
    statuses = {path.parent: read_status(path.parent) for path in output.glob("*/status.json")}
    finished = [root for root, status in statuses.items() if status and status.finished]
    if len(finished) != 1:
        return [f"{len(finished)} finished runs in {output}"]
    [root] = finished
    found = [
        f"{name} differs" for name in CHECKPOINT_NAMES if bits(whole / name) != bits(root / name)
    ]
    for name in ("metrics.csv", "validation.csv"):
        if rows(whole / name) != rows(root / name):
            found.append(f"{name} differs")
    found += [f"{path.name} is left" for path in half_written(root)]
    # a kill in the start-up may leave a run directory, but none that something was lost in
    lost = [other for other in output.glob("*/") if other != root and (other / "resume").exists()]
    return found + [f"{other.name} was not taken up" for other in lost]


def bits(path: Path) -> dict[str, bytes]:
    """Returns the bytes of a checkpoint's tensors by name."""
    tensors, _ = read_checkpoint(path)
    return {
        name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in tensors.items()
    }
