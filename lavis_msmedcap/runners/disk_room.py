"""Whether the disk has room for what a training writes, before it has trained for hours."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from lavis_msmedcap.common.distributed import gather_objects, is_main_process
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.memory.estimate import ADAMW_MOMENTS
from lavis_msmedcap.models.weight_download import show_size
from lavis_msmedcap.runners.settings import RunSettings


def disk_bytes(
    weights: float, values: float, settings: RunSettings, max_epoch: int | None = None
) -> int:
    """Returns the largest size of a run directory.

    It holds checkpoints, states, and for a moment a new file of each before the old one goes. Logs
    and results are small beside them.

    Args:
        weights: Bytes of the trainable parameters.
        values: Their number.
        settings: The ``run:`` section.
        max_epoch: Epochs of the training, where they are known.
    """
    average = 0 if settings.ema_decay is None else 4 * values  # float32
    state = (1 + ADAMW_MOMENTS) * weights + average
    best, states = settings.keep_best if settings.valid_splits else 0, settings.keep_last
    if max_epoch is not None:
        best = min(best, max_epoch)
        states = states if settings.save_every_minutes else min(states, max_epoch)
    checkpoints = 2 + best  # last, and a new one
    return round(checkpoints * weights + (states + 1) * state)


def check_room(root: Path, model: nn.Module, settings: RunSettings, max_epoch: int) -> None:
    """Checks that a run directory may grow to its size; every rank has to call it.

    Args:
        root: The run directory; what it holds already is part of that size.
        model: Its trainable parameters are counted.
        settings: The ``run:`` section.
        max_epoch: Epochs of the training.

    Raises:
        ConfigError: On every rank, with sizes and what would help.
    """
    problems = []
    if is_main_process():
        trainable = [p for p in model.parameters() if p.requires_grad]
        weights = sum(p.numel() * p.element_size() for p in trainable)
        needed = disk_bytes(weights, sum(p.numel() for p in trainable), settings, max_epoch)
        # those of another configuration stay: no new file takes their place
        own = (path for path in root.rglob("*.safetensors") if "-until-" not in path.name)
        there = sum(path.stat().st_size for path in own)
        free = shutil.disk_usage(root).free
        if needed > free + there:
            problems = [
                f"run.output_dir: checkpoints and states take up to {show_size(needed)}, but "
                f"{root} has {show_size(there)} of them and {show_size(free)} free; make room, "
                "name another disk, or set run.keep_last=1 and run.keep_best=1"
            ]
    problems = gather_objects(problems)
    if problems:
        raise ConfigError(problems)
