"""What a run configuration needs of this machine: device, GPU memory, disk, compiler."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_msmedcap.doctor_findings import MISSING, NOTE, OK, Finding
from lavis_msmedcap.doctor_machine import nearest_existing

if TYPE_CHECKING:
    from lavis_msmedcap.memory.advice import Plan

SHARED_MEMORY = Path("/dev/shm")  # through which loader processes hand over batches
LITTLE_SHARED_MEMORY = 256 * 2**20  # Docker gives 64 MiB unless asked for more


def check_needs(config: Mapping[str, Any], output: Path, plan: Plan | None) -> Iterator[Finding]:
    """Compares what a run needs with what is here.

    Args:
        config: Sections of a checked configuration.
        output: Where its run directories are made.
        plan: Sizes of the model; None if they cannot be known without its files.
    """
    from lavis_msmedcap.runners.precision import choose_device

    run = config["run"]
    device = choose_device(str(run.get("device", "auto")).lower()).type
    if plan is not None:
        if device == "cuda":
            yield _check_gpu_memory(plan, _gpu_memory())
        if plan.run.trains:
            yield _check_output_space(plan, run, output)
    yield from _check_loaders(run)
    yield from _check_compiler(run, device)


def _gpu_memory() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def _check_gpu_memory(plan: Plan, there: int) -> Finding:
    """Compares the estimate of `msmedcap memory` with the memory of the first GPU, in bytes."""
    from lavis_msmedcap.models.weight_download import show_size

    needed = plan.estimate()
    totals = [needed.inference_total] + ([needed.training_total] if plan.run.trains else [])
    told = f"GPU memory: about {show_size(round(max(totals)))} needed, {show_size(there)} there"
    if max(totals) <= there:
        return Finding(OK, told)
    cure = f"'msmedcap memory --cfg-path FILE --gpu-gib {there // 2**30}' says what to change"
    return Finding(MISSING, f"{told}; {cure}")


def _check_output_space(plan: Plan, run: Mapping[str, Any], output: Path) -> Finding:
    from lavis_msmedcap.memory.estimate import trainable_bytes
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.runners.disk_room import disk_bytes
    from lavis_msmedcap.runners.settings import RunSettings

    weights, values = trainable_bytes(plan.model, plan.shape)
    needed = disk_bytes(weights, values, RunSettings.from_run_cfg(run))
    free = shutil.disk_usage(nearest_existing(output)).free
    told = f"disk for checkpoints and states: {show_size(needed)} needed, {show_size(free)} free"
    if needed <= free:
        return Finding(OK, told)
    cure = "set run.output_dir to another disk, or run.keep_last=1"
    return Finding(MISSING, f"{told} at {output}; {cure}")


def _check_loaders(run: Mapping[str, Any]) -> Iterator[Finding]:
    workers = int(run.get("num_workers", 0))
    if not workers or not SHARED_MEMORY.is_dir():
        return
    size = shutil.disk_usage(SHARED_MEMORY).total
    if size < LITTLE_SHARED_MEMORY:
        yield Finding(
            NOTE,
            f"{SHARED_MEMORY} has {size / 2**20:.0f} MiB for the batches of {workers} loader "
            "processes, which end in a bus error if it is full: start the container with "
            "--shm-size=8g, or set run.num_workers=0",
        )


def _check_compiler(run: Mapping[str, Any], device: str) -> Iterator[Finding]:
    """Looks for what torch.compile runs; the start of a run tries it."""
    if run.get("compile") is not True:
        return
    compiler = os.environ.get("CXX", "g++")
    lacking = [] if shutil.which(compiler) else [f"the compiler {compiler}"]
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        lacking.append("the package triton")
    if lacking:
        told = f"run.compile needs {' and '.join(lacking)}, not found here"
        yield Finding(MISSING, f"{told}; install it, or set run.compile=false")
    else:
        yield Finding(OK, f"run.compile: {compiler} is here")
