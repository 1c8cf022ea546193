"""Makes a phantom set once and finds it again: seeded, atomic, safe when two processes ask."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tqdm import tqdm

from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.phantom.writers.coco import write_coco
from lavis_msmedcap.phantom.writers.files import Fact, OnImage, to_json, write_lines
from lavis_msmedcap.phantom.writers.medicat import DATASET as MEDICAT
from lavis_msmedcap.phantom.writers.medicat import write_medicat
from lavis_msmedcap.phantom.writers.roco import DATASET as ROCO
from lavis_msmedcap.phantom.writers.roco import write_roco
from lavis_msmedcap.phantom.writers.rocov2 import DATASET as ROCOV2
from lavis_msmedcap.phantom.writers.rocov2 import write_rocov2
from lavis_msmedcap.phantom.writers.table import DATASET as TABLE
from lavis_msmedcap.phantom.writers.table import write_table

_LOGGER = logging.getLogger(__name__)

GENERATOR_VERSION = 1
MARKER = "phantom.json"
FACTS = "facts.jsonl"

_CACHE_VARIABLE = "LAVIS_MSMEDCAP_CACHE"
_WORK_PREFIX = ".making-"
_STALE_SECONDS = 24 * 3600
_LATER = ("rocov2_train", "rocov2_valid", "rocov2_test", "table")
_LIMITS = {
    "roco_train": 70_000,
    "roco_validation": 10_000,
    "roco_test": 10_000,
    "coco_train": 500_000,
}


@dataclass(frozen=True)
class PhantomSizes:
    """Number of images of each part.

    Growing a part never changes the images that it already had.

    Raises:
        ConfigError: For a negative number, or one that would collide with another part's ids.
    """

    coco_train: int = 2000
    coco_val: int = 100
    roco_train: int = 2000
    roco_validation: int = 150
    roco_test: int = 250
    medicat: int = 1600
    # by default none: these formats have a set of their own, so that they cost who uses them
    rocov2_train: int = 0
    rocov2_valid: int = 0
    rocov2_test: int = 0
    table: int = 0

    def __post_init__(self) -> None:
        problems = []
        for field in fields(self):
            value = getattr(self, field.name)
            limit = _LIMITS.get(field.name, 1_000_000)
            if not 0 <= value <= limit:
                problems.append(
                    f"PhantomSizes.{field.name} is {value}, expected a number from 0 to {limit}"
                )
        if problems:
            raise ConfigError(problems)

    @property
    def total(self) -> int:
        """Returns the number of images of all parts together."""
        return sum(asdict(self).values())


DEFAULT = PhantomSizes()
FURTHER = PhantomSizes(
    coco_train=0,
    coco_val=0,
    roco_train=0,
    roco_validation=0,
    roco_test=0,
    medicat=0,
    rocov2_train=240,
    rocov2_valid=30,
    rocov2_test=40,
    table=160,
)


def phantom_key(seed: int, sizes: PhantomSizes) -> str:
    """Returns the folder name of a set: generator version, seed and a hash of the sizes."""
    # parts without images are left out where they came later: they change no set of before
    counts = {k: v for k, v in asdict(sizes).items() if v or k not in _LATER}
    digest = hashlib.sha256(to_json(counts).encode()).hexdigest()[:8]
    return f"v{GENERATOR_VERSION}-seed{seed}-{digest}"


def ensure_phantom(
    root: Path | None = None, *, seed: int = 0, sizes: PhantomSizes = DEFAULT
) -> Path:
    """Makes a phantom set unless it is there, and returns its folder.

    The set is built in a folder of its own beside the target and moved into place when complete:
    another process sees all of it or nothing. If two processes build the same set, the second one
    throws its copy away.

    Args:
        root: Folder that holds the sets, one folder per generator version, seed and sizes.
            Default: ``phantom/`` in the cache folder of this package.
        seed: Seed of facts, pixels and captions, >= 0.
        sizes: Number of images of each part.

    Returns:
        The set's folder, with a folder per format (``coco/``, ``roco/``, ``medicat/``, ``rocov2/``,
        ``table/``), ``masks/``, ``facts.jsonl`` and ``phantom.json``.

    Raises:
        ConfigError: If the seed is negative.
        DataError: If the folder cannot be written.
    """
    if seed < 0:
        raise ConfigError([f"the phantom seed is {seed}, expected a number >= 0"])
    parent = Path(root) if root is not None else cache_root() / "phantom"
    target = parent / phantom_key(seed, sizes)
    if _is_complete(target):
        return target
    work = parent / f"{_WORK_PREFIX}{target.name}-{uuid.uuid4().hex[:12]}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(parent)
        work.mkdir()
        _build(work, seed, sizes)
        _move_into_place(work, target)
    except OSError as error:
        raise DataError(
            f"cannot write the phantom data set to {target}: {error.strerror or error}. Expected a "
            f"writable folder with about {_megabytes(sizes)} MB of space; set the environment "
            f"variable {_CACHE_VARIABLE} to such a folder."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _is_complete(target: Path) -> bool:
    """Says whether the marker, which is written last, is there and readable."""
    try:
        marker = json.loads((target / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(marker, dict) and marker.get("generator_version") == GENERATOR_VERSION


def _build(work: Path, seed: int, sizes: PhantomSizes) -> None:
    """Writes the whole set into the empty folder ``work``."""
    started = time.monotonic()
    on_terminal = sys.stderr.isatty()
    if not on_terminal:
        _LOGGER.info("making %d phantom images (seed %d), once", sizes.total, seed)
    for dataset in (ROCO, MEDICAT, ROCOV2, TABLE):
        (work / "masks" / dataset).mkdir(parents=True)
    with tqdm(
        total=sizes.total, desc="making phantom images", unit="image", disable=not on_terminal
    ) as bar:
        facts = _write_parts(work, seed, sizes, bar.update)
    write_lines(work / FACTS, (to_json(fact) for fact in facts))
    marker = {
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "sizes": asdict(sizes),
        "images": len(facts),
        "images_with_mask": sum(fact["mask"] is not None for fact in facts),
    }
    (work / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    _LOGGER.debug("phantom images made in %.1f s", time.monotonic() - started)


def _write_parts(work: Path, seed: int, sizes: PhantomSizes, on_image: OnImage) -> list[Fact]:
    return [
        *write_coco(work, seed, "train", sizes.coco_train, on_image),
        *write_coco(work, seed, "val", sizes.coco_val, on_image),
        *write_roco(work, seed, "train", sizes.roco_train, on_image),
        *write_roco(work, seed, "val", sizes.roco_validation, on_image),
        *write_roco(work, seed, "test", sizes.roco_test, on_image),
        *write_medicat(work, seed, sizes.medicat, on_image),
        *_write_further(work, seed, sizes, on_image),
    ]


def _write_further(work: Path, seed: int, sizes: PhantomSizes, on_image: OnImage) -> list[Fact]:
    """Writes the formats of `FURTHER`, those that have images."""
    counts = {"train": sizes.rocov2_train, "val": sizes.rocov2_valid, "test": sizes.rocov2_test}
    facts = [
        fact
        for split, count in counts.items()
        if count
        for fact in write_rocov2(work, seed, split, count, on_image)
    ]
    return facts + (write_table(work, seed, sizes.table, on_image) if sizes.table else [])


def _move_into_place(work: Path, target: Path) -> None:
    """Renames ``work`` to ``target``; keeps the set of another process that was faster."""
    try:
        work.replace(target)
        return
    except OSError:
        if _is_complete(target):
            return
        if not target.is_dir():
            raise
    # a folder without its marker is a set that somebody damaged: put it aside, then try once more
    broken = target.with_name(f"{_WORK_PREFIX}broken-{uuid.uuid4().hex[:12]}")
    target.replace(broken)
    work.replace(target)
    shutil.rmtree(broken, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    """Removes what processes left behind that were killed while building, a day ago or more."""
    for folder in parent.glob(f"{_WORK_PREFIX}*"):
        try:
            age = time.time() - folder.stat().st_mtime
        except OSError:
            continue
        if age > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _megabytes(sizes: PhantomSizes) -> int:
    return max(1, round(sizes.total * 0.025))
