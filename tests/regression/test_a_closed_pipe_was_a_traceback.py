"""``msmedcap ... | head``: whoever reads has seen enough."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from lavis_msmedcap.train import guarded

def talk():
    for _ in range(100_000):
        print("a line of output")

sys.exit(guarded(talk))
"""
RAISES = """
import sys
from lavis_msmedcap.train import guarded

def fail():
    raise BrokenPipeError("of something else")

sys.exit(guarded(fail))
"""


def test_it_ends_without_a_word() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "a line of output\n"
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == ""


def test_another_broken_pipe_is_told() -> None:
    done = subprocess.run([sys.executable, "-c", RAISES], capture_output=True, text=True)
    assert done.returncode == 1
    assert "BrokenPipeError: of something else" in done.stderr
