"""Loader processes ended themselves ten seconds after SIGTERM, in the middle of a long step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from lavis_msmedcap.runners.worker_errors import PlainErrorLoader


class Slow(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.2)
        return index


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_they_wait_for_the_main_process_however_often_they_are_asked(name: str) -> None:
    others = set(multiprocessing.active_children())
    batches = iter(PlainErrorLoader(Slow(), torch.tensor, num_workers=1, batch_size=1))
    next(batches)
    [worker] = set(multiprocessing.active_children()) - others
    assert worker.pid is not None
    for _ in range(3):
        os.kill(worker.pid, getattr(signal, name))
        time.sleep(0.05)
    assert len(list(batches)) == 3


STUCK = """
import sys, time
from lavis_msmedcap.runners.worker_errors import PlainErrorLoader

class Stuck:
    def __len__(self):
        return 2
    def __getitem__(self, index):
        if index:
            time.sleep(600)  # a network drive that does not answer
        return {}

batches = iter(PlainErrorLoader(Stuck(), lambda samples: {}, num_workers=1, batch_size=1))
next(batches)
print("first", flush=True)
"""


@pytest.mark.slow
@pytest.mark.journey
def test_one_that_is_stuck_does_not_keep_the_main_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.stdout == "first\n"
    assert done.returncode == 0, done.stderr
