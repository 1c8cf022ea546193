"""The checkpoints of a run and what they say about it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavis_msmedcap.common.distributed import barrier, is_main_process
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.runners.ema import WeightAverage, averaged
from lavis_msmedcap.runners.run_directory import RunDirectory

BEST = "best"  # what a caller asks for, and the name of those weights in the results

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """How far a run has come.

    Attributes:
        epoch: Finished epochs.
        global_step: Optimizer steps taken.
        best_metric: Best validation metric, None before there is one.
        best_epoch: Its epoch, counted from 1.
    """

    epoch: int = 0
    global_step: int = 0
    best_metric: float | None = None
    best_epoch: int | None = None

    def take(self, metric: float | None) -> bool:
        """Takes the metric of the epoch that has just ended and tells whether it is the best.

        The first finite metric is, also if it is 0 or below; a later one must be larger.
        """
        if metric is None or not math.isfinite(metric):
            return False
        if self.best_metric is not None and metric <= self.best_metric:
            return False
        self.best_metric, self.best_epoch = float(metric), self.epoch
        return True

    def metadata(self) -> dict[str, str]:
        """Returns the state as strings for a checkpoint's header."""
        return {
            "epoch": str(self.epoch),
            "global_step": str(self.global_step),
            "best_metric": "" if self.best_metric is None else repr(self.best_metric),
            "best_epoch": "" if self.best_epoch is None else str(self.best_epoch),
        }


@dataclass(frozen=True)
class Weights:
    """Which weights a model holds.

    Attributes:
        epoch: Their epoch counted from 1, or a word: ``best``, ``given``.
        source: Where they came from.
    """

    epoch: int | str
    source: str


class Checkpoints:
    """Writes and reads the checkpoints of one run; the main process writes, all ranks wait.

    Args:
        directory: The run directory.
        facts: What every checkpoint of the run says, for example the scale.

    Attributes:
        written: How far the run had come, by name of a checkpoint that it has written.
        average: What is written in the place of the model's weights, where it is kept.
    """

    def __init__(self, directory: RunDirectory, facts: Mapping[str, str]) -> None:
        self._directory = directory
        self._facts = dict(facts)
        self.written: dict[str, str] = {}
        self.average: WeightAverage | None = None

    def rehearse(self, model: nn.Module) -> None:
        """Writes a checkpoint and removes it, so that a full disk shows before the training."""
        path = self._directory.root / ".rehearsal.safetensors"
        try:
            self._save(path, model, TrainingState())
        finally:
            if is_main_process():
                path.unlink(missing_ok=True)

    def save_last(self, model: nn.Module, state: TrainingState) -> None:
        """Writes the weights of the epoch that has just ended."""
        self._save(self._directory.checkpoint_last, model, state)
        self._tell(self._directory.checkpoint_last, state)

    def save_best(self, model: nn.Module, state: TrainingState) -> None:
        """Writes the weights of the best epoch so far."""
        self._save(self._directory.checkpoint_best, model, state)
        self._tell(self._directory.checkpoint_best, state)

    def load_best(self, model: Any, device: torch.device) -> Weights | None:
        """Loads the best weights of the run, or the last ones if none are best.

        Returns:
            What was loaded: ``best``, or the last epoch. None if the run has written none, which
            leaves the model as it is.
        """
        best = self._directory.checkpoint_best
        for path in (best, self._directory.checkpoint_last):
            if path.is_file():
                state_dict, metadata = read_checkpoint(path)
                model.load_trainable_state_dict(
                    {name: tensor.to(device) for name, tensor in state_dict.items()}
                )
                if is_main_process():
                    logger.info("loaded %s of epoch %s", path.name, metadata.get("epoch"))
                epoch = BEST if path == best else int(metadata["epoch"])
                return Weights(epoch, path.name)
        return None

    def _save(self, path: Path, model: Any, state: TrainingState) -> None:
        if is_main_process():
            metadata = {**model.checkpoint_metadata(), **self._facts, **state.metadata()}
            metadata |= {} if self.average is None else self.average.metadata()
            with averaged(self.average):
                save_checkpoint(path, model.trainable_state_dict(), metadata)
        barrier()

    def _tell(self, path: Path, state: TrainingState) -> None:
        self.written[path.name] = f"epoch {state.epoch}, step {state.global_step}"
        logger.info("%s written (%s)", path.name, self.written[path.name])
