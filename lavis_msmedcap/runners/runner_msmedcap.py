"""``runner_msmedcap``: LAVIS' runner interface, on a CPU, one GPU, or several processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lavis_msmedcap.common.distributed import (
    gather_objects,
    get_rank,
    get_world_size,
    is_main_process,
)
from lavis_msmedcap.common.errors import (
    ConfigError,
)
from lavis_msmedcap.common.whole_files import write_whole
from lavis_msmedcap.models.frozen_marks import FROZEN
from lavis_msmedcap.runners.changed_run import accept_changes, describe_steps
from lavis_msmedcap.runners.checkpointing import BEST, Checkpoints, TrainingState
from lavis_msmedcap.runners.compilation import check_compiler
from lavis_msmedcap.runners.data_summary import DataBook
from lavis_msmedcap.runners.determinism import settle_cublas
from lavis_msmedcap.runners.disk_room import check_room
from lavis_msmedcap.runners.domains import check_domains, dataset_domains
from lavis_msmedcap.runners.ema import WeightAverage, averaged
from lavis_msmedcap.runners.environment import environment_text
from lavis_msmedcap.runners.evaluator import Evaluator
from lavis_msmedcap.runners.image_check import check_eval_images
from lavis_msmedcap.runners.keeper import Keeper
from lavis_msmedcap.runners.loaders import check_splits, describe_plan, train_loader, with_split
from lavis_msmedcap.runners.open_run import open_run_directory
from lavis_msmedcap.runners.precision import Precision, choose_device
from lavis_msmedcap.runners.reporter import TrainingReporter
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_log import RunLog
from lavis_msmedcap.runners.run_status import JointBatches, RunStatus, fingerprint, read_status
from lavis_msmedcap.runners.runner_evaluation import RunnerEvaluation
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.runners.sharding import check_sharding
from lavis_msmedcap.runners.stopping import StopRequest
from lavis_msmedcap.runners.trackers import Trackers, missing_trackers, open_trackers
from lavis_msmedcap.runners.training import Selection, Training
from lavis_msmedcap.runners.training_loop import TrainingLoop
from lavis_msmedcap.runners.training_state import Progress, StateStore

logger = logging.getLogger(__name__)


@registry.register_runner("runner_msmedcap")
class RunnerMSMedCap(RunnerEvaluation):
    """Training by epochs or by optimizer steps, validation and test.

    The interface is that of LAVIS' ``RunnerBase``. What differs: it runs without CUDA and without
    a process group; the run directory is below the current directory and never shared; the
    training data is one seeded plan over all datasets; checkpoints hold trainable parameters only.

    Args:
        cfg: LAVIS' ``Config`` or anything with ``run_cfg``, ``model_cfg``, ``datasets_cfg`` and
            ``config``.
        task: A task of this package, or a LAVIS task.
        model: The model (see `DualBranchModel`), not yet on a device.
        datasets: Dataset name to split name to dataset.
        job_id: Kept for LAVIS; the run directory has its own name.

    Raises:
        ConfigError: If the ``run:`` section or the datasets cannot work.
        DataError: If there is too little data for one batch, or, before a training, an image of an
            evaluation cannot be read.
    """

    _status: RunStatus  # what the run directory says

    def __init__(
        self,
        cfg: Any,
        task: Any,
        model: nn.Module,
        datasets: Mapping[str, Mapping[str, Any]],
        job_id: str,
    ) -> None:
        # everything that can be wrong is found before a run directory is made
        self.settings = RunSettings.from_run_cfg(cfg.run_cfg)
        if self.settings.deterministic:
            settle_cublas()
        device = choose_device(self.settings.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL gathers objects by way of the current device
        if self.settings.compile:
            check_compiler(device)
        if self.settings.shard_llm:
            check_sharding(model)
        absent = missing_trackers(self.settings.trackers)
        if absent:
            raise ConfigError(absent)
        check_splits(datasets, self.settings)
        domains = dataset_domains(datasets, cfg.datasets_cfg)
        check_domains(domains, getattr(model, "train_domains", None))
        loaders: dict[str, DataLoader[dict[str, Any]]] = {}
        if not self.settings.evaluate:
            loaders["train"] = train_loader(datasets, domains, self.settings, device)
        self._evaluator = Evaluator(task, datasets, self.settings, device)
        for name, data in self._evaluator.splits.items():
            loaders.setdefault(name, data.loader)
        self._selection = self._choose(task, model, datasets, domains)
        if not self.settings.evaluate:  # an evaluation alone meets its images at once
            check_eval_images(list(self._evaluator.splits.values()))

        super().__init__(cfg, task, model, datasets, job_id)
        self._device = device
        self._dataloaders = loaders
        self._request = StopRequest()
        self._model = model
        self._wrapped_model = None
        self._trackers = Trackers()
        self._optimizer = None
        self._lr_sched = None
        with self.log.attached():
            self.precision = Precision(self.settings.amp, device)
        self.state = TrainingState()
        self.checkpoints = Checkpoints(self.directory, self._facts(), self.settings.keep_best)
        self._book = DataBook(datasets, self.directory.data_summary)

    def _choose(
        self,
        task: Any,
        model: nn.Module,
        datasets: Mapping[str, Mapping[str, Any]],
        domains: Mapping[str, str],
    ) -> Selection:
        """Says how the best epoch is chosen.

        Raises:
            ConfigError: If no validation can give ``run.best_metric``.
        """
        settings = self.settings
        known: list[str] = []
        if settings.valid_splits and hasattr(task, "metric_names"):
            validated = with_split(datasets, settings.valid_splits[0])
            known = task.metric_names(model, {name: domains[name] for name in validated}) or []
        selection = Selection(
            settings.valid_splits, settings.best_metric, settings.early_stopping, known
        )
        if not settings.evaluate:
            selection.check()
        return selection

    # --- run directory ------------------------------------------------------------------------

    def setup_output_dir(self) -> None:
        """Makes the run directory, or takes up an unfinished one, and tells LAVIS where it is."""
        settings = self.settings
        # an evaluation has nothing to go on with
        resume = None if settings.evaluate else settings.resume
        compared = getattr(self.task, "compares_within_batches", False)
        batches = JointBatches(
            settings.batch_size_train * get_world_size(),
            settings.batch_size_eval * get_world_size() if compared else None,
        )
        config = self._plain_config()
        # not the whole path: the folder of all runs may have moved to another machine
        origin = "/".join(Path(getattr(self._model, "starts_from", "")).parts[-2:])
        self._open = open_run_directory(settings.output_dir, resume, config, batches, origin)
        self._marks = RunStatus(fingerprint(config), batches, origin=origin)
        self.directory: RunDirectory = self._open.directory
        self.output_dir = self.directory.root
        self.result_dir = self.directory.result
        # not register_path, which refuses the second runner of a process
        registry.mapping["paths"]["output_dir"] = str(self.output_dir)
        registry.mapping["paths"]["result_dir"] = str(self.result_dir)
        self.log = RunLog(self.directory.log(get_rank()), visible=is_main_process())
        if not self._open.changed:  # else when it is known that the run can go on so
            self.log_config()

    def _plain_config(self) -> dict[str, Any]:
        config = OmegaConf.create(self.config.config)
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))

    def log_config(self) -> None:
        """Writes the configuration, everything resolved."""
        if is_main_process():
            text = OmegaConf.to_yaml(OmegaConf.create(self._plain_config()))
            write_whole(self.directory.config, [text])
            write_whole(self.directory.environment, [environment_text()])

    def log_stats(self, stats: Any, split_name: str) -> None:
        """Writes results as one line of JSON to the log file."""
        if isinstance(stats, Mapping):
            named = {f"{split_name}_{key}": value for key, value in stats.items()}
            self.log.file_only(json.dumps(named, default=str))

    def _facts(self) -> dict[str, str]:
        """Returns what checkpoints say about the run."""
        return {"scale": self.config.config.get("scale") or "", "run": self.output_dir.name}

    # --- training -----------------------------------------------------------------------------

    def run(self, request: StopRequest) -> Any:
        """Trains, or evaluates if that is all that the configuration asks for.

        Args:
            request: Of the caller, who hears signals before and after; it gets to know of those
                that come when all is done.

        Returns:
            What `evaluate` or `train` returns.
        """
        with self._request.listening():
            if request.signal is not None:  # it came while nobody could raise
                request.leave()
            try:
                return self.evaluate(skip_reload=True) if self.evaluate_only else self.train()
            finally:
                request.signal = request.signal or self._request.signal

    def train(self) -> None:
        """Trains for ``max_epoch`` epochs, or ``max_iters`` steps in inner epochs.

        After each epoch it validates; in the end it runs the test splits.

        Raises:
            NonFiniteError: If a loss or gradient is not finite.
            Interruption: On the main process, if Ctrl-C ends it.
            Preempted: If another signal asks it to stop.
        """
        with self._logging(), self._request.listening():
            if self.evaluate_only:
                for split in self.valid_splits:
                    if split not in self.test_splits:
                        self.eval_epoch(split, cur_epoch=BEST, skip_reload=True)
                self.evaluate(skip_reload=True)
                return
            complete = False
            try:
                keeper = self._train_epochs()
                for split, result in self.evaluate().items():
                    self._trackers.write(split, self.state.global_step, result or {})
                with self._request.patient():
                    if any(gather_objects([self._request.asked()])):
                        keeper.stop()
                    self._finish(keeper)
                    self._request.finished = complete = True
                    self._trackers.close(complete)
            finally:
                self._trackers.close(complete)

    def _train_epochs(self) -> Keeper:
        model: Any = self._bare_model
        decay = self.settings.ema_decay
        average = None if decay is None else WeightAverage(model, decay)
        keeper = self._keeper(average)
        start = keeper.load()
        self.checkpoints.average = average
        self._introduce(start)
        check_room(self.output_dir, model, self.settings, self.max_epoch)
        self.checkpoints.rehearse(model)
        if self._open.changed and is_main_process():
            accept_changes(self.directory, self._status, self._open.changed, self._marks)
            self.log_config()
        self._status = gather_objects([self._status] if is_main_process() else [])[0]
        if hasattr(model, "keep_features"):  # evaluation alone sees every image once
            model.keep_features(self.settings.feature_cache_gib)
        total_steps = self.settings.total_steps(self.steps_per_epoch)
        self._trackers = open_trackers(
            self.settings.trackers, self.directory, self._plain_config(), start.step
        )
        reporter = TrainingReporter(
            self.directory,
            self.log,
            total_steps,
            self.max_epoch,
            self._trackers,
            is_main_process(),
            start,
            getattr(model, "gauges", dict),
        )
        loop = TrainingLoop(
            self.model,
            self._train_step,
            self.optimizer,
            self.lr_scheduler,
            self.precision,
            reporter,
            accumulate=self.settings.accum_grad_iters,
            clip_grad_norm=self.settings.clip_grad_norm,
            log_freq=self.settings.log_freq,
            seed=self.settings.seed,
            keeper=keeper,
            average=average,
        )
        training = Training(
            loop,
            self.train_loader,
            model,
            keeper,
            self.checkpoints,
            self.directory,
            self._status,
            self._request,
            self.log,
            self._trackers,
            self._book.close_epoch,
        )
        self.state = training.state
        try:
            training.run(
                start,
                self.max_epoch,
                self.settings.max_iters,
                self._selection,
                self._validate,
            )
        finally:
            reporter.close()
        return keeper

    def _keeper(self, average: WeightAverage | None) -> Keeper:
        """Makes what writes and reads states; `_status` is what the run directory says."""
        found = read_status(self.output_dir) if is_main_process() else None
        self._status = gather_objects([found])[0] or RunStatus()
        model: Any = self._bare_model
        identity = {
            "the training data": describe_plan(self.train_loader),
            "what a step is": describe_steps(self.settings),
            "the frozen weights": model.checkpoint_metadata().get(FROZEN, ""),
        }
        store = StateStore(self.directory.states, self.settings.keep_last)
        minutes = self.settings.save_every_minutes
        return Keeper(
            store, model, self.optimizer, identity, self._request, minutes, self._book, average
        )

    def _finish(self, keeper: Keeper) -> None:
        self._status.finished = True
        if is_main_process():
            self._status.write(self.output_dir)
        keeper.clear()

    def _introduce(self, start: Progress) -> None:
        model: Any = self._bare_model
        plan = self.lr_scheduler.plan
        if not is_main_process():
            return
        logger.info("run directory: %s", self.output_dir)
        if self._open.resumed:
            logger.info("taking up the run: %s", start)
        if hasattr(model, "describe_trainable"):
            logger.info("%s", model.describe_trainable())
        logger.info("%s", describe_plan(self.train_loader))
        self._book.count_long_texts(model)
        if self.settings.ema_decay is not None:
            logger.info(
                "validation and checkpoints take an average of the weights (run.ema_decay %g)",
                self.settings.ema_decay,
            )
        logger.info(
            "%d steps in %d epochs of %d on %s, %d process(es), amp %s%s",
            plan.total_steps,
            self.max_epoch,
            plan.steps_per_epoch,
            self.device,
            get_world_size(),
            self.precision.amp,
            ", deterministic" if self.settings.deterministic else "",
        )

    def _train_step(self, model: nn.Module, samples: dict[str, Any]) -> Mapping[str, Any]:
        self._book.take(samples)
        output = self.task.train_step(model=model, samples=samples)
        # LAVIS' own tasks return the loss alone
        return {"loss": output} if isinstance(output, Tensor) else output

    def _validate(self, split: str, epoch: int) -> Mapping[str, Any]:
        with averaged(self.checkpoints.average):
            return self.eval_epoch(split, cur_epoch=epoch, skip_reload=True) or {}
