"""Starts a script as the processes of a group, as torchrun would, and tells what they printed.

Kept as a plain file (not a test module), beside the scripts that it starts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import lavis_msmedcap

PACKAGE = Path(lavis_msmedcap.__file__).parent.parent
SUPPORT = Path(__file__).parents[1] / "support"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_ranks(script: Path, *arguments: str, world_size: int = 2, timeout: float = 600) -> None:
    """Runs a script on all ranks; fails with what the one at fault printed."""
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(PACKAGE), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
        ),
    }
    environment.pop("PYTHONSAFEPATH", None)  # the script imports the files beside it
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [rank.communicate(timeout=timeout)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, output in zip(ranks, outputs):
        assert rank.returncode == 0, output
