"""Where the numbers of a training go beside its CSV tables: TensorBoard always, others if named.

Nothing leaves the machine unless ``run.trackers`` names a tracker, and even then it writes into the
run directory, until the tracker's own environment variable (``WANDB_MODE=online``,
``MLFLOW_TRACKING_URI``) says otherwise. What a tracker gets: numbers by name and step, the name of
the run directory, and the configuration without anything that may be a path (`shareable`). No
image, no caption, no image id.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lavis_msmedcap.common.distributed import gather_objects, is_main_process
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners.event_files import EventFiles, finite_numbers
from lavis_msmedcap.runners.run_directory import RunDirectory

logger = logging.getLogger(__name__)

# name in run.trackers -> module of this package, and what it needs: (module, distribution)
TRACKERS = {
    "wandb": ("lavis_msmedcap.runners.wandb_tracker", ("wandb", "wandb")),
    "mlflow": ("lavis_msmedcap.runners.mlflow_tracker", ("mlflow", "mlflow-skinny")),
}
PRIVATE_KEYS = frozenset(
    {
        "build_info",
        "output_dir",
        "dist_url",
        "resume",
        "stage1",
        "finetuned",
        "weights",
        "tokenizer",
    }
)
# also the name of a file anywhere: whatever ends in a dot and a few letters may be one
PATH = re.compile(r"[/\\~]|\.\w{1,12}$")


class Tracker(Protocol):
    """Takes the numbers of a training; `EventFiles` is one."""

    def write(self, group: str, step: int, numbers: Mapping[str, object]) -> None:
        """Takes a row: ``<group>/<name>`` are its names, ``step`` is the optimizer step."""

    def close(self, complete: bool = True) -> None:
        """Ends the tracking of a training that is complete or not."""


class Trackers:
    """All trackers of a run as one.

    Args:
        events: The TensorBoard files, on the process that writes files.
        others: Trackers by name. One that fails is told and left out: the training goes on, and its
            tables have all that is missing there.
    """

    def __init__(
        self, events: EventFiles | None = None, others: Mapping[str, Tracker] | None = None
    ) -> None:
        self._events = events
        self._others = dict(others or {})

    def write(self, group: str, step: int, numbers: Mapping[str, object]) -> None:
        """Gives a row to all."""
        finite = finite_numbers(numbers)
        if self._events is not None:
            self._events.write(group, step, finite)
        for name, tracker in list(self._others.items()):
            try:
                tracker.write(group, step, finite)
            except Exception:  # whatever a library raises must not cost the training
                logger.exception("%s failed at step %d and gets nothing more", name, step)
                del self._others[name]

    def close(self, complete: bool = True) -> None:
        """Closes all."""
        if self._events is not None:
            self._events.close(complete)
        for name, tracker in self._others.items():
            try:
                tracker.close(complete)
            except Exception:
                logger.exception("%s could not be closed", name)
        self._events, self._others = None, {}


def missing_trackers(names: Sequence[str]) -> list[str]:
    """Says which of the named trackers have no package here, each with the command that helps."""
    return [
        f"run.trackers names {name}, but its package is not installed: pip install {distribution}"
        for name, (_, (module, distribution)) in TRACKERS.items()
        if name in names and importlib.util.find_spec(module) is None
    ]


def open_trackers(
    names: Sequence[str], directory: RunDirectory, config: Mapping[str, Any], done: int
) -> Trackers:
    """Opens the trackers of a training on the main process; every rank has to call it.

    Args:
        names: Of ``TRACKERS``.
        directory: The run directory.
        config: Resolved configuration as plain values.
        done: Optimizer steps of an interrupted run.

    Returns:
        Trackers that write on the main process and do nothing on others.

    Raises:
        ConfigError: On every rank, if one of them does not start.
    """
    others: dict[str, Tracker] = {}
    problems: list[str] = []
    for name in names if is_main_process() else ():
        module = importlib.import_module(TRACKERS[name][0])
        try:
            others[name] = module.open_tracker(directory.root, shareable(config))
        except Exception as error:  # noqa: BLE001 - a library that does not start, told as a setting
            problems.append(
                f"run.trackers: {name} does not start ({type(error).__name__}: {error}); see to "
                "its environment variables, or take it out"
            )
    problems = gather_objects(problems)
    if problems:
        Trackers(None, others).close(complete=False)
        raise ConfigError(problems)
    return Trackers(EventFiles(directory.events, done) if is_main_process() else None, others)


def shareable(config: Any) -> Any:
    """Returns a configuration without what may name a place: files, folders, addresses.

    Left out are the keys of ``PRIVATE_KEYS`` with all below them, every key that looks like a path,
    and every text that looks like one or is one.
    """
    if isinstance(config, Mapping):
        told = {str(k): v for k, v in config.items() if k not in PRIVATE_KEYS}
        kept = {k: shareable(v) for k, v in told.items() if not PATH.search(k)}
        return {key: value for key, value in kept.items() if value is not None}
    if isinstance(config, (list, tuple)):
        return [item for item in map(shareable, config) if item is not None]
    if isinstance(config, str):
        return None if _is_place(config) else config
    if isinstance(config, float) and not math.isfinite(config):
        return str(config)
    return config if isinstance(config, (bool, int, float)) else None


def _is_place(text: str) -> bool:
    try:
        return bool(PATH.search(text)) or (bool(text) and Path(text).exists())
    except (OSError, ValueError):  # too long for a name
        return False
