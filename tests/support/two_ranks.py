"""A script on two processes of this machine, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def run_on_two_ranks(script: Path, *arguments: Path, timeout: float = 300) -> None:
    """Runs a script that ends well on both ranks.

    Args:
        script: Python file.
        arguments: Its arguments.
        timeout: Seconds.
    """
    done = subprocess.run(
        [sys.executable, *LAUNCHER, str(script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
