"""What the benchmarks share: interleaved timing, medians, and the line that names the machine."""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Times functions in turn, so that a busy machine slows all of them alike.

    Args:
        functions: What is timed, by name; each is called once before, untimed.
        rounds: Number of timings of each; at least 5.
        clock: Seconds; ``time.process_time`` for work of one thread on a machine that is shared.

    Returns:
        Median seconds by name.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = clock()
            function()
            seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_rss_gib() -> float:
    """Returns the largest resident set of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine() -> str:
    """Names processor, threads and versions."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
