"""Evaluation of one split: the loader, the task's two halves, and randomness of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lavis_msmedcap.common.distributed import gather_objects, get_rank, is_main_process
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners.checkpointing import Weights
from lavis_msmedcap.runners.loaders import Datasets, EvalData, eval_data
from lavis_msmedcap.runners.precision import Precision
from lavis_msmedcap.runners.progress import Tracked
from lavis_msmedcap.runners.settings import RunSettings


class Evaluator:
    """Evaluates the splits of a run.

    Args:
        task: Task with ``before_evaluation``, ``evaluation`` and ``after_evaluation``.
        datasets: Dataset name to split name to dataset.
        settings: Splits, batch size, seed.
        device: Where the model is.

    Raises:
        DataError: If a split is empty or holds an image id twice.
    """

    def __init__(
        self, task: Any, datasets: Datasets, settings: RunSettings, device: torch.device
    ) -> None:
        self._task = task
        self._seed = settings.seed
        self._device = device
        names = dict.fromkeys((*settings.valid_splits, *settings.test_splits))
        self.splits = {name: eval_data(datasets, name, settings, device) for name in names}

    @torch.no_grad()
    def run(self, model: nn.Module, split: str, weights: Weights, precision: Precision) -> Any:
        """Evaluates one split; the random state of training is the same afterwards.

        Args:
            model: Model without a DDP wrapper.
            split: A split of ``valid_splits`` or ``test_splits``.
            weights: Which they are, kept with the results.
            precision: Autocast.

        Returns:
            What the task makes of it on the main process, the same on every rank.
        """
        data = self._data(split)
        model.eval()
        self._task.before_evaluation(model=model, dataset=data.dataset)
        batches = Tracked(data.loader, f"evaluating {split}", visible=is_main_process())
        with self._own_randomness(), precision.autocast():
            rows = self._task.evaluation(model, batches, cuda_enabled=self._device.type == "cuda")
        result = None
        if rows is not None:
            result = self._task.after_evaluation(
                val_result=rows,
                split_name=split,
                epoch=weights.epoch,
                expected=data.expected,
                weights=weights.source,
            )
        # LAVIS' tasks answer on the main process only, but all ranks must agree on what is best
        return gather_objects([result])[0]

    def _data(self, split: str) -> EvalData:
        if split not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise ConfigError(
                [f"split {split!r} is not in run.valid_splits or run.test_splits ({known})"]
            )
        return self.splits[split]

    @contextlib.contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Same random numbers in every evaluation (hard negatives), none taken from training."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self._seed + get_rank())
            yield
