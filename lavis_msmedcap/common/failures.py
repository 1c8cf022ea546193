"""One of several processes fails: what it was is told once, by the first process if that is alive.

A process that fails leaves the reason in the store that the processes met in, gives up its
connections, which ends the exchange that the others wait in, and waits a while for the first
process to tell. A process whose exchange has ended looks there for the reason. A process that was
killed leaves none. One that was asked to stop leaves that, and the others stop too.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
import time
import traceback
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from lavis_msmedcap.common.errors import Interruption, MSMedCapError

LOOK_FOR_REASON = 3.0  # seconds for the others to say why an exchange has ended
WAIT_TO_BE_TOLD = 12.0  # seconds; torchrun kills 30 s after it has asked a process to end
_POLL = 0.05
_TOLD = "told"
# what gloo, NCCL and the store say when the other end of a connection is gone
_CONNECTION = re.compile(
    r"gloo[/\\]transport|NCCL|Connection (closed|reset|refused)|Broken pipe|Socket (closed|Timeout)"
)


class LostProcessError(MSMedCapError, RuntimeError):
    """Another process of the run has ended."""


def lost_connection(error: BaseException) -> bool:
    """Tells whether an error says no more than that another process is gone."""
    if not isinstance(error, RuntimeError) or isinstance(error, MSMedCapError):
        return False
    return isinstance(error, dist.DistError) or bool(_CONNECTION.search(str(error)))


class Failures:
    """The failures of the processes of one run.

    Args:
        store: The store that all processes can reach.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._store = PrefixStore("failures", store)
        self._rank = rank
        self._world_size = world_size

    def settle(self, error: BaseException) -> BaseException:
        """Ends the process group and returns the error to raise in this process.

        Args:
            error: What has ended the run in this process.

        Returns:
            The same error; in the place of one that says only that a connection was closed, a
            `LostProcessError` that knows more, or an `Interruption` if another process was asked to
            stop. Its ``told`` is True if the first process tells it.
        """
        lost = lost_connection(error)
        stopped = isinstance(error, KeyboardInterrupt)
        said = {"lost": lost, "stopped": stopped, "message": _line(error)}
        self._put(str(self._rank), said)
        _forget_frames(error)  # they hold the connections
        dist.destroy_process_group()
        if self._rank == 0:
            settled = self._explained(error, LOOK_FOR_REASON) if lost else error
            self._put(_TOLD, {})
            return settled
        told = self._wait_for(lambda: self._get(_TOLD) is not None, WAIT_TO_BE_TOLD)
        settled = self._explained(error, 0.0) if lost else error
        if isinstance(settled, MSMedCapError):
            settled.told = told
        return settled

    def _explained(self, error: BaseException, seconds: float) -> LostProcessError | Interruption:
        others = [rank for rank in range(self._world_size) if rank != self._rank]
        heard: dict[int, Any] = {}

        def reason_is_known() -> bool:
            heard.update({rank: said for rank in others if (said := self._get(str(rank)))})
            return any(not said["lost"] for said in heard.values())

        self._wait_for(reason_is_known, seconds)
        own = [(rank, said) for rank, said in heard.items() if not said["lost"]]
        left = getattr(error, "left", "")
        if own:
            rank, said = own[0]
            if said["stopped"]:
                who = f"the request came to process {rank} of {self._world_size} (rank {rank})"
                stop = Interruption("\n".join(filter(None, [who, left])), preempted=True)
                stop.__cause__ = error
                return stop
            message = f"process {rank} of {self._world_size} (rank {rank}): {said['message']}"
        else:
            silent = ", ".join(str(rank) for rank in others if rank not in heard) or "unknown"
            message = (
                f"a process of {self._world_size} has ended without a word (rank {silent}): it was "
                "killed, perhaps by the system for want of memory (dmesg), or its machine is gone"
            )
        settled = LostProcessError(message)
        settled.left = left
        settled.__cause__ = error
        return settled

    def _wait_for(self, met: Any, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not met():
            if time.monotonic() > end:
                return False
            time.sleep(_POLL)
        return True

    def _put(self, key: str, value: dict[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the store has ended with its process
            self._store.set(key, json.dumps(value))

    def _get(self, key: str) -> dict[str, Any] | None:
        with contextlib.suppress(RuntimeError):
            if self._store.check([key]):
                found: dict[str, Any] = json.loads(self._store.get(key))
                return found
        return None


def _line(error: BaseException) -> str:
    """Says an error as its reader would see it."""
    return str(error) if isinstance(error, MSMedCapError) else f"{type(error).__name__}: {error}"


def _forget_frames(error: BaseException | None) -> None:
    """Lets go of the local variables of what has ended; line numbers stay."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
