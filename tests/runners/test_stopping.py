"""Requests to stop: who hears them, and who is leaving already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import Preempted
from lavis_msmedcap.runners.stopping import StopRequest


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """A process that a shell started in the background ignores Ctrl-C, tests included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ask(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_it_is_raised_at_once_or_noted(number: signal.Signals) -> None:
    request = StopRequest()
    with request.listening():
        with request.patient():
            ask(number)
        assert request.asked()
        assert request.signal == number
        with pytest.raises(KeyboardInterrupt) as raised:
            ask(number)
    assert isinstance(raised.value, Preempted) == (number != signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_who_is_leaving_does_not_hear_another_one(number: signal.Signals) -> None:
    cleaned: list[str] = []
    with pytest.raises(Preempted) as raised:
        leave(signal.SIGTERM, number, cleaned)
    assert cleaned == ["all"]
    assert raised.value.__context__ is None


def test_a_second_ctrl_c_is_heard_by_who_is_leaving() -> None:
    cleaned: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        leave(signal.SIGINT, signal.SIGINT, cleaned)
    assert cleaned == []


def leave(first: signal.Signals, second: signal.Signals, cleaned: list[str]) -> None:
    """Is asked, and asked again while it cleans up."""
    with StopRequest().listening():
        try:
            ask(first)
        finally:
            ask(second)
            cleaned.append("all")


def test_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with StopRequest().listening():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


PROGRAM = """
import os, signal, sys, time
from lavis_msmedcap.runners.stopping import StopRequest
try:
    with StopRequest().listening(to_the_end=True):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
except KeyboardInterrupt:
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
    sys.exit(75)
"""


def test_the_end_of_a_program_is_not_cut_short() -> None:
    assert subprocess.run([sys.executable, "-c", PROGRAM], timeout=60).returncode == 75


ORPHAN = """
import sys, time
from pathlib import Path
from lavis_msmedcap.runners.stopping import StopRequest
request = StopRequest()
Path(sys.argv[1]).touch()
while not request.asked():
    time.sleep(0.05)
Path(sys.argv[2]).write_text(request.signal.name)
"""


@pytest.mark.parametrize("agent", ["torchrun", "a shell"])
def test_a_process_that_torchrun_has_left_stops(tmp_path: Path, agent: str) -> None:
    """Its agent was killed (SIGUSR1 kills torchrun): nobody else would end it."""
    starts = tmp_path / "starts"
    ends = tmp_path / "ends"
    environment = {k: v for k, v in os.environ.items() if k != "TORCHELASTIC_RUN_ID"}
    if agent == "torchrun":
        environment["TORCHELASTIC_RUN_ID"] = "1"
    command = [sys.executable, "-c", ORPHAN, str(starts), str(ends)]
    starter = f"import subprocess; p = subprocess.Popen({command!r}); print(p.pid, flush=True); "
    parent = subprocess.Popen(
        [sys.executable, "-c", starter + "p.wait()"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        wait_for(starts)
        parent.kill()
        parent.wait()
        if agent == "torchrun":
            wait_for(ends)
            assert ends.read_text() == "SIGTERM"
        else:
            time.sleep(0.5)
            assert not ends.exists()
    finally:
        if agent != "torchrun":
            os.kill(child, signal.SIGKILL)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or (path.name == "ends" and not path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
