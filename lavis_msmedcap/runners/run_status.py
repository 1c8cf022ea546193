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
from typing import Any

from filelock import FileLock, Timeout

from lavis_msmedcap.common.whole_files import write_whole
from lavis_msmedcap.models.checkpoints import RUN_STATUS

logger = logging.getLogger(__name__)

STATUS, LOCK = RUN_STATUS, ".lock"
# what may change between an interruption and going on: it changes no weight, but by rounding
FREE_RUN_KEYS = frozenset(
    {
        "batch_size_eval",  # per process, as batch_size_train, which `fingerprint` multiplies
        "compile",
        "device",
        "dist_url",
        "distributed",
        "feature_cache_gib",
        "gpu",
        "keep_last",
        "log_freq",
        "num_workers",
        "output_dir",
        "rank",
        "report",
        "resume",
        "resume_ckpt_path",
        "save_every_minutes",
        "shard_llm",
        "trackers",
        "world_size",
    }
)


@dataclass
class RunStatus:
    """The content of ``status.json``.

    Attributes:
        fingerprint: Hash of the configuration, see `fingerprint`.
        validations: (epoch counted from 1, metric or None) of every validated epoch, in order.
        finished: Whether nothing is left to do.
    """

    fingerprint: str = ""
    validations: list[tuple[int, float | None]] = field(default_factory=list)
    finished: bool = False

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
        return RunStatus(str(content["fingerprint"]), validations, bool(content["finished"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fingerprint(config: Mapping[str, Any], global_batch: int) -> str:
    """Hashes what decides on the weights of a run.

    Args:
        config: Resolved configuration as plain values, with its ``run`` section.
        global_batch: Images of all processes per forward pass; how they are shared among processes
            may change between an interruption and going on.
    """
    run = {key: v for key, v in config.get("run", {}).items() if key not in FREE_RUN_KEYS}
    run["batch_size_train"] = global_batch
    text = json.dumps({**config, "run": run}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Lists the keys in which two configurations differ, as ``run.init_lr: 0.1 -> 0.2``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in sorted({*old, *new})
            if not (path == "run" and key in FREE_RUN_KEYS)
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def lock(root: Path) -> FileLock | None:
    """Takes the lock of a run directory for as long as the returned object lives.

    Returns:
        None if another process has it.
    """
    found = FileLock(str(root / LOCK))
    try:
        found.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:  # some network drives know no locks
        logger.warning(
            "%s cannot be locked (%s): see to it that no second run works in it",
            root,
            os.strerror(error.errno) if error.errno else error,
        )
    return found
