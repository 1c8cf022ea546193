"""Requests to stop from outside, heard at once and followed after the running optimizer step.

A scheduler that needs the machine sends SIGTERM (Kubernetes, torchrun, Slurm) or a signal of the
user's choice (``sbatch --signal=USR1@120``); a person presses Ctrl-C. The training then finishes
its step, writes its state and leaves. A second Ctrl-C leaves at once. Who is leaving already does
not hear other requests. A process that torchrun has started also stops when torchrun is gone:
nobody would end it, and the same command would be started beside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from lavis_msmedcap.common.distributed import is_distributed
from lavis_msmedcap.common.errors import Preempted

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)


class StopRequest:
    """Whether somebody has asked this process to stop.

    Attributes:
        signal: The signal that asked, None if nobody has.
        finished: Whether all is done: a request is noted, and comes too late.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.finished = False
        self._patient = False
        self._agent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def asked(self) -> bool:
        """Tells whether somebody has asked, or torchrun has ended."""
        if self.signal is None and self._agent not in (None, os.getppid()):
            self.signal = signal.SIGTERM
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self, *, to_the_end: bool = False) -> Iterator[None]:
        """Takes the signals for the length of a ``with`` block, except those that are ignored.

        Outside the main thread, where Python allows no handlers, it does nothing.

        Args:
            to_the_end: Nothing follows on the block but the end of the process, which another
                request after the first is not to cut short: it would change the exit code.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._on_signal) for number in heard}
        try:
            yield
        except KeyboardInterrupt:
            if to_the_end:
                before |= dict.fromkeys(before.keys() - {signal.SIGINT}, signal.SIG_IGN)
            raise
        except Exception:
            if is_distributed() and signal.SIGTERM in before:
                # one process has failed, and torchrun asks the others to end: not before they have
                # told what happened
                before[signal.SIGTERM] = signal.SIG_IGN
            raise
        else:
            if to_the_end and self.finished:
                before |= dict.fromkeys(before.keys() - {signal.SIGINT}, signal.SIG_IGN)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Marks a part that looks at `signal` itself, at its next good moment to stop."""
        before, self._patient = self._patient, True
        try:
            yield
        finally:
            self._patient = before

    def leave(self) -> None:
        """Leaves as the signal asked.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
            Preempted: After another signal.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise Preempted

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        leaving = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        if leaving and number != signal.SIGINT:
            return
        again = self.signal is not None
        self.signal = signal.Signals(number)
        heeds = not self._patient and not self.finished
        if heeds or (again and number == signal.SIGINT):
            self.leave()
