"""Bit-identical runs: what ``run.deterministic`` switches in torch.

The training plan, augmentation, dropout and negatives come from seeds in every run. What is left is
arithmetic: on a GPU some operations add up in an order that differs from run to run, cuDNN may
choose its algorithms by measuring them, and TF32 rounds float32 products to ten bits on those cards
that have it. With the switch the same command gives the same bits on the same machine with the same
versions and the same number of processes. Another GPU, another torch, or another number of
processes may still round differently.

It costs speed: deterministic algorithms are often slower, float32 products without TF32 several
times on cards that have it (``run.amp: bf16`` does not use TF32 and loses nothing there). An
operation that has no deterministic algorithm stops the run with torch's message, which names it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from lavis_msmedcap.common.errors import ConfigError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")  # the two with which cuBLAS is deterministic: 24 MiB, and slower


def settle_cublas() -> None:
    """Sets what cuBLAS reads once when CUDA starts; it stays for the rest of the process.

    Does nothing where there is no CUDA.

    Raises:
        ConfigError: If the variable has a value that is not deterministic, or CUDA has started
            without one.
    """
    if not torch.cuda.is_available():
        return
    value = os.environ.get(WORKSPACE)
    if value in WORKSPACES:
        return
    expected = f"set {WORKSPACE}={WORKSPACES[0]} in the environment before Python starts"
    if value is not None:
        problem = f"run.deterministic: {WORKSPACE} is {value!r}, which is not deterministic"
        raise ConfigError([f"{problem}; {expected} (or {WORKSPACES[1]})"])
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        problem = f"run.deterministic: CUDA has started in this process without {WORKSPACE}"
        raise ConfigError([f"{problem}, which it reads only then; {expected}"])
    os.environ[WORKSPACE] = WORKSPACES[0]


@contextlib.contextmanager
def determinism(enabled: bool) -> Iterator[None]:
    """Switches torch to deterministic algorithms without TF32; afterwards all is as it was.

    Args:
        enabled: False changes nothing.

    Raises:
        RuntimeError: From within, by an operation that has no deterministic algorithm.
    """
    if not enabled:
        yield
        return
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    products = torch.get_float32_matmul_precision()
    try:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        torch.set_float32_matmul_precision(products)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
