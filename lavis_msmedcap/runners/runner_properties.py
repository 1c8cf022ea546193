"""What LAVIS asks of a runner by name: device, model, optimizer, schedule, loaders, splits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import torch
from lavis.runners.runner_base import RunnerBase
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from lavis_msmedcap.common.distributed import get_world_size, is_main_process
from lavis_msmedcap.datasets.mixing import PlannedBatchSampler
from lavis_msmedcap.runners.compilation import compile_blocks
from lavis_msmedcap.runners.loaders import every_batch_trains_all
from lavis_msmedcap.runners.optimization import build_optimizer, count_steps
from lavis_msmedcap.runners.precision import Precision
from lavis_msmedcap.runners.schedule import LRSchedule
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.runners.sharding import shard_llm

if TYPE_CHECKING:
    from lavis_msmedcap.models.msmedcap import MSMedCap

logger = logging.getLogger(__name__)


class RunnerProperties(RunnerBase):
    """Properties of LAVIS' ``RunnerBase`` without its need of CUDA and of a process group.

    Model, optimizer and schedule are made when they are first asked for, as there.

    Attributes:
        settings: The ``run:`` section.
        precision: Autocast and the loss scaler.
    """

    settings: RunSettings
    precision: Precision
    _device: torch.device
    _dataloaders: dict[str, DataLoader[dict[str, Any]]]
    _model: nn.Module
    _wrapped_model: nn.Module | None
    _optimizer: torch.optim.Optimizer | None
    _lr_sched: LRSchedule | None

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self._device

    @property
    def use_distributed(self) -> bool:
        """Whether several processes train together."""
        return get_world_size() > 1

    @property
    def model(self) -> nn.Module:
        """The model on its device, wrapped for several processes where it is trained by them."""
        if self._wrapped_model is None:
            if self.settings.shard_llm:
                shard_llm(cast("MSMedCap", self._model), self.device)
            self._model = self._model.to(self.device)
            if self.settings.compile:
                compile_blocks(self._model, self.device)
            wrap = self.use_distributed and not self.evaluate_only
            self._wrapped_model = self._wrap(self._model) if wrap else self._model
        return self._wrapped_model

    def _wrap(self, model: nn.Module) -> nn.Module:
        """Wraps the model for several processes; the plan decides what DDP has to look for.

        A medical batch leaves out the branches that train on general images only. Where there are
        such batches, DDP walks through the graph of every step to find the parameters that get no
        gradient; elsewhere it need not. (DDP's static graph is no way around: it does not know
        skipped branches, and with it an accumulated first batch fails.)
        """
        unused = not every_batch_trains_all(model, self.train_loader)
        if is_main_process():
            logger.info(
                "DDP over %d processes; %s (find_unused_parameters=%s)",
                get_world_size(),
                "some batches leave out parameters" if unused else "every batch trains all",
                unused,
            )
        return DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            find_unused_parameters=unused,
        )

    def unwrap_dist_model(self, model: nn.Module) -> nn.Module:
        """Returns the model inside its DDP wrapper."""
        return model.module if isinstance(model, DistributedDataParallel) else model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters."""
        if self._optimizer is None:
            settings = self.settings
            self._optimizer = build_optimizer(
                self.unwrap_dist_model(self.model),
                settings.init_lr,
                settings.weight_decay,
                settings.beta2,
            )
        return self._optimizer

    @property
    def scaler(self) -> Any:
        """Loss scaler of fp16 on CUDA, else None."""
        return self.precision.scaler

    @property
    def lr_scheduler(self) -> LRSchedule:
        """The learning rate by optimizer step."""
        if self._lr_sched is None:
            plan = self.settings.schedule_plan(self.steps_per_epoch)
            if plan.warmup_steps >= plan.total_steps > 0 and is_main_process():
                logger.warning(
                    "run.warmup_steps is %d, but the training has %d steps: it never reaches "
                    "run.init_lr",
                    plan.warmup_steps,
                    plan.total_steps,
                )
            self._lr_sched = LRSchedule(self.optimizer, self.settings.lr_sched, plan)
        return self._lr_sched

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        sampler = cast(PlannedBatchSampler, self.train_loader.batch_sampler)
        return count_steps(len(sampler.plan), self.settings.accum_grad_iters)

    @property
    def dataloaders(self) -> dict[str, DataLoader[dict[str, Any]]]:
        """Loaders by split; ``train`` is missing when only evaluating."""
        return self._dataloaders

    @property
    def evaluate_only(self) -> bool:
        """Whether nothing is trained."""
        return self.settings.evaluate

    @property
    def max_epoch(self) -> int:
        """Number of epochs; of a training that counts steps, of inner epochs."""
        if self.evaluate_only:
            return self.settings.max_epoch
        return self.settings.epochs(self.steps_per_epoch)

    @property
    def valid_splits(self) -> tuple[str, ...]:
        """Splits evaluated after each epoch."""
        return self.settings.valid_splits

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Splits evaluated at the end; a run that only evaluates falls back on `valid_splits`."""
        if self.evaluate_only and not self.settings.test_splits:
            return self.settings.valid_splits
        return self.settings.test_splits

    @property
    def train_splits(self) -> tuple[str, ...]:
        """Splits that are trained on."""
        return self.settings.train_splits
