"""The checkpoints of a run and what they say about it."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavis_msmedcap.common.distributed import barrier, gather_objects, is_main_process
from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.common.whole_files import whole_path
from lavis_msmedcap.models.checkpoints import read_checkpoint, read_notes, save_checkpoint
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
        keep_best: How many of the best epochs keep their weights; those that are not the best one
            are called ``checkpoint_epoch-<epoch>``.

    Attributes:
        written: How far the run had come, by name of a checkpoint that it has written.
        average: What is written in the place of the model's weights, where it is kept.
    """

    def __init__(
        self, directory: RunDirectory, facts: Mapping[str, str], keep_best: int = 1
    ) -> None:
        self._directory = directory
        self._facts = dict(facts)
        self._keep_best = keep_best
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

    def take(
        self, model: nn.Module, state: TrainingState, scores: Mapping[int, float | None]
    ) -> bool:
        """Keeps the weights of the epoch that has just been validated, if they are good enough.

        Args:
            model: Has these weights.
            state: Gets to know whether the epoch is the best one.
            scores: What is to be large, by epoch counted from 1, this one included.

        Returns:
            Whether it is the best one.
        """
        finite = {e: s for e, s in scores.items() if s is not None and math.isfinite(s)}
        there = gather_objects([self._epochs()] if is_main_process() else [])[0] | {state.epoch}
        ranked = sorted(finite, key=lambda epoch: (-finite[epoch], epoch))
        kept = [epoch for epoch in ranked if epoch in there][: self._keep_best]
        best = state.take(scores[state.epoch])
        path = self._directory.checkpoint_best
        if not best:
            path = self._directory.checkpoint_epoch(state.epoch)
        elif is_main_process():
            self._keep_second(set(kept) - {state.epoch})
        if best or state.epoch in kept:
            self._save(path, model, state)
            self._tell(path, state)
        self._prune(kept)
        return best

    def forget_after(self, epoch: int, state: TrainingState) -> None:
        """Goes back to an epoch: weights of later ones are not those of this training any more.

        Args:
            epoch: Finished epochs.
            state: Its best epoch is forgotten if there are no weights of it.
        """
        if is_main_process():
            for path in self._directory.checkpoints_of_epochs():
                if _epoch_of(path) > epoch:
                    path.unlink()
            best = self._directory.checkpoint_best
            if best.is_file() and _epoch_of(best) > epoch:
                best.unlink()
            second = self._directory.checkpoint_epoch(state.best_epoch or 0)
            if second.is_file() and not best.is_file():
                second.replace(best)
        barrier()
        if state.best_epoch is not None and not self._directory.checkpoint_best.is_file():
            if is_main_process():
                logger.warning(
                    "the weights of epoch %d, the best so far, were replaced by those of one that "
                    "comes again: the best epoch is chosen among those that follow",
                    state.best_epoch,
                )
            state.best_metric = state.best_epoch = None

    def _epochs(self) -> set[int]:
        """Returns the epochs whose weights there are."""
        best = self._directory.checkpoint_best
        paths = [*([best] if best.is_file() else []), *self._directory.checkpoints_of_epochs()]
        return {_epoch_of(path) for path in paths}

    def _keep_second(self, kept: Collection[int]) -> None:
        """Gives the best weights so far, which are about to be replaced, a name of their own."""
        best = self._directory.checkpoint_best
        if not best.is_file() or _epoch_of(best) not in kept:
            return
        second = self._directory.checkpoint_epoch(_epoch_of(best))
        second.unlink(missing_ok=True)
        try:
            os.link(best, second)
        except OSError:  # a file system without links
            with whole_path(second) as part:
                shutil.copyfile(best, part)

    def _prune(self, kept: Collection[int]) -> None:
        for path in self._directory.checkpoints_of_epochs() if is_main_process() else ():
            if _epoch_of(path) not in kept:
                path.unlink(missing_ok=True)
                self.written.pop(path.name, None)

    def load_best(self, model: Any, device: torch.device) -> Weights | None:
        """Loads the best weights of the run, or the last ones if none are best.

        Returns:
            What was loaded: ``best``, or the last epoch. None if the run has written none, which
            leaves the model as it is.
        """
        best = self._directory.checkpoint_best
        for path in (best, self._directory.checkpoint_last):
            if path.is_file():
                state_dict, metadata = _read(path)
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


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads a checkpoint of this run.

    Raises:
        WeightsError: If it is damaged, with what to do: no training is needed.
    """
    try:
        return read_checkpoint(path)
    except WeightsError as error:
        raise WeightsError(
            f"{error}. Remove it, and the same command takes the next checkpoint of the run"
        ) from error


def _epoch_of(path: Path) -> int:
    """Returns the epoch of a checkpoint; 0 if it cannot be read."""
    try:
        return int(read_notes(path).get("epoch", 0))
    except (WeightsError, OSError, ValueError):
        return 0
