"""Feeds damaged files to the readers of data sets and images, and odd text to the caption code.

    python tools/fuzz_data.py --cases 100000
    python tools/fuzz_data.py --only png,roco --cases 1 --first 4711      # one case again

A case is a small valid tree of files of which one is damaged: bits turned, pieces cut out, doubled,
moved or cut off, odd pieces put in. It passes if the reader reads it or refuses it with one of our
own errors (`DataError`, of which `BadImageError` is one) within five seconds. Cases depend on seed,
target and number only.

To put a reader under test, add it to `targets` in `fuzzing/cases.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from fuzzing.cases import run


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[TextIO]:
    """Hides what C libraries write to stderr of every damaged file; yields the real stderr."""
    real = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with os.fdopen(os.dup(real), "w") as messages:
            yield messages
    finally:
        os.dup2(real, 2)
        os.close(real)
        os.close(nowhere)


def main() -> int:
    """Runs the command; returns 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of a target")
    parser.add_argument("--only", default="", help="targets, with commas between them")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow and pydicom warn of damage before they refuse it
    names = [name for name in options.only.split(",") if name]
    with _quiet_libraries() as messages:
        result = run(options.cases, options.seed, options.first, names, messages=messages)
    for name, counts in result.outcomes.items():
        told = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
        print(f"{name:18} {told}")
    if result.refused:
        print(f"refused undamaged: {', '.join(result.refused)}")
    for what, found in sorted(result.failures.items(), key=lambda item: -len(item[1])):
        print(f"FAILED {len(found):,} times: {what}\n  {found[0][0]}\n{found[0][1]}")
    count = sum(map(len, result.failures.values()))
    seconds, name, number = result.slowest
    print(
        f"{result.cases:,} cases in {result.seconds:.0f} s, {count:,} failures; "
        f"slowest {seconds:.2f} s ({name} {number}); peak memory grew by {result.growth:.0f} MiB"
    )
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
