"""A disk that fills up during a run: one message, nothing lost, and the same command goes on."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lavis_msmedcap
from lavis_msmedcap import train
from lavis_msmedcap.common.errors import StorageError
from lavis_msmedcap.runners.run_log import RunLog

WORKER = Path(__file__).with_name("run_worker.py")
CONFIG = "projects/msmedcap/pretrain_mixed.yaml"
# a file system of 1 MiB in a name space of its own, which ends with the command
MOUNT = 'mount -t tmpfs -o size=1m tmpfs "$0"'


def own_file_system(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    package = Path(lavis_msmedcap.__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(package)}
    environment.pop("PYTHONSAFEPATH", None)  # the worker imports tiny.py beside it
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f'{MOUNT} && exec "$@"', str(folder), *command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    if shutil.which("unshare") is None or own_file_system(folder, ["true"]).returncode:
        pytest.skip("this system lets nobody mount a file system of his own")
    return folder


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, Any]:
    done = own_file_system(place, [sys.executable, str(WORKER), "disk", str(place)])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("kind", "file", "state"),
    [
        ("state", "resume/step-000000003.safetensors", "resume/step-000000002.safetensors"),
        ("checkpoint", "checkpoint_last.safetensors", "resume/step-000000009.safetensors"),
        ("rows", "", "resume/step-000000010.safetensors"),
    ],
)
def test_it_is_told_and_the_same_command_goes_on(
    runs: dict[str, Any], kind: str, file: str, state: str
) -> None:
    found = runs[kind]
    assert found["code"] == train.EXIT_STORAGE
    lines = found["message"].splitlines()
    problem, *left = lines[[line.startswith("error: ") for line in lines].index(True) :]
    assert problem.startswith("error: cannot write ")
    assert f"{file}: {os.strerror(errno.ENOSPC)} (0.0 MiB free there); make room there" in problem
    assert f"last good state: {state}" in left
    assert "go on with it: the same command" in left
    # TensorBoard writes in a thread, which tells its own end before ours is told
    assert "Traceback" not in found["message"] or "tensorboard" in problem
    assert not [name for name in found["new"] if ".part" in name]
    assert found["again"] == 0
    assert found["left"] == []


def test_the_weights_are_those_of_a_run_without_trouble(runs: dict[str, Any]) -> None:
    assert runs["state"]["runs"] == 1
    assert runs["state"]["weights"] == runs["whole"]
    assert runs["checkpoint"]["weights"] == runs["whole"]


def test_a_table_keeps_whole_rows(runs: dict[str, Any]) -> None:
    table = runs["table"]
    assert "metrics.csv: No space left on device" in table["message"]
    assert table["kept"].endswith("x\n")
    assert {len(line) for line in table["kept"].splitlines()[2:]} <= {1502}
    assert table["then"] == table["kept"] + "2,x\n"


def test_a_log_that_cannot_be_written_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("lavis_msmedcap.runners")
    log = RunLog(Path("/dev/full"), visible=True)
    with log.attached():
        with pytest.raises(StorageError, match="cannot write /dev/full: No space left"):
            logger.warning("a line")
        logger.warning("another")
        log.file_only("a third")
    assert "Logging error" not in capsys.readouterr().err


def test_a_folder_that_is_read_only_is_told_before_anything_is_built(place: Path) -> None:
    output, resume = place / "output", place / "run"
    options = [f"run.output_dir={output}", f"run.resume={resume}"]
    command = [sys.executable, "-m", "lavis.train", "--cfg-path", CONFIG, "--options", *options]
    made = 'mkdir "$0" && touch "$0/status.json" && mount -o remount,ro "$1"'
    prepare = ["sh", "-c", f'{made} && shift && exec "$@"', str(resume), str(place)]
    done = own_file_system(place, [*prepare, *command])
    assert done.returncode == train.EXIT_WRONG_INPUT
    assert f"{output}, where no run directory can be made ({place} may not be" in done.stderr
    assert f"the run in {resume} cannot go on there ({resume} may not be written" in done.stderr
    assert "Traceback" not in done.stderr
