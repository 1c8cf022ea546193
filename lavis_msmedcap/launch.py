"""Runs a checked configuration: process group, seeds, log, then task, datasets, model, runner."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lavis.common.logger import setup_logger
from lavis.common.registry import registry
from omegaconf import OmegaConf
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from lavis_msmedcap.common.distributed import (
    gather_objects,
    get_rank,
    get_world_size,
    is_distributed,
)
from lavis_msmedcap.common.errors import Interruption, Preempted
from lavis_msmedcap.common.failures import Failures
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.run_chain import Chain
from lavis_msmedcap.run_checks import DEFAULT_RUNNER, OWN_PACKAGE, is_own, registered
from lavis_msmedcap.run_config import RunConfig, make_current
from lavis_msmedcap.runners.determinism import settle_cublas
from lavis_msmedcap.runners.precision import choose_device
from lavis_msmedcap.runners.preflight import check_training_data
from lavis_msmedcap.runners.run_log import backlog
from lavis_msmedcap.runners.runner_properties import RunnerProperties
from lavis_msmedcap.runners.stopping import StopRequest

DEFAULT_SEED = 42
# ranks wait for the first one while it makes phantoms or scores a test set
TIMEOUT = datetime.timedelta(hours=24)

logger = logging.getLogger(__name__)


def launch(*configs: RunConfig, request: StopRequest | None = None) -> Any:
    """Builds what each configuration names and trains it, or evaluates it if ``run.evaluate``.

    Args:
        configs: From `run_config.load_run_config` or `load_stages`; they run one after the other.
        request: Of a caller who hears signals too.

    Returns:
        What the last runner's ``train`` or ``evaluate`` returns.

    Raises:
        Interruption: If somebody asks it to stop, with what to do then.
    """
    result = None
    if any(config.run_cfg.get("deterministic") for config in configs):
        settle_cublas()  # before the process group starts CUDA
    request = StopRequest() if request is None else request
    with process_group(configs[0].run_cfg):
        _set_up_log()
        chain = Chain(configs)
        with _hearing(request, chain):
            for config in configs:
                if chain.is_done(config):
                    continue
                result = _run_stage(config, chain, request, last=config is configs[-1])
                if config is not configs[-1] and any(gather_objects([request.asked()])):
                    request.leave()
                    raise Preempted
    return result


def _run_stage(config: RunConfig, chain: Chain, request: StopRequest, last: bool) -> Any:
    """Runs one stage. Its frame is gone when an error is told, and the runner's connections too."""
    make_current(config)
    runner = _prepare(config)
    if not isinstance(runner, RunnerProperties):
        result = _run_of_lavis(runner, config)
        chain.finish(config)
        request.finished = last
        return result
    chain.begin(config, runner.output_dir)
    # it hears requests itself; a stage that is done must be remembered, whoever asks meanwhile
    with request.patient():
        result = runner.run(request)
        chain.finish(config)
        request.finished = last
    return result


@contextlib.contextmanager
def _hearing(request: StopRequest, chain: Chain) -> Iterator[None]:
    """Hears requests to stop while no runner does, and says what to do then."""
    try:
        with request.listening():
            yield
    except Interruption:
        raise
    except KeyboardInterrupt as stop:
        if get_rank() != 0:  # the first one tells
            raise
        raise Interruption(chain.how_to_go_on(), preempted=isinstance(stop, Preempted)) from stop


def _run_of_lavis(runner: Any, config: RunConfig) -> Any:
    try:
        evaluates = config.run_cfg.get("evaluate")
        return runner.evaluate(skip_reload=True) if evaluates else runner.train()
    except KeyboardInterrupt as stop:
        name = type(runner).__name__
        told = f"{name} is LAVIS' own and keeps no states; its checkpoints are in run.output_dir"
        raise Interruption(told, preempted=isinstance(stop, Preempted)) from stop


def _prepare(config: RunConfig) -> Any:
    run = config.run_cfg
    seed_everything(int(run.get("seed", DEFAULT_SEED)) + get_rank())
    with backlog():  # not before setup_logger, which does nothing where there is a handler
        for line in (config.banner(), *config.notes):
            logger.info("%s", line)
        return build_runner(config)


def _set_up_log() -> None:
    setup_logger()
    # the root logger has its level already where somebody else set up logging
    package = logging.getLogger(OWN_PACKAGE)
    package.setLevel(logging.INFO if get_rank() == 0 else logging.WARNING)


def build_runner(config: RunConfig) -> Any:
    """Builds task, datasets, model and runner, in this order."""
    run = config.run_cfg
    runner_cls: Any = registered("runner", run.get("runner", DEFAULT_RUNNER))
    if not is_own(runner_cls):
        _prepare_for_lavis(config)
    model_cls: Any = registered("model", config.model_cfg.arch)
    if is_own(model_cls):  # downloads before the datasets are read, not after
        model_cls.prepare_inputs(OmegaConf.to_container(config.model_cfg, resolve=True))
    task_cls: Any = registered("task", run.task)
    task = task_cls.setup_task(cfg=config)
    datasets = task.build_datasets(config)
    if issubclass(runner_cls, RunnerProperties):
        check_training_data(config, datasets)
    model = task.build_model(config)
    job_id = gather_objects([time.strftime("%Y%m%d-%H%M%S")])[0]
    return runner_cls(cfg=config, job_id=job_id, task=task, model=model, datasets=datasets)


def _prepare_for_lavis(config: RunConfig) -> None:
    """Sets what LAVIS' own runners read, and saves them from two traps.

    The traps: an output folder inside site-packages, and a second run in one process.
    """
    run = config.run_cfg
    run.distributed = is_distributed()
    run.rank, run.world_size = get_rank(), get_world_size()
    run.gpu = int(os.environ.get("LOCAL_RANK", "0"))
    run.device = choose_device(run.get("device", "auto")).type
    if run.get("output_dir"):
        run.output_dir = str(resolve_path(run.output_dir))
    # the registry refuses to register a path twice
    for name in ("result_dir", "output_dir"):
        registry.mapping["paths"].pop(name, None)
    if get_rank() == 0:
        config.pretty_print()


@contextlib.contextmanager
def process_group(run: Any) -> Iterator[None]:
    """Joins torchrun's process group for the length of a ``with`` block; alone, makes none.

    Args:
        run: The ``run:`` section.

    Raises:
        LostProcessError: If another process has ended before its time.
        Interruption: If another process has been asked to stop.
    """
    started_by_torchrun = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    if started_by_torchrun:
        device = choose_device(str(run.get("device", "auto")).lower())
        if device.type == "cuda":
            torch.cuda.set_device(device)
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        url = run.get("dist_url", "env://")
        store, rank, world_size = next(rendezvous(url, rank, world_size, timeout=TIMEOUT))
        dist.init_process_group(
            backend="nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("exchange", store),
            rank=rank,
            world_size=world_size,
            timeout=TIMEOUT,
        )
        failures = Failures(store, rank, world_size)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if started_by_torchrun:
            settled = failures.settle(error)
            if settled is not error:
                raise settled from error
        raise
    finally:
        if started_by_torchrun and is_distributed():
            dist.destroy_process_group()


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, and asks cuDNN for repeatable algorithms, as LAVIS does."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - LAVIS and its processors draw from the global generator
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
