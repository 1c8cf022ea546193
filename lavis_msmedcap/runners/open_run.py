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
from lavis_msmedcap.runners.changed_run import check_changes
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
        changed: Settings in which it was started otherwise, see `changed_run`.
        lock: Held while the run works in it; None on other ranks than the first.
    """

    directory: RunDirectory
    resumed: bool
    changed: tuple[str, ...] = ()
    lock: FileLock | None = field(default=None, repr=False)


def open_run_directory(
    output_dir: str,
    resume: str | None = None,
    config: Mapping[str, Any] | None = None,
    batches: JointBatches | None = None,
    origin: str = "",
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
        origin: The trained weights that the run starts from.

    Raises:
        ConfigError: On every rank, if the folder cannot be made or taken up.
    """
    found: list[tuple[OpenRun | None, str]] = []
    held = None
    if is_main_process():
        try:
            today = RunStatus(fingerprint(config or {}), batches or JointBatches(1), origin=origin)
            opener = _Opener(output_dir, config or {}, today)
            opened = opener.open(resume)
            held = opened.lock
            if opened.resumed:
                directory = opened.directory
                for folder in (directory.root, directory.states, directory.result):
                    remove_parts(folder)
            # a lock stays with its process
            found = [(OpenRun(opened.directory, opened.resumed, opened.changed), "")]
        except ConfigError as error:
            found = [(None, error.problems[0])]
    told, problem = gather_objects(found)[0]
    if told is None:
        raise ConfigError([problem])
    return OpenRun(told.directory, told.resumed, told.changed, held)


class _Opener:
    """Finds or makes the directory, on the main process."""

    def __init__(self, output_dir: str, config: Mapping[str, Any], today: RunStatus) -> None:
        self._output_dir = output_dir
        self._config = config
        self._today = today

    def open(self, resume: str | None) -> OpenRun:
        if resume is None:
            return OpenRun(RunDirectory(make_unique(self._output_dir)), resumed=False)
        if resume not in (OFF, AUTO):
            return self._take_up(resolve_path(resume))
        for root in self._candidates(resume):
            if resume == OFF:
                if _has_state(root) and not _is_held(root):
                    logger.info(
                        "an unfinished run like this is at %s; run.resume=auto goes on", root
                    )
                    break
                continue
            held = self._lock(root)
            if held is None:
                logger.warning("another process is working in %s; this is another run", root)
                continue
            status = read_status(root)  # it may have been finished meanwhile
            if status is not None and not status.finished and self._is_this_run(status):
                return OpenRun(RunDirectory(root), resumed=True, lock=held)
            held.release()
        return self._make()

    def _make(self) -> OpenRun:
        """Makes a directory; it is locked before it looks like a run that could be taken up."""
        root = make_unique(self._output_dir)
        held = lock(root)
        self._today.write(root)
        return OpenRun(RunDirectory(root), resumed=False, lock=held)

    def _candidates(self, resume: str) -> Iterator[Path]:
        """Yields the unfinished runs like this one: those with a state first, the newest first."""
        empty: list[Path] = []
        parent = resolve_path(self._output_dir)
        for number, file in enumerate(sorted(parent.glob(f"*/{STATUS}"), reverse=True)):
            root, status = file.parent, read_status(file.parent)
            tells = number == 0 and resume == AUTO
            if status is None:
                if tells:
                    logger.warning("%s cannot be read: its run is passed over", file)
            elif status.finished:
                continue
            elif not self._is_this_run(status):
                if tells:
                    self._tell_unlike(root, status)
            elif _has_state(root):
                yield root
            elif _has_lost_states(root, status):
                if resume == OFF:
                    continue
                logger.warning("%s has lost its states (resume/): it cannot be taken up", root)
            else:
                empty.append(root)
        yield from empty

    def _is_this_run(self, status: RunStatus) -> bool:
        today = self._today
        return (status.fingerprint, status.batches, status.origin) == (
            today.fingerprint,
            today.batches,
            today.origin,
        )

    def _tell_unlike(self, root: Path, status: RunStatus) -> None:
        """Says why the newest unfinished run is not the one to go on with."""
        changed = self._changes(root, status)
        # somebody works on something else, or on that run
        if len(changed) > _SHOWN or not _has_state(root) or _is_held(root):
            return
        logger.warning(
            "the unfinished run at %s had other settings (%s) and is passed over; to go on with it "
            "under these, set run.resume=%s run.resume_changed=true",
            root,
            "; ".join(changed),
            root,
        )

    def _changes(self, root: Path, status: RunStatus | None) -> list[str]:
        path = RunDirectory(root).config
        try:
            stored: Any = OmegaConf.to_container(OmegaConf.load(path))
            changed = differences(stored, self._config)
        except Exception:  # noqa: BLE001 - whatever a damaged file makes YAML or OmegaConf raise
            changed = [f"{path} cannot be read"]
        if status is None:
            return [f"{root / STATUS} cannot be read: what was validated is forgotten", *changed]
        if status.origin != self._today.origin:
            before, now = (one.origin or "none" for one in (status, self._today))
            changed.append(f"trained weights to start from: {before} -> {now}")
        return changed + status.batches.differences(self._today.batches, get_world_size())

    def _take_up(self, root: Path) -> OpenRun:
        """Locks a run directory that the user named.

        Raises:
            ConfigError: If it cannot be taken up with this configuration, saying what differs.
        """
        if not _has_state(root):
            status = read_status(root)
            if status is not None and status.finished:
                raise _is_finished(root)
            raise ConfigError(
                [
                    f"run.resume: {root} holds no state of a training; name a run directory that "
                    "has status.json and resume/step-*.safetensors, or use auto"
                ]
            )
        held = self._lock(root)
        if held is None:
            raise ConfigError(
                [f"run.resume: another process is working in {root}; wait for its end"]
            )
        try:
            changed = self._accepted_changes(root)
        except ConfigError:
            held.release()
            raise
        return OpenRun(RunDirectory(root), resumed=True, changed=tuple(changed), lock=held)

    def _accepted_changes(self, root: Path) -> list[str]:
        """Returns in what a run differs, if it may be taken up nevertheless."""
        status = read_status(root)
        if status is not None and status.finished:
            raise _is_finished(root)
        if status is not None and self._is_this_run(status):
            return []
        changed = self._changes(root, status) or ["unknown settings"]
        check_changes(root, changed)
        if self._config.get("run", {}).get("resume_changed") is not True:
            raise ConfigError(
                [
                    f"run.resume: the run in {root} was started with another configuration "
                    f"({'; '.join(changed[:_SHOWN])}); go on with that one, or under this one with "
                    "run.resume_changed=true, or start anew with run.resume=off"
                ]
            )
        return changed

    @staticmethod
    def _lock(root: Path) -> FileLock | None:
        """Locks a run directory; waits a while for a process that is about to end."""
        held = lock(root)
        if held is None:
            logger.info("another process holds %s; waiting up to %.0f s", root, WAIT_FOR_LOCK)
            held = lock(root, WAIT_FOR_LOCK)
        return held


def _is_finished(root: Path) -> ConfigError:
    return ConfigError(
        [f"run.resume: the run in {root} is finished; to train anew, set run.resume=off"]
    )


def _is_held(root: Path) -> bool:
    held = lock(root)
    if held is not None:
        held.release()
    return held is None


def _has_state(root: Path) -> bool:
    return bool(StateStore(RunDirectory(root).states).paths())


def _has_lost_states(root: Path, status: RunStatus) -> bool:
    """Tells a run whose states are gone from one that never had any."""
    directory = RunDirectory(root)
    return bool(status.validations) or directory.checkpoint_last.exists()
