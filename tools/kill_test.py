"""Kills a training at random moments, takes it up each time, and compares the weights in the end.

    python tools/kill_test.py                        40 kills; takes about 15 minutes on two cores
    python tools/kill_test.py --kills 5 --seed 3

The training is the demo's stage 1 on fewer images. It is run once without interruption; then the
same command is started again and again and gets SIGKILL: at any moment since its start, while a
checkpoint or a state is being written, and in the validation between two epochs. A kill is survived
if the next start goes on without an error; in the end the trainable weights must be the same, bit
by bit. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.runners.run_status import read_status

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "projects" / "msmedcap" / "pretrain_mixed.yaml"
OPTIONS = (
    "run.resume=auto",
    "run.save_every_minutes=0.01",
    "run.max_epoch=3",
    "run.batch_size_train=8",
    "run.log_freq=5",
    "run.feature_cache_gib=0",
    "datasets.coco2014_caption.max_samples={train: 80, val: 40, test: null}",
    "datasets.roco.max_samples={train: 80, val: 40, test: 8}",
    "datasets.medicat.max_samples={train: 80, val: 40, test: 8}",
)
PATIENCE = 300.0  # seconds that a start may take


class KillTest:
    """Starts, kills, and starts again.

    Args:
        folder: Where runs and logs go.
        rng: Draws the moments.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.usual = 10.0  # seconds from the start of a process to its first step, measured later

    def command(self, output: Path) -> list[str]:
        """Returns the one command that starts and takes up the training."""
        options = [*OPTIONS, f"run.output_dir={output}"]
        return [
            sys.executable,
            "-m",
            "lavis.train",
            "--cfg-path",
            str(CONFIG),
            "--options",
            *options,
        ]

    def reference(self) -> Path:
        """Trains without interruption and returns the run directory."""
        output = self.folder / "whole"
        started = time.monotonic()
        subprocess.run(self.command(output), check=True, capture_output=True, cwd=self.folder)
        self.usual = (time.monotonic() - started) / 2
        return run_directory(output)

    def attempt(self, output: Path, number: int) -> tuple[str, int | None]:
        """Starts the training once and kills it.

        Returns:
            The kind of moment, and the exit code: None if it was killed.
        """
        kinds: list[tuple[str, Callable[[Path], bool]]] = [
            ("any moment", self._after(self.rng.uniform(0, 1.5 * self.usual))),
            ("while a file is written", being_written),
            ("between epochs", self._soon_after_epoch()),
        ]
        kind, due = kinds[number % len(kinds)]
        with (self.folder / f"attempt-{number:03d}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(output), stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
            )
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < deadline:
                if due(output):
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return kind, None
                time.sleep(0.0005)
        if process.poll() is None:
            process.kill()
            raise TimeoutError(f"attempt {number} did not end within {PATIENCE:.0f} s")
        return kind, process.returncode

    @staticmethod
    def _after(seconds: float) -> Callable[[Path], bool]:
        moment = time.monotonic() + seconds
        return lambda _: time.monotonic() >= moment

    def _soon_after_epoch(self) -> Callable[[Path], bool]:
        """Waits for the checkpoint of an epoch, then a little."""
        begun, delay = time.time(), self.rng.uniform(0, 1.0)

        def due(output: Path) -> bool:
            for path in output.glob("*/checkpoint_last.safetensors"):
                written = path.stat().st_mtime
                if written > begun and time.time() > written + delay:
                    return True
            return False

        return due


def being_written(output: Path) -> bool:
    """Tells whether a checkpoint or state is half written; not every time, to let some get by."""
    patterns = ("*/.checkpoint*.tmp", "*/resume/.step-*.tmp")
    there = any(True for pattern in patterns for _ in output.glob(pattern))
    return there and random.random() < 0.02


def run_directory(output: Path) -> Path:
    """Returns the one finished run of an output folder."""
    statuses = {path.parent: read_status(path.parent) for path in output.glob("*/status.json")}
    (found,) = (root for root, status in statuses.items() if status and status.finished)
    return found


def differing(one: Path, other: Path) -> list[str]:
    """Lists the tensors of the last checkpoints that differ in any bit."""
    first, _ = read_checkpoint(one / "checkpoint_last.safetensors")
    second, _ = read_checkpoint(other / "checkpoint_last.safetensors")
    return sorted(
        name
        for name in {*first, *second}
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    )


def main() -> int:
    """Runs the test and prints its figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40, help="how often (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--folder", type=Path, help="where runs and logs go; default: temporary")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="kill-test-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    random.seed(arguments.seed)
    test = KillTest(folder, random.Random(arguments.seed))
    whole = test.reference()
    print(f"logs and runs in {folder}", flush=True)
    kills = survived = rounds = number = 0
    wrong: list[str] = []
    while kills < arguments.kills:
        rounds += 1
        output, pending = folder / f"killed-{rounds}", 0
        while True:  # one training, until it is finished
            if kills < arguments.kills:
                kind, code = test.attempt(output, number)
                number += 1
            else:
                done = subprocess.run(test.command(output), cwd=folder, capture_output=True)
                kind, code = "last start", done.returncode
            if code is None:
                kills, pending = kills + 1, pending + 1
                print(f"kill {kills}: {kind}", flush=True)
                continue
            if code:
                wrong.append(f"round {rounds}: a start ended with exit code {code}")
            break
        if not wrong:
            wrong += [
                f"round {rounds}: {name} differs"
                for name in differing(whole, run_directory(output))
            ]
        survived += 0 if wrong else pending
        if wrong:
            break
    print("\n".join(wrong) or f"{rounds} trainings, each with the weights of the whole one")
    print(f"kills survived / kills: {survived} / {kills}")
    return 1 if wrong or survived < kills else 0


if __name__ == "__main__":
    sys.exit(main())
