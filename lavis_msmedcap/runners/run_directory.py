"""The folder of one run: made once, never shared with another run, the same on all ranks."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from lavis_msmedcap.common.distributed import gather_objects, is_main_process
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.paths import resolve_path

ATTEMPTS = 100


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
    def log(self) -> Path:
        """The log as text."""
        return self.root / "log.txt"

    @property
    def metrics(self) -> Path:
        """Training losses, one row per log step."""
        return self.root / "metrics.csv"

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


def create_run_directory(output_dir: str) -> RunDirectory:
    """Makes a new run directory on the main process and tells every rank its place.

    Args:
        output_dir: As written in the configuration.

    Raises:
        ConfigError: On every rank, if the folder cannot be made.
    """
    parent = resolve_path(output_dir)
    found: list[tuple[str, str]] = []
    if is_main_process():
        try:
            found = [(str(_make_unique(parent)), "")]
        except OSError as error:
            found = [("", error.strerror or str(error))]
    root, reason = gather_objects(found)[0]
    if reason:
        raise ConfigError(
            [
                f"run.output_dir {output_dir!r} means {parent}, where no run directory can be "
                f"made ({reason}); name a folder that you may write to"
            ]
        )
    return RunDirectory(Path(root))


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


def _make_unique(parent: Path) -> Path:
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
