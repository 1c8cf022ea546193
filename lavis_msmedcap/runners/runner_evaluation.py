"""The half of the runner that trains nothing: evaluation, and what is told when a run ends."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.contrib.logging import logging_redirect_tqdm

from lavis_msmedcap.common.distributed import is_main_process
from lavis_msmedcap.common.errors import Interruption, MSMedCapError, Preempted, StorageError
from lavis_msmedcap.common.failures import lost_connection
from lavis_msmedcap.runners.checkpointing import BEST, Checkpoints, Weights
from lavis_msmedcap.runners.determinism import determinism
from lavis_msmedcap.runners.evaluator import Evaluator
from lavis_msmedcap.runners.interruption import describe_interruption
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_log import RunLog
from lavis_msmedcap.runners.runner_properties import RunnerProperties
from lavis_msmedcap.runners.settings import OFF
from lavis_msmedcap.runners.stopping import StopRequest
from lavis_msmedcap.runners.training_state import StateError, StateStore

logger = logging.getLogger(__name__)

GIVEN = "given"  # weights that this run has not trained


class RunnerEvaluation(RunnerProperties):
    """Evaluates splits, and keeps the log of whatever the runner does.

    Attributes:
        directory: The run directory.
        log: Its log.
        checkpoints: Its checkpoints.
    """

    directory: RunDirectory
    output_dir: Path
    log: RunLog
    checkpoints: Checkpoints
    _evaluator: Evaluator
    _request: StopRequest

    @property
    def _bare_model(self) -> nn.Module:
        return self.unwrap_dist_model(self.model)

    def evaluate(self, cur_epoch: int | str = BEST, skip_reload: bool = False) -> dict[str, Any]:
        """Evaluates the test splits.

        Args:
            cur_epoch: ``best`` loads this run's best checkpoint, else its last; the results name
                what was loaded. Anything else only names the weights in the results.
            skip_reload: Take the model's weights as they are.

        Returns:
            What the task makes of each split.
        """
        with self._logging(), self._request.listening():
            if not self.test_splits:
                return {}
            weights = self._weights(cur_epoch, skip_reload)
            results = {}
            for split in self.test_splits:
                results[split] = self._evaluate_split(split, weights)
                self.log_stats(results[split], split)
            return results

    def eval_epoch(self, split_name: str, cur_epoch: int | str, skip_reload: bool = False) -> Any:
        """Evaluates one split; the random state of training is the same afterwards.

        Args:
            split_name: A split of ``valid_splits`` or ``test_splits``.
            cur_epoch: As in `evaluate`.
            skip_reload: Take the model's weights as they are.

        Returns:
            What the task makes of it, the same on every rank.
        """
        return self._evaluate_split(split_name, self._weights(cur_epoch, skip_reload))

    def _evaluate_split(self, split: str, weights: Weights) -> Any:
        return self._evaluator.run(self._bare_model, split, weights, self.precision)

    def _weights(self, cur_epoch: int | str, skip_reload: bool) -> Weights:
        """Loads the best weights if they are asked for, and names those that the model holds."""
        if cur_epoch != BEST:
            return Weights(cur_epoch, f"epoch {cur_epoch}")
        model: Any = self._bare_model
        loaded = None if skip_reload else self.checkpoints.load_best(model, self.device)
        origin = getattr(model, "loaded_from", None) or "the weights that the run started from"
        return loaded or Weights(GIVEN, origin if self.evaluate_only else "memory")

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        if self.log.is_attached:  # evaluate() within train()
            yield
            return
        deterministic = determinism(self.settings.deterministic)
        with self.log.attached(), logging_redirect_tqdm(), deterministic:
            try:
                yield
            except BaseException as error:
                with contextlib.suppress(StorageError):
                    self.log.file_only(traceback.format_exc(), logging.ERROR)
                if not isinstance(error, StateError):  # which says itself what can be read
                    self._tell_what_is_left(error)
                raise

    def _tell_what_is_left(self, error: BaseException) -> None:
        left = self._what_is_left()
        if isinstance(error, MSMedCapError) or lost_connection(error):
            error.left = left  # type: ignore[attr-defined] # told with the error
        elif is_main_process() and isinstance(error, KeyboardInterrupt):
            raise Interruption(left, preempted=isinstance(error, Preempted)) from error
        elif is_main_process():
            with contextlib.suppress(StorageError):
                logger.error("%s", left)

    def _what_is_left(self) -> str:
        stage = getattr(self._model, "STAGE", None)
        states = StateStore(self.directory.states).paths()
        return describe_interruption(
            self.output_dir,
            self.checkpoints.written,
            stage,
            self.evaluate_only,
            str(states[0].relative_to(self.output_dir)) if states else None,
            self.settings.resume != OFF,  # the same command goes on
        )
