"""What a run directory says about its run: which configuration, how it was validated, whether done.

`status.json` is what tells an unfinished run that can be taken up from a finished one. The lock
beside it tells both from a run that another process is working on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from lavis_msmedcap.common.whole_files import write_whole
from lavis_msmedcap.models.checkpoints import RUN_STATUS

logger = logging.getLogger(__name__)

STATUS, LOCK = RUN_STATUS, ".lock"
# what may change between an interruption and going on: it changes no weight, but by rounding
FREE_RUN_KEYS = frozenset(
    {
        # per process: what counts is how many there are on all of them, see `JointBatches`
        "batch_size_eval",
        "batch_size_train",
        "device",
        "dist_url",
        "distributed",
        "feature_cache_gib",
        "gpu",
        "keep_best",
        "keep_last",
        "log_freq",
        "num_workers",
        "output_dir",
        "rank",
        "report",
        "resume",
        "resume_changed",
        "resume_ckpt_path",
        "save_every_minutes",
        "shard_llm",
        "trackers",
        "world_size",
    }
)
# when a run gives up, which it has not
FREE_DATASET_KEYS = frozenset({"max_bad", "on_bad"})


class JointBatches(NamedTuple):
    """Images of all processes per forward pass; how they are shared among processes may change.

    Attributes:
        train: In training.
        evaluation: In validations whose losses compare the images of a batch, which is easier in a
            small one; None where it does not matter.
    """

    train: int = 0
    evaluation: int | None = None

    def differences(self, other: JointBatches, world_size: int) -> list[str]:
        """Says how another one differs, and what would make it the same.

        Args:
            other: Of a run of today.
            world_size: Its number of processes.
        """
        keys = ("batch_size_train", "batch_size_eval")
        return [
            f"images of all processes per batch: {mine} -> {theirs}, run.{key}="
            f"{mine // world_size} on {world_size} process(es) makes them the same"
            if mine % world_size == 0
            else f"images of all processes per batch: {mine} -> {theirs}, run.{key}"
            for key, mine, theirs in zip(keys, self, other)
            if mine is not None and mine != theirs
        ]


@dataclass
class RunStatus:
    """The content of ``status.json``.

    Attributes:
        fingerprint: Hash of the configuration, see `fingerprint`.
        batches: Images per forward pass.
        validations: (epoch counted from 1, metric or None) of every validated epoch, in order.
        finished: Whether nothing is left to do.
        origin: The trained weights that the run has started from; empty if it has from none.
    """

    fingerprint: str = ""
    batches: JointBatches = field(default_factory=JointBatches)
    validations: list[tuple[int, float | None]] = field(default_factory=list)
    finished: bool = False
    origin: str = ""

    @property
    def validated(self) -> int:
        """The last epoch that was validated, 0 if none."""
        return max((epoch for epoch, _ in self.validations), default=0)

    def forget_after(self, epoch: int) -> None:
        """Drops validations of epochs that the training has to do again."""
        self.validations = [entry for entry in self.validations if entry[0] <= epoch]

    def write(self, root: Path) -> None:
        """Writes the file in one step."""
        write_whole(root / STATUS, [json.dumps(asdict(self), indent=1), "\n"])


def read_status(root: Path) -> RunStatus | None:
    """Reads the status of a run directory; None if it has none that can be read."""
    try:
        content = json.loads((root / STATUS).read_text(encoding="utf-8"))
        validations = [(int(epoch), metric) for epoch, metric in content["validations"]]
        return RunStatus(
            str(content["fingerprint"]),
            JointBatches(*content.get("batches", ())),
            validations,
            bool(content["finished"]),
            str(content.get("origin", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hashes what decides on the weights of a run, but for the batches (`JointBatches`).

    Args:
        config: Resolved configuration as plain values, with its ``run`` section.
    """
    counted = _without_free_keys(config)
    text = json.dumps(counted, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differences(old: Any, new: Any) -> list[str]:
    """Lists the keys in which two configurations differ, as ``run.init_lr: 0.1 -> 0.2``."""
    return _differences(_without_free_keys(old), _without_free_keys(new), "")


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in sorted({*old, *new})
            for line in _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def _without_free_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    counted = dict(config)
    if isinstance(config.get("run"), Mapping):
        counted["run"] = _without(config["run"], FREE_RUN_KEYS)
    if isinstance(config.get("datasets"), Mapping):
        counted["datasets"] = {
            name: _without(section, FREE_DATASET_KEYS) if isinstance(section, Mapping) else section
            for name, section in config["datasets"].items()
        }
    return counted


def _without(section: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}


def lock(root: Path, seconds: float = 0.0) -> FileLock | None:
    """Takes the lock of a run directory for as long as the returned object lives.

    Args:
        root: The run directory.
        seconds: How long to wait for it.

    Returns:
        None if another process has it.
    """
    found = FileLock(str(root / LOCK))
    try:
        found.acquire(timeout=seconds)
    except Timeout:
        return None
    except OSError as error:  # some network drives know no locks
        logger.warning(
            "%s cannot be locked (%s): see to it that no second run works in it",
            root,
            os.strerror(error.errno) if error.errno else error,
        )
    return found
