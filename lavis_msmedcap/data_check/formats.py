"""Which format a folder or file is in, and its records: what a check does without a configuration.

A format is one entry of ``FORMATS``: its name, what it looks like, and how it is read. The first
one that a place looks like is taken, so the most particular ones come first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lavis_msmedcap.common.config_check import nearest
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.data_check.manifest import is_manifest, read_manifest
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.files import SPLIT_WORDS
from lavis_msmedcap.datasets.readers.medicat import find_jsonl, read_medicat
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.roco import KINDS, read_roco
from lavis_msmedcap.datasets.readers.shard_places import find_shards
from lavis_msmedcap.datasets.readers.shards import read_shards
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord

_SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|valid|validation|dev|test)(?![a-z])", re.IGNORECASE)
_SPLIT_OF = {"valid": "val", "validation": "val", "dev": "val"}
_JSON_START = 4096  # characters

Reader = Callable[[Path, str, ReadReport], Iterator[MedCapRecord]]


@dataclass(frozen=True)
class Format:
    """A way in which data sets lie on disk.

    Attributes:
        name: What ``--format`` takes.
        what: What it is, for people.
        looks_like: Whether a place seems to be of this format; looks, but reads little.
        read: Records of a place, given the name that they carry as their source and where to count.
    """

    name: str
    what: str
    looks_like: Callable[[Path], bool]
    read: Reader


def read_place(
    place: Path, report: ReadReport, name: str | None = None
) -> tuple[Format, list[MedCapRecord]]:
    """Reads a folder or file in whatever format it is in.

    Args:
        place: Folder or file.
        report: Where to count; its name becomes the records' source.
        name: Format to take instead of looking.

    Returns:
        The format and the records.

    Raises:
        DataError: If there is nothing at the place, it looks like no format, or it cannot be read.
    """
    if not place.exists():
        raise DataError(f"{place} does not exist; name a folder, a table or a run configuration")
    chosen = _chosen(name) if name else _detected(place)
    records = list(chosen.read(place, report.name, report))
    if not records:
        raise DataError(f"{place}, read as {chosen.what}, has no image ({report.summary()})")
    return chosen, records


def _chosen(name: str) -> Format:
    if name not in BY_NAME:
        near = nearest(name, BY_NAME)
        hint = f"did you mean {near}?" if near else f"known: {', '.join(BY_NAME)}"
        raise DataError(f"--format {name} is unknown; {hint}")
    return BY_NAME[name]


def _detected(place: Path) -> Format:
    for candidate in FORMATS:
        if candidate.looks_like(place):
            return candidate
    known = "; ".join(f"{f.name}: {f.what}" for f in FORMATS)
    raise DataError(f"{place} looks like no known format ({known}); set --format if it is one")


# --- ROCO ----------------------------------------------------------------------------------------


def _roco_splits(root: Path) -> dict[str, list[str]]:
    """Returns the kinds of figures that each split of a tree has captions for."""
    splits: dict[str, list[str]] = {}
    for split, names in SPLIT_WORDS.items():
        for folder in (base / name for base in (root / "data", root) for name in names):
            kinds = [kind for kind in KINDS if (folder / kind / "captions.txt").is_file()]
            if kinds:
                splits.setdefault(split, kinds)
    return splits


def _read_roco(root: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for split, kinds in _roco_splits(root).items():
        yield from read_roco(root, split, kinds, source=source, report=report)


# --- MedICaT -------------------------------------------------------------------------------------


def _is_medicat(place: Path) -> bool:
    try:
        return (find_jsonl(place, "").parent / "figures").is_dir()
    except DataError:
        return False


def _read_medicat(place: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    report.notes["records without a split of their own, taken as train"] = 0
    for record in read_medicat(place, source=source, report=report):
        report.notes["records without a split of their own, taken as train"] += 1
        yield record


# --- COCO ----------------------------------------------------------------------------------------


def _coco_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place] if place.suffix == ".json" and _begins_as_coco(place) else []
    folders = (place / "annotations", place)
    found = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    return [path for path in found if "caption" in path.name or "karpathy" in path.name]


def _begins_as_coco(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        start = file.read(_JSON_START).lstrip()
    return start.startswith(("[", "{")) and ('"caption"' in start or '"images"' in start)


def _read_coco(place: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for file in _coco_files(place):
        root = place if place.is_dir() else _image_root(file)
        yield from read_coco(file, root, split_in_name(file.name), source=source, report=report)


def _image_root(file: Path) -> Path:
    return file.parent.parent if file.parent.name == "annotations" else file.parent


def split_in_name(name: str) -> str:
    """Returns the split that a file name tells, as ``captions_val2014.json`` does, or "train"."""
    match = _SPLIT_WORD.search(re.sub(r"\d", " ", name).replace("_", " "))
    word = match[1].lower() if match else "train"
    split = _SPLIT_OF.get(word, word)
    return split if split in SPLITS else "train"


# --- shards --------------------------------------------------------------------------------------


def _is_shards(place: Path) -> bool:
    return place.suffix == ".tar" or (place.is_dir() and any(place.glob("*.tar")))


def _read_shards(place: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    shards = sorted(find_shards(str(place), source), key=lambda path: split_in_name(path.name))
    cache = cache_root() / "shard_indexes"
    for split, some in groupby(shards, key=lambda path: split_in_name(path.name)):
        yield from read_shards(
            list(some), split, cache=cache, source=source, domain=None, report=report
        )


FORMATS = (
    Format("manifest", "a clean manifest of --fix (jsonl)", is_manifest, read_manifest),
    Format("roco", "a ROCO v1 tree", lambda place: bool(_roco_splits(place)), _read_roco),
    Format("medicat", "a MedICaT release", _is_medicat, _read_medicat),
    Format("webdataset", "tar shards (WebDataset)", _is_shards, _read_shards),
    Format("coco", "COCO captions (json)", lambda place: bool(_coco_files(place)), _read_coco),
)
BY_NAME: Mapping[str, Format] = {entry.name: entry for entry in FORMATS}
