"""Kills a training at random moments, takes it up each time, and compares the results in the end.

    python tools/kill_test.py                             40 kills, two trainings at a time
    python tools/kill_test.py --kills 6 --seed 3
    python tools/kill_test.py --kills 10 --processes 2    kills one of two processes of torchrun

The training is the demo's stage 1 on a few images, many short epochs of it. It is run once without
interruption; then the same command is started again and again and gets SIGKILL: in its start-up, in
a training step, while a state or a checkpoint is being written, and in the validation after an
epoch. The table says where each kill was aimed at and where it landed, told from the files that it
left. After each one all checkpoints and states must be readable. A kill is survived if the training
that it hit ends with the trainable weights of the whole one, bit by bit, with the same losses in
every step and every validation, and with no half-written file. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from killing.run_files import (
    AIMS,
    Moment,
    check_readable,
    differences,
    epoch_to_validate,
    half_written,
    is_finished,
    moment_of,
    newest_run,
)

from lavis_msmedcap.runners.run_directory import RunDirectory

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "projects" / "msmedcap" / "pretrain_mixed.yaml"
GLOBAL_BATCH = 4
OPTIONS = (
    "run.resume=auto",
    "run.save_every_minutes=0.01",
    "run.max_epoch=6",
    "run.batch_size_eval=4",
    "run.log_freq=1",
    "run.feature_cache_gib=0",
    "datasets.coco2014_caption.max_samples={train: 8, val: 8, test: null}",
    "datasets.roco.max_samples={train: 8, val: 8, test: 8}",
    "datasets.medicat=null",
)
BOUND = 90.0  # seconds in which the other processes have to end after one was killed


class Training:
    """One training, started, killed, and started again, until it is finished.

    Args:
        folder: Where its runs and logs go.
        processes: Processes that train together.
        rng: Draws the moments.
        start_up: Seconds from a start to the first step.
        patience: Seconds that a start may take.
    """

    def __init__(
        self,
        folder: Path,
        processes: int,
        rng: random.Random,
        start_up: float = 0.0,
        patience: float = math.inf,
    ) -> None:
        self.folder = folder
        self.output = folder / "runs"
        self.rng = rng
        self._processes = processes
        self._start_up = start_up
        self._patience = patience
        self._starts = itertools.count(1)
        folder.mkdir(parents=True)
        options = [*OPTIONS, f"run.batch_size_train={GLOBAL_BATCH // processes}"]
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
        self.command = [
            *(sys.executable, "-m", *(torchrun if processes > 1 else []), "lavis.train"),
            *("--cfg-path", str(CONFIG), "--options", *options, f"run.output_dir={self.output}"),
        ]

    def run(self, aim: str | None = None) -> tuple[int | None, Moment]:
        """Starts it, and kills it where it is aimed at.

        Args:
            aim: One of `AIMS`; None lets it run to its end.

        Returns:
            The exit code, None if it was killed; and where it was killed.
        """
        started = time.time()
        due = self._due(aim, started) if aim else lambda: False
        with (self.folder / f"start-{next(self._starts):03d}.log").open("wb") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, env=environment
            )
            while process.poll() is None:
                if time.time() > started + self._patience:
                    process.kill()
                    raise TimeoutError(f"{log.name}: no end within {self._patience:.0f} s")
                if due():
                    # of several processes some go on, and change the files; of one none does
                    several = self._processes > 1
                    moment = moment_of(self.output, started) if several else None
                    self._kill(process)
                    if moment is None or process.returncode == -signal.SIGKILL:
                        moment = moment_of(self.output, started)
                    if is_finished(self.output):  # too late: the same command would begin anew
                        return 0, Moment("end")
                    return None, moment
                time.sleep(0.002)
        return process.returncode, Moment("end")

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        victim = process.pid
        if self._processes > 1:
            workers = [pid for pid in children(process.pid) if is_rank(pid)]
            victim = self.rng.choice(workers or [victim])
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        process.wait(timeout=BOUND)

    def _due(self, aim: str, started: float) -> Callable[[], bool]:
        """Returns what says, asked again and again, whether the moment has come."""
        moments = self._moments(aim, started)
        return lambda: next(moments)

    def _moments(self, aim: str, started: float) -> Iterator[bool]:
        if aim == "start-up":
            delay = self.rng.uniform(0, self._start_up)
            reached: Callable[[], bool] = lambda: True  # noqa: E731
        elif aim == "training":
            delay = self.rng.uniform(0, 3)
            reached = lambda: self._has_stepped(started)  # noqa: E731
        elif aim == "evaluation":
            delay = self.rng.uniform(0, 1)
            reached = lambda: self._validates(started)  # noqa: E731
        else:
            # a state is three times as long as a checkpoint, which takes some ten milliseconds
            delay = self.rng.uniform(0, 0.02 if aim == "state write" else 0.005)
            reached = self._writes("step-" if aim == "state write" else "checkpoint_")
        while not reached():
            yield False
        end = time.time() + delay
        while time.time() < end:
            yield False
        while True:
            yield True

    def _has_stepped(self, started: float) -> bool:
        root = newest_run(self.output)
        table = None if root is None else RunDirectory(root).metrics
        return table is not None and table.is_file() and table.stat().st_mtime > started

    def _validates(self, started: float) -> bool:
        root = newest_run(self.output)
        return (
            root is not None
            and self._has_stepped(started)
            and not half_written(root)
            and epoch_to_validate(root) is not None
        )

    def _writes(self, prefix: str) -> Callable[[], bool]:
        """Waits for one of the next three files of a kind to be begun."""
        seen: set[str] = set()
        number = self.rng.randint(1, 3)

        def reached() -> bool:
            root = newest_run(self.output)
            parts = [] if root is None else half_written(root)
            names = {part.name for part in parts if part.name.startswith(prefix)}
            # one process gives a file that it writes again the same name
            seen.update(f"{name} {len(seen)}" for name in names - self._writing)
            self._writing = names
            return bool(names) and len(seen) >= number

        self._writing: set[str] = set()
        return reached


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def is_rank(pid: int) -> bool:
    """Tells whether a process is one that torchrun has started to train."""
    try:
        return b"\0LOCAL_RANK=" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


@dataclass
class Test:
    """The whole test.

    Attributes:
        folder: Where runs and logs go.
        processes: Processes that train together.
        seed: Seed of the moments.
        aims: What is still to be aimed at.
    """

    folder: Path
    processes: int
    seed: int
    aims: list[str]
    start_up: float = 0.0
    patience: float = math.inf
    kills: int = 0
    survived: int = 0
    trainings: int = 0
    wrong: list[str] = field(default_factory=list)
    landed: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reference(self) -> None:
        """Trains without interruption, and measures the start-up."""
        training = Training(self.folder / "whole", self.processes, random.Random(0))
        started = time.time()
        code, _ = training.run()
        if code:
            raise SystemExit(f"the whole training ended with exit code {code}: {training.folder}")
        root = newest_run(training.output)
        assert root is not None
        self.whole = root
        self.start_up = (root / "config.yaml").stat().st_mtime - started
        seconds = time.time() - started
        self.patience = 60 + 10 * seconds  # two at a time are slower than one
        print(f"whole training: {seconds:.0f} s, start-up {self.start_up:.0f} s")
        print(
            f"{'kill':>4}  {'aimed at':17} {'landed in':17} {'files read':>10}  detail", flush=True
        )

    def job(self) -> None:
        """Kills trainings, one after the other, until there is nothing left to aim at."""
        while self.aims and not self.wrong:
            with self._lock:
                self.trainings += 1
                number = self.trainings
            rng = random.Random(f"{self.seed} {number}")
            folder = self.folder / f"killed-{number}"
            training = Training(folder, self.processes, rng, self.start_up, self.patience)
            try:
                pending, problems = self._one(training)
            except Exception as error:  # noqa: BLE001 - what is wrong is the result of the test
                pending, problems = 0, [f"{type(error).__name__}: {error}"]
            with self._lock:
                self.survived += 0 if problems else pending
                self.wrong += [f"{folder}: {problem}" for problem in problems]

    def _one(self, training: Training) -> tuple[int, list[str]]:
        pending = 0
        while True:
            with self._lock:
                aim = self.aims.pop() if self.aims else None
            code, moment = training.run(aim)
            if code is not None:
                break
            pending += 1
            read = check_readable(training.output)
            with self._lock:
                self.kills += 1
                self.landed[moment.kind] += 1
                row = f"{self.kills:>4}  {aim:17} {moment.kind:17} {read:>10}  {moment.detail}"
                print(row, flush=True)
        if aim is not None:  # it was finished before the moment came
            with self._lock:
                self.aims.append(aim)
        if code:
            return pending, [f"a start ended with exit code {code}"]
        return pending, differences(self.whole, training.output)


def main() -> int:
    """Runs the test and prints its figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40, help="how often (default 40)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default 2)")
    parser.add_argument("--processes", type=int, default=1, help="of each training (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--folder", type=Path, help="where runs and logs go; default: temporary")
    arguments = parser.parse_args()
    if GLOBAL_BATCH % arguments.processes:
        parser.error(f"--processes must divide {GLOBAL_BATCH}")
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="kill-test-"))).absolute()
    print(f"logs and runs in {folder}", flush=True)
    started = time.time()
    aims = list(itertools.islice(itertools.cycle(AIMS), arguments.kills))
    random.Random(arguments.seed).shuffle(aims)
    test = Test(folder, arguments.processes, arguments.seed, aims)
    test.reference()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in [pool.submit(test.job) for _ in range(arguments.jobs)]:
            done.result()
    landed = ", ".join(f"{kind} {count}" for kind, count in sorted(test.landed.items()))
    print(f"landed in: {landed}")
    print("\n".join(test.wrong) or f"{test.trainings} trainings, each equal to the whole one")
    print(f"{(time.time() - started) / 60:.1f} minutes")
    print(f"kills survived / kills: {test.survived} / {test.kills}")
    return 1 if test.wrong or test.survived < test.kills else 0


if __name__ == "__main__":
    sys.exit(main())
