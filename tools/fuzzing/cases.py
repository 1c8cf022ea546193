"""Runs cases and keeps what they showed."""

from __future__ import annotations

import faulthandler
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from fuzzing.captions import caption_target
from fuzzing.damage import damaged
from fuzzing.images import image_targets
from fuzzing.readers import reader_targets
from fuzzing.tables import table_targets
from fuzzing.target import Target
from lavis_msmedcap.common.errors import DataError

LIMIT = 5.0  # seconds a case may take
HARD_LIMIT = 60.0  # after so many the interpreter is ended, with the place where it hangs
WARM_UP = 200  # cases before memory is looked at


@dataclass
class Result:
    """What a run of cases showed.

    Attributes:
        outcomes: Cases by target and outcome: "read", or the error's class.
        refused: Targets that refuse their own files undamaged, so that little is tested by them.
        failures: Cases that did not pass, by what happened and where; each as what to type to see
            it again, and what was raised.
        slowest: Seconds, target and number of the slowest case.
        growth: Growth of the peak memory after the first cases, in MiB.
        seconds: Duration of all.
    """

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    failures: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    slowest: tuple[float, str, int] = (0.0, "", 0)
    growth: float = 0.0
    seconds: float = 0.0

    def fail(self, what: str, again: str, trace: str = "") -> None:
        """Notes a case that did not pass."""
        self.failures.setdefault(what, []).append((again, trace))

    @property
    def cases(self) -> int:
        """Number of cases."""
        return sum(sum(counts.values()) for counts in self.outcomes.values())


def targets() -> list[Target]:
    """Returns everything that is put under test; a new reader is one more entry."""
    return [*image_targets(), *reader_targets(), *table_targets(), caption_target()]


def run(
    cases: int,
    seed: int = 0,
    first: int = 0,
    only: Sequence[str] = (),
    *,
    messages: TextIO | None = None,
) -> Result:
    """Runs cases, spread evenly over the targets.

    Args:
        cases: How many.
        seed: Of all damage.
        first: Number of the first case of each target.
        only: Names of targets; all if empty.
        messages: Where to tell how far it is, and where it hangs; by default nowhere and stderr.
    """
    chosen = [target for target in targets() if not only or target.name in only]
    if not chosen:
        raise SystemExit(f"no target is called {', '.join(only)}")
    result = Result(outcomes={target.name: Counter() for target in chosen})
    started, before = time.perf_counter(), 0
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as folder:
        roots = {target.name: Path(folder) / target.name for target in chosen}
        for target in chosen:
            for name, content in target.files.items():
                _write(roots[target.name] / name, content)
            try:
                target.read(roots[target.name])
            except DataError:
                result.refused.append(target.name)
        for number in range(cases):
            target = chosen[number % len(chosen)]
            run_case(
                target, roots[target.name], seed, first + number // len(chosen), result, messages
            )
            if number == min(WARM_UP, cases - 1):
                before = _peak()
            if messages and number % 10_000 == 9_999:
                print(f"{number + 1:,} cases", file=messages, flush=True)
    result.growth = (_peak() - before) / 1024
    result.seconds = time.perf_counter() - started
    return result


def run_case(
    target: Target, root: Path, seed: int, number: int, result: Result, messages: TextIO | None
) -> None:
    """Damages a file of a target, reads, and puts the file right again."""
    rng = random.Random(f"{seed}/{target.name}/{number}")
    name = rng.choice([name for name, content in target.files.items() if content])
    damage = target.damage if target.damage and rng.random() < 0.5 else damaged
    _write(root / name, damage(target.files[name], rng))
    again = f"--only {target.name} --seed {seed} --first {number} --cases 1"
    faulthandler.dump_traceback_later(HARD_LIMIT, exit=True, file=messages or sys.__stderr__)
    started = time.perf_counter()
    try:
        target.read(root)
        outcome = "read"
    except DataError as error:
        outcome = type(error).__name__
    except Exception as error:  # noqa: BLE001 - to find these is what this is for
        outcome = type(error).__name__
        result.fail(f"{outcome} in {_own_place(error)}", again, traceback.format_exc(limit=-4))
    seconds = time.perf_counter() - started
    faulthandler.cancel_dump_traceback_later()
    if seconds > LIMIT:
        result.fail(f"{target.name} took more than {LIMIT} s", again, f"{seconds:.1f} s")
    result.slowest = max(result.slowest, (seconds, target.name, number))
    result.outcomes[target.name][outcome] += 1
    _write(root / name, target.files[name])


def _own_place(error: Exception) -> str:
    """Returns the innermost line of this repository in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    ours = [frame for frame in own if "lavis_msmedcap" in frame.filename] or own
    return f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _peak() -> int:
    """Returns the peak memory of this process in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
