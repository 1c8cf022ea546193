"""All epochs of a run, from wherever it stands: training, validation, checkpoints, states."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from lavis_msmedcap.common.config_check import describe_unknown
from lavis_msmedcap.common.distributed import gather_objects, is_main_process
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners.checkpointing import Checkpoints, TrainingState
from lavis_msmedcap.runners.keeper import Keeper
from lavis_msmedcap.runners.loss_meter import Sums
from lavis_msmedcap.runners.progress import clock
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_log import RunLog
from lavis_msmedcap.runners.run_status import RunStatus
from lavis_msmedcap.runners.stopping import StopRequest
from lavis_msmedcap.runners.tables import CsvTable
from lavis_msmedcap.runners.trackers import Tracker
from lavis_msmedcap.runners.training_loop import TrainingLoop
from lavis_msmedcap.runners.training_state import Progress

logger = logging.getLogger(__name__)

VALIDATION_COLUMNS = ("epoch", "step", "split", "agg_metrics")
# (split, finished epochs) -> results
Validate = Callable[[str, int], Mapping[str, Any]]


@dataclass(frozen=True)
class Selection:
    """How the best epoch is chosen, and when there is no hope for a better one.

    Attributes:
        splits: Validated after each epoch; the first one decides.
        metric: Name among its results; None is what the task thinks best (``agg_metrics``). A loss
            is better when it is smaller, everything else when it is larger.
        patience: Epochs without a better one after which the training ends; None never ends it.
        known: Names that results may have; empty where nobody knows.
    """

    splits: tuple[str, ...] = ()
    metric: str | None = None
    patience: int | None = None
    known: Collection[str] = ()

    def check(self) -> None:
        """Checks that validations can give the metric.

        Raises:
            ConfigError: If they cannot, with the nearest name.
        """
        if self.metric is not None and self.known and self.metric not in self.known:
            raise ConfigError([describe_unknown("run.best_metric", self.metric, self.known)])

    def score(self, result: Mapping[str, Any]) -> float | None:
        """Returns the number that is to be large, None if the metric did not work.

        Raises:
            ConfigError: If the results have no such metric.
        """
        if self.metric is None:
            value = result.get("agg_metrics")
            return None if value is None else float(value)
        if self.metric not in result and self.metric in self.known:
            logger.warning("this validation gave no %s, so its epoch cannot be best", self.metric)
            return None
        if self.metric not in result:
            names = sorted(name for name, v in result.items() if isinstance(v, (int, float)))
            raise ConfigError([describe_unknown("run.best_metric", self.metric, names)])
        value = result[self.metric]
        if not isinstance(value, (int, float)):
            return None
        is_loss = "loss" in self.metric.rsplit("/", 1)[-1]
        return -float(value) if is_loss else float(value)


class Training:
    """Trains the epochs that are left, with a state after each from which it could go on.

    Args:
        loop: Trains one epoch.
        loader: Training batches; its ``batch_sampler`` is a `PlannedBatchSampler`.
        model: Model without a DDP wrapper.
        keeper: The states.
        checkpoints: The checkpoints for use.
        directory: The run directory.
        status: What has been validated so far.
        request: Whether somebody has asked to stop.
        log: The run's log.
        trackers: Get the results of validations too.
        close_epoch: Called on every rank when an epoch has its checkpoint and its state.
    """

    def __init__(
        self,
        loop: TrainingLoop,
        loader: DataLoader[dict[str, Any]],
        model: nn.Module,
        keeper: Keeper,
        checkpoints: Checkpoints,
        directory: RunDirectory,
        status: RunStatus,
        request: StopRequest,
        log: RunLog,
        trackers: Tracker,
        close_epoch: Callable[[], None],
    ) -> None:
        self.state = TrainingState()
        self._loop = loop
        self._loader = loader
        self._model = model
        self._keeper = keeper
        self._checkpoints = checkpoints
        self._root = directory.root
        self._status = status
        self._request = request
        self._log = log
        self._trackers = trackers
        self._close_epoch = close_epoch
        self._validation = CsvTable(directory.validation, VALIDATION_COLUMNS)

    def run(
        self,
        start: Progress,
        max_epoch: int,
        max_steps: int | None,
        selection: Selection,
        validate: Validate,
    ) -> None:
        """Trains what is left.

        Args:
            start: Where the training stands.
            max_epoch: Number of epochs.
            max_steps: Optimizer steps after which the last epoch ends early, if they are counted.
            selection: Chooses the best epoch, and the last one.
            validate: Evaluates a split.

        Raises:
            NonFiniteError: If a loss or gradient is not finite.
            KeyboardInterrupt: If somebody has asked to stop; the state is written.
        """
        started = time.perf_counter()
        self._recall(start)
        if start.epoch > self._status.validated and not start.batch:
            # what the interruption came before
            self._validate(start.epoch, selection, validate)
        for epoch in range(start.epoch, max_epoch):
            if self._hopeless(selection.patience):
                break
            left = None if max_steps is None else max_steps - self._loop.global_step
            self._train_epoch(epoch, start if epoch == start.epoch else Progress(epoch), left)
            self._validate(epoch + 1, selection, validate)
        if is_main_process():
            logger.info("trained in %s", clock(time.perf_counter() - started))

    def _recall(self, start: Progress) -> None:
        """Takes the results of the epochs that are done, and forgets those that come again."""
        self._loop.go_on_from(start)
        self._status.forget_after(start.epoch)
        for epoch, metric in self._status.validations:
            self.state.epoch = epoch
            self.state.take(metric)
        self.state.epoch, self.state.global_step = start.epoch, start.step
        self._checkpoints.forget_after(start.epoch, self.state)
        if is_main_process():
            done = self._status.validated
            self._validation.cut(lambda row: int(row["epoch"]) <= done)

    def _train_epoch(self, epoch: int, start: Progress, steps_left: int | None) -> None:
        sampler: Any = self._loader.batch_sampler
        left = None if steps_left is None else start.batch + steps_left * self._loop.accumulate
        sampler.set_epoch(epoch, start.batch, left)
        with self._request.patient():
            sums = self._loop.run_epoch(self._loader, epoch, start.batch, Sums(dict(start.totals)))
            self.state.epoch = epoch + 1
            self.state.global_step = self._loop.global_step
            # before validation: nothing that happens there may cost the epoch
            self._checkpoints.save_last(self._model, self.state)
            self._keeper.save(self._loop.progress(epoch + 1))
            self._close_epoch()  # after them: it may raise
        means = {f"train_{name}": mean for name, mean in sums.means().items()}
        self._log.file_only(json.dumps(means))
        # somebody may have asked after the last step, while checkpoint and state were written
        if self._loop.stopping or any(gather_objects([self._request.asked()])):
            self._keeper.stop()

    def _hopeless(self, patience: int | None) -> bool:
        """Tells whether the last epochs have brought nothing better."""
        best = self.state.best_epoch
        if patience is None or best is None or self._status.validated - best < patience:
            return False
        if is_main_process():
            logger.info(
                "no better epoch than %d for %d epochs: the training ends early", best, patience
            )
        return True

    def _validate(self, epoch: int, selection: Selection, validate: Validate) -> None:
        """Validates the weights of a finished epoch, counted from 1."""
        chosen: float | None = None
        for number, split in enumerate(selection.splits):
            result = validate(split, epoch)
            self._record(split, result)
            if number:
                continue
            chosen = selection.score(result)
            scores = {**dict(self._status.validations), epoch: chosen}
            if self._checkpoints.take(self._model, self.state, scores):
                logger.info("epoch %d is the best so far", epoch)
        if selection.splits:
            self._checkpoints.save_last(self._model, self.state)
        self._status.validations.append((epoch, chosen))
        if is_main_process():
            self._status.write(self._root)

    def _record(self, split: str, result: Mapping[str, Any]) -> None:
        named = {f"{split}_{key}": value for key, value in result.items()}
        self._log.file_only(json.dumps(named, default=str))
        if is_main_process():
            numbers = {k: v for k, v in result.items() if isinstance(v, (int, float))}
            facts = {"epoch": self.state.epoch, "step": self.state.global_step, "split": split}
            self._validation.append({**facts, **numbers})
            self._trackers.write(split, self.state.global_step, numbers)
