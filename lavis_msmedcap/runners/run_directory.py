"""The folder of one run, never shared with another run, and what lies where in it."""

from __future__ import annotations

import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.paths import resolve_path

ATTEMPTS = 100
_OF_EPOCH = re.compile(r"checkpoint_epoch-\d+")


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

    def checkpoint_epoch(self, epoch: int) -> Path:
        """Trainable parameters of another good epoch, see ``run.keep_best``."""
        return self.root / f"checkpoint_epoch-{epoch:03d}.safetensors"

    def checkpoints_of_epochs(self) -> list[Path]:
        """Returns those of `checkpoint_epoch` that there are."""
        found = self.root.glob("checkpoint_epoch-*.safetensors")
        return sorted(path for path in found if _OF_EPOCH.fullmatch(path.stem))


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


def make_unique(output_dir: str) -> Path:
    """Makes a run directory of a new name.

    Args:
        output_dir: Folder of run directories, as written in the configuration.

    Raises:
        ConfigError: If that cannot be done.
    """
    parent = resolve_path(output_dir)
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
