"""The folder of one run: never shared with another run, the same on all ranks, taken up again."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import OmegaConf

from lavis_msmedcap.common.distributed import gather_objects, is_main_process
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.common.whole_files import remove_parts
from lavis_msmedcap.runners.run_status import (
    STATUS,
    RunStatus,
    differences,
    fingerprint,
    lock,
    read_status,
)
from lavis_msmedcap.runners.settings import AUTO, OFF
from lavis_msmedcap.runners.training_state import StateStore

ATTEMPTS = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunDirectory:
    """Where the files of one run are.

    Attributes:
        root: ``<output_dir>/<YYYYmmdd-HHMMSS>-<6 hex>``.
    """

    root: Path

    @property
    def result(self) -> Path:
        """Folder of predictions and scores."""
        return self.root / "result"

    @property
    def config(self) -> Path:
        """The configuration that the run was started with, all defaults and options applied."""
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, git revision, machine and command."""
        return self.root / "environment.json"

    def log(self, rank: int = 0) -> Path:
        """The log as text: all of the first rank, warnings and errors of another one."""
        return self.root / (f"log-rank{rank}.txt" if rank else "log.txt")

    @property
    def states(self) -> Path:
        """Folder of what a run needs to be taken up again."""
        return self.root / "resume"

    @property
    def metrics(self) -> Path:
        """Training losses, one row per log step."""
        return self.root / "metrics.csv"

    @property
    def events(self) -> Path:
        """TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def validation(self) -> Path:
        """Validation results, one row per epoch and split."""
        return self.root / "validation.csv"

    @property
    def data_summary(self) -> Path:
        """What the data were: entries kept and dropped, captions changed, images skipped."""
        return self.root / "data_summary.json"

    @property
    def checkpoint_last(self) -> Path:
        """Trainable parameters after the last finished epoch."""
        return self.root / "checkpoint_last.safetensors"

    @property
    def checkpoint_best(self) -> Path:
        """Trainable parameters of the epoch with the best validation metric."""
        return self.root / "checkpoint_best.safetensors"


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
    batch: int = 1,
) -> OpenRun:
    """Makes or takes up a run directory on the main process and tells every rank its place.

    Args:
        output_dir: Folder of run directories, as written in the configuration.
        resume: ``off`` makes a new one; ``auto`` takes up the newest unfinished run of the same
            configuration that no other process is working on, if there is one; anything else is
            the run directory to take up. None is for runs that leave no state: evaluations.
        config: Resolved configuration as plain values.
        batch: Images of all processes per forward pass.

    Raises:
        ConfigError: On every rank, if the folder cannot be made or taken up.
    """
    found: list[tuple[str, bool, str]] = []
    lock_held = None
    if is_main_process():
        try:
            root, resumed, lock_held = _open(output_dir, resume, config or {}, batch)
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


def _open(
    output_dir: str, resume: str | None, config: Mapping[str, Any], batch: int
) -> tuple[Path, bool, FileLock | None]:
    parent = resolve_path(output_dir)
    if resume is None:
        return _make_unique(output_dir, parent), False, None
    mark = fingerprint(config, batch)
    if resume not in (OFF, AUTO):
        root = resolve_path(resume)
        return root, True, _take_up(root, config, mark)
    for root in _unfinished(parent, mark):
        held = lock(root)
        if held is None:  # another process is at it
            continue
        if resume == AUTO:
            return root, True, held
        held.release()
        if _has_state(root):
            logger.info("an unfinished run like this is at %s; run.resume=auto goes on", root)
            break
    root = _make_unique(output_dir, parent)
    RunStatus(mark).write(root)
    return root, False, lock(root)


def _unfinished(parent: Path, mark: str) -> list[Path]:
    """Returns the unfinished runs of a configuration, newest first."""
    found = []
    for status_file in sorted(parent.glob(f"*/{STATUS}"), reverse=True):
        status = read_status(status_file.parent)
        if status is not None and status.fingerprint == mark and not status.finished:
            found.append(status_file.parent)
    return found


def _has_state(root: Path) -> bool:
    return bool(StateStore(RunDirectory(root).states).paths())


def _take_up(root: Path, config: Mapping[str, Any], mark: str) -> FileLock:
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
                f"run.resume: {root} holds no state of a training; name a run directory that has "
                "status.json and resume/step-*.safetensors, or use auto"
            ]
        )
    if status.fingerprint != mark:
        stored = OmegaConf.to_container(OmegaConf.load(RunDirectory(root).config))
        changed = differences(stored, config) or ["the number of processes times batch_size_train"]
        raise ConfigError(
            [
                f"run.resume: the run in {root} was started with another configuration "
                f"({'; '.join(changed[:5])}); go on with that one, or start anew with "
                "run.resume=off"
            ]
        )
    held = lock(root)
    if held is None:
        raise ConfigError([f"run.resume: another process is working in {root}; wait for its end"])
    return held


def obstacle(output_dir: str) -> str | None:
    """Says why no run directory can be made, without making anything; None if nothing is in sight.

    Args:
        output_dir: As written in the configuration.
    """
    place = resolve_path(output_dir)
    try:
        nearest = next(path for path in (place, *place.parents) if path.exists())
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        return getattr(error, "strerror", None) or str(error)
    if not nearest.is_dir():
        return f"{nearest} is a file" if nearest.is_file() else f"{nearest} is no folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} may not be written to"
    return None


def _make_unique(output_dir: str, parent: Path) -> Path:
    """Makes a run directory of a new name.

    Raises:
        ConfigError: If that cannot be done.
    """
    try:
        return _make_folders(parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            [
                f"run.output_dir {output_dir!r} means {parent}, where no run directory can be "
                f"made ({reason}); name a folder that you may write to"
            ]
        ) from error


def _make_folders(parent: Path) -> Path:
    """Makes ``<parent>/<time>-<hex>``; `mkdir` itself decides between two runs of one second."""
    for _ in range(ATTEMPTS):
        # `secrets` and not `random`: two runs with one seed must differ
        root = parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        try:
            root.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                raise
            continue
        (root / "result").mkdir()
        return root
    raise FileExistsError(f"{ATTEMPTS} names in a row were taken below {parent}")
