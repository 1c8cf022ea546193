"""Loader processes of a killed run held its lock for seconds: `auto` began anew without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lavis_msmedcap.runners import open_run
from lavis_msmedcap.runners.open_run import open_run_directory
from lavis_msmedcap.runners.run_status import JointBatches

CONFIG = {"run": {"init_lr": 0.1}}
HOLD = """
import sys, time
from pathlib import Path
from lavis_msmedcap.runners.run_status import lock
held = lock(Path(sys.argv[1]))
print(held is not None, flush=True)
time.sleep(float(sys.argv[2]))
"""


def unfinished(folder: Path) -> Path:
    opened = open_run_directory(str(folder), "auto", CONFIG, JointBatches(4))
    assert not opened.resumed
    assert opened.lock is not None
    opened.lock.release()
    return opened.directory.root


def hold(root: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_it_waits_for_them(tmp_path: Path) -> None:
    root = unfinished(tmp_path)
    with hold(root, 1.0):
        opened = open_run_directory(str(tmp_path), "auto", CONFIG, JointBatches(4))
    assert (opened.directory.root, opened.resumed) == (root, True)


def test_a_run_that_goes_on_working_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(open_run, "WAIT_FOR_LOCK", 0.2)
    root = unfinished(tmp_path)
    with hold(root, 60) as holder:
        opened = open_run_directory(str(tmp_path), "auto", CONFIG, JointBatches(4))
        holder.kill()
    assert opened.directory.root != root
    assert f"another process is working in {root}; this is another run" in caplog.text
