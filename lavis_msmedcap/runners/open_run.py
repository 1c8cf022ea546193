"""Where a run works: in a new directory, or in that of an unfinished run that it goes on with.

An unfinished run is the same run if all that decides on the weights is the same (`fingerprint`,
`JointBatches`). What differs is told, because a run that begins anew where its user expected it to
go on costs days.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import OmegaConf

from lavis_msmedcap.common.distributed import gather_objects, get_world_size, is_main_process
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.common.whole_files import remove_parts
from lavis_msmedcap.runners.run_directory import RunDirectory, make_unique
from lavis_msmedcap.runners.run_status import (
    STATUS,
    JointBatches,
    RunStatus,
    differences,
    fingerprint,
    lock,
    read_status,
)
from lavis_msmedcap.runners.settings import AUTO, OFF
from lavis_msmedcap.runners.training_state import StateStore

# the loader processes of a run that was killed may hold its lock until they notice
WAIT_FOR_LOCK = 15.0  # seconds
_SHOWN = 5  # differences

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenRun:
    """A run directory that this run works in.

    Attributes:
        directory: The folder.
        resumed: Whether the run goes on in it, instead of having made it.
        lock: Held while the run works in it; None on other ranks than the first.
    """

    directory: RunDirectory
    resumed: bool
    lock: FileLock | None = field(default=None, repr=False)


def open_run_directory(
    output_dir: str,
    resume: str | None = None,
    config: Mapping[str, Any] | None = None,
    batches: JointBatches | None = None,
) -> OpenRun:
    """Makes or takes up a run directory on the main process and tells every rank its place.

    Args:
        output_dir: Folder of run directories, as written in the configuration.
        resume: ``off`` makes a new one; ``auto`` takes up the newest unfinished run of the same
            configuration that no other process is working on, if there is one; anything else is
            the run directory to take up. None is for runs that leave no state: evaluations.
        config: Resolved configuration as plain values; ``run.resume_changed`` in it lets a run be
            taken up with another configuration.
        batches: Images of all processes per forward pass.

    Raises:
        ConfigError: On every rank, if the folder cannot be made or taken up.
    """
    found: list[tuple[str, bool, str]] = []
    lock_held = None
    if is_main_process():
        try:
            opener = _Opener(output_dir, config or {}, batches or JointBatches(1))
            root, resumed, lock_held = opener.open(resume)
            if resumed:
                for folder in (root, RunDirectory(root).states, RunDirectory(root).result):
                    remove_parts(folder)
            found = [(str(root), resumed, "")]
        except ConfigError as error:
            found = [("", False, error.problems[0])]
    root_text, resumed, problem = gather_objects(found)[0]
    if problem:
        raise ConfigError([problem])
    return OpenRun(RunDirectory(Path(root_text)), resumed, lock_held)


class _Opener:
    """Finds or makes the directory, on the main process."""

    def __init__(self, output_dir: str, config: Mapping[str, Any], batches: JointBatches) -> None:
        self._output_dir = output_dir
        self._config = config
        self._batches = batches
        self._mark = fingerprint(config)

    def open(self, resume: str | None) -> tuple[Path, bool, FileLock | None]:
        if resume is None:
            return make_unique(self._output_dir), False, None
        if resume not in (OFF, AUTO):
            root = resolve_path(resume)
            return root, True, self._take_up(root)
        for root, status in self._unfinished():
            if not self._is_this_run(status):
                self._tell_unlike(root, status, resume)
                continue
            held = self._lock(root) if resume == AUTO else lock(root)
            if held is None:
                logger.warning("another process is working in %s; this is a new run", root)
                continue
            if resume == AUTO:
                return root, True, held
            held.release()
            if _has_state(root):
                logger.info("an unfinished run like this is at %s; run.resume=auto goes on", root)
                break
        root = make_unique(self._output_dir)
        RunStatus(self._mark, self._batches).write(root)
        return root, False, lock(root)

    def _unfinished(self) -> Iterator[tuple[Path, RunStatus]]:
        """Yields the newest unfinished run, then all others like this one, newest first."""
        parent, newest = resolve_path(self._output_dir), True
        for status_file in sorted(parent.glob(f"*/{STATUS}"), reverse=True):
            status = read_status(status_file.parent)
            if status is None or status.finished:
                continue
            if newest or self._is_this_run(status):
                yield status_file.parent, status
            newest = False

    def _is_this_run(self, status: RunStatus) -> bool:
        return status.fingerprint == self._mark and status.batches == self._batches

    def _tell_unlike(self, root: Path, status: RunStatus, resume: str) -> None:
        """Says why the newest unfinished run is not the one to go on with."""
        if resume != AUTO or not _has_state(root):
            return
        changed = self._changes(root, status)
        if len(changed) > _SHOWN:  # somebody works on something else
            return
        logger.warning(
            "this is a new run: the unfinished one at %s had other settings (%s); to go on with it "
            "under these, set run.resume=%s run.resume_changed=true",
            root,
            "; ".join(changed),
            root,
        )

    def _changes(self, root: Path, status: RunStatus) -> list[str]:
        config = RunDirectory(root).config
        stored: Any = OmegaConf.to_container(OmegaConf.load(config)) if config.is_file() else {}
        changed = differences(stored, self._config)
        return changed + status.batches.differences(self._batches, get_world_size())

    def _take_up(self, root: Path) -> FileLock:
        """Locks a run directory that the user named.

        Raises:
            ConfigError: If it cannot be taken up with this configuration, saying what differs.
        """
        status = read_status(root)
        if status is not None and status.finished:
            raise ConfigError(
                [f"run.resume: the run in {root} is finished; to train anew, set run.resume=off"]
            )
        if status is None or not _has_state(root):
            raise ConfigError(
                [
                    f"run.resume: {root} holds no state of a training; name a run directory that "
                    "has status.json and resume/step-*.safetensors, or use auto"
                ]
            )
        same = self._is_this_run(status)
        changed = [] if same else self._changes(root, status)
        if not same and self._config.get("run", {}).get("resume_changed") is not True:
            raise ConfigError(
                [
                    f"run.resume: the run in {root} was started with another configuration "
                    f"({'; '.join(changed[:_SHOWN])}); go on with that one, or under this one with "
                    "run.resume_changed=true, or start anew with run.resume=off"
                ]
            )
        held = self._lock(root)
        if held is None:
            raise ConfigError(
                [f"run.resume: another process is working in {root}; wait for its end"]
            )
        if not same:
            self._change(root, status, changed)
        return held

    def _change(self, root: Path, status: RunStatus, changed: list[str]) -> None:
        """Makes this the configuration of a run; the one before is kept beside it."""
        logger.warning(
            "the run in %s goes on with other settings: %s; its result will not be that of one run "
            "of either configuration",
            root,
            "; ".join(changed) or "unknown ones",
        )
        directory = RunDirectory(root)
        if directory.config.is_file():
            newest = StateStore(directory.states).paths()[0].stem
            directory.config.replace(directory.config.with_name(f"config-until-{newest}.yaml"))
        status.fingerprint, status.batches = self._mark, self._batches
        status.write(root)

    @staticmethod
    def _lock(root: Path) -> FileLock | None:
        """Locks a run directory; waits a while for a process that is about to end."""
        held = lock(root)
        if held is None:
            logger.info("another process holds %s; waiting up to %.0f s", root, WAIT_FOR_LOCK)
            held = lock(root, WAIT_FOR_LOCK)
        return held


def _has_state(root: Path) -> bool:
    return bool(StateStore(RunDirectory(root).states).paths())
