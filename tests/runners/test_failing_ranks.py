"""One of two processes fails: a message, an end within bounds, and the same command goes on."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import lavis_msmedcap
from lavis_msmedcap.runners.training_state import StateStore, read_state

WORKER = Path(__file__).with_name("run_worker.py")
BOUND = 60.0  # seconds from the last line that a healthy run writes; torchrun itself waits 30 s
# a chain of whole runs, in which each one takes up the one before
FAULTS = ("step", "checkpoint", "image", "mistake", "first", "asked", "none")


@dataclass
class Outcome:
    """What came of one start."""

    code: int
    errors: list[str]
    output: str
    seconds: float  # since the last change of metrics.csv
    step: int  # of the newest state


def start(folder: Path, fault: str) -> Outcome:
    package = Path(lavis_msmedcap.__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(package)}
    environment.pop("PYTHONSAFEPATH", None)  # the worker imports tiny.py beside it
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, str(WORKER), "ranks", str(folder), fault],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    [root] = (folder / "runs").iterdir()
    states = StateStore(root / "resume").paths()
    return Outcome(
        done.returncode,
        re.findall(r"^error: .*(?:\n(?!.*(?:Error|\[)).*)*", done.stderr, re.MULTILINE),
        done.stderr,
        time.time() - (root / "metrics.csv").stat().st_mtime,
        read_state(states[0])[1].step if states else 0,
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("ranks")
    found = {}
    for fault in FAULTS:
        image = folder / "image.png"
        Image.new("RGB", (4, 4)).save(image)
        if fault == "image":
            image.write_bytes(b"no image")
        found[fault] = start(folder, fault)
    [root] = (folder / "runs").iterdir()
    with (root / "metrics.csv").open(newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    assert steps == [str(step) for step in range(1, 21)]
    return found


@pytest.mark.slow
@pytest.mark.journey
class TestRanks:
    @pytest.mark.parametrize("fault", FAULTS[:-2])
    def test_one_message_within_bounds(self, outcomes: dict[str, Outcome], fault: str) -> None:
        outcome = outcomes[fault]
        assert outcome.code != 0
        assert len(outcome.errors) == 1, outcome.output
        assert f"last good state: resume/step-{outcome.step:09d}.safetensors" in outcome.errors[0]
        assert "go on with it: the same command" in outcome.errors[0]
        assert outcome.seconds < BOUND

    @pytest.mark.parametrize(("fault", "rank"), [("step", 1), ("checkpoint", 1), ("first", 0)])
    def test_a_killed_rank(self, outcomes: dict[str, Outcome], fault: str, rank: int) -> None:
        told = f"error: a process of 2 has ended without a word (rank {rank}): it was killed"
        assert outcomes[fault].errors[0].startswith(told)

    def test_an_image_on_one_rank(self, outcomes: dict[str, Outcome]) -> None:
        told = outcomes["image"].errors[0]
        assert re.match(r"error: .*cannot read image .*image\.png: not an image format", told)

    def test_an_error_on_one_rank(self, outcomes: dict[str, Outcome]) -> None:
        told = "error: process 1 of 2 (rank 1): TypeError: a mistake in code\n"
        assert outcomes["mistake"].errors[0].startswith(told)

    def test_one_rank_is_asked_to_stop(self, outcomes: dict[str, Outcome]) -> None:
        asked = outcomes["asked"]
        assert (asked.code != 0, asked.errors, asked.seconds < BOUND) == (True, [], True)
        assert (
            "asked to stop\nthe request came to process 1 of 2 (rank 1)\nrun directory: "
        ) in asked.output
        assert f"last good state: resume/step-{asked.step:09d}.safetensors" in asked.output

    def test_the_same_command_goes_on(self, outcomes: dict[str, Outcome]) -> None:
        assert outcomes["none"].code == 0
        steps = [outcomes[fault].step for fault in FAULTS[:-1]]
        assert steps == sorted(steps)
        assert f"taking up the run: step {steps[-1]} " in outcomes["none"].output
