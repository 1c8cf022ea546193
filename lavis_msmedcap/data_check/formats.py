"""Which format a folder or file is in, and its records: what a check does without a configuration.

A format is one entry of ``FORMATS``: its name, what it looks like, and how it is read. The first
one that a place looks like is taken, so the most particular ones come first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lavis_msmedcap.common.config_check import nearest
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.data_check.manifest import is_manifest, read_manifest
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.columns import choose_columns
from lavis_msmedcap.datasets.readers.files import SPLIT_WORDS, split_word
from lavis_msmedcap.datasets.readers.medicat import find_jsonl, read_medicat
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.roco import KINDS, read_roco
from lavis_msmedcap.datasets.readers.roco_kaggle import kaggle_csv, read_roco_kaggle
from lavis_msmedcap.datasets.readers.rocov2 import read_rocov2, rocov2_splits
from lavis_msmedcap.datasets.readers.selection import merge_repeated
from lavis_msmedcap.datasets.readers.shard_places import find_shards
from lavis_msmedcap.datasets.readers.shards import read_shards
from lavis_msmedcap.datasets.readers.table import has_split_column, read_table
from lavis_msmedcap.datasets.readers.table_files import TABLE_SUFFIXES, find_tables
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord

_JSON_START = 1 << 16  # characters
_NO_SPLIT = "records without a split of their own, taken as train"
_SPLIT_OF_NAME = "records whose split the file's name tells"

# of a place, given the records' source, where to count, and the folder of images if it takes one
Reader = Callable[..., Iterator[MedCapRecord]]


@dataclass(frozen=True)
class Format:
    """A way in which data sets lie on disk.

    Attributes:
        name: What ``--format`` takes.
        what: What it is, for people.
        looks_like: Whether a place seems to be of this format; looks, but reads little.
        read: Records of a place, given the name that they carry as their source and where to count;
            and the folder of the images, as ``images``, if ``takes_images``.
        takes_images: Whether the images may lie in any folder.
    """

    name: str
    what: str
    looks_like: Callable[[Path], bool]
    read: Reader
    takes_images: bool = False


def read_place(
    place: Path, report: ReadReport, name: str | None = None, images: Path | None = None
) -> tuple[Format, list[MedCapRecord]]:
    """Reads a folder or file in whatever format it is in.

    Args:
        place: Folder or file.
        report: Where to count; its name becomes the records' source.
        name: Format to take instead of looking.
        images: Folder that image names are relative to, instead of where the format has them.

    Returns:
        The format and the records.

    Raises:
        DataError: If there is nothing at the place, it looks like no format, or it cannot be read.
    """
    if not place.exists():
        raise DataError(f"{place} does not exist; name a folder, a table or a run configuration")
    chosen = _chosen(name) if name else _detected(place)
    if images is not None and not chosen.takes_images:
        takers = ", ".join(entry.name for entry in FORMATS if entry.takes_images)
        raise DataError(
            f"--images: {place} is read as {chosen.what}, which says where its images are; it is "
            f"for the formats {takers}"
        )
    where = {} if images is None else {"images": images}
    found = list(chosen.read(place, report.name, report, **where))
    records = [
        record
        for split in SPLITS
        for record in merge_repeated([r for r in found if r.split == split], report)
    ]
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


# --- ROCO and ROCOv2 -----------------------------------------------------------------------------


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


def _kaggle_splits(root: Path) -> dict[str, list[str]]:
    """The same for the copy on Kaggle."""
    splits = {split: [k for k in KINDS if kaggle_csv(root, split, k)] for split in SPLITS}
    return {split: kinds for split, kinds in splits.items() if kinds}


def _read_kaggle(root: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for split, kinds in _kaggle_splits(root).items():
        yield from read_roco_kaggle(root, split, kinds, source=source, report=report)


def _read_rocov2(root: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for split in rocov2_splits(root):
        yield from read_rocov2(root, split, source=source, report=report)


# --- MedICaT -------------------------------------------------------------------------------------


def _is_medicat(place: Path) -> bool:
    try:
        return (find_jsonl(place, "").parent / "figures").is_dir()
    except DataError:
        return False


def _read_medicat(place: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for record in read_medicat(place, source=source, report=report):
        report.notes[_NO_SPLIT] += 1
        yield record


# --- COCO ----------------------------------------------------------------------------------------


def _coco_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place] if place.suffix == ".json" and _begins_as_coco(place) else []
    folders = (place / "annotations", place)
    found = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    named = [p for p in found if "caption" in p.name or "karpathy" in p.name or _is_lavis_list(p)]
    own = [path for path in named if not _is_own_list(path)]
    return own or [path for path in found if _is_karpathy(path)]


def _begins_as_coco(path: Path) -> bool:
    start = _json_start(path)
    if start.startswith("["):
        return '"caption"' in start and not _is_own_list(path)
    return start.startswith("{") and ('"caption"' in start or '"images"' in start)


def _is_karpathy(path: Path) -> bool:
    start = _json_start(path)
    return start.startswith("{") and '"images"' in start and '"sentences"' in start


def _is_lavis_list(path: Path) -> bool:
    """Tells whether a file is one of LAVIS' lists, one per split, such as ``roco_val.json``."""
    keys = _keys_of_list(path)
    return {"image", "caption"} <= set(keys) and split_word(path.name) is not None


def _is_own_list(path: Path) -> bool:
    """Tells whether a JSON list says more than LAVIS' lists do: the split or group of an image."""
    keys = _keys_of_list(path)
    try:
        columns = choose_columns(keys, {}, str(path), "")
    except DataError:
        return False
    return columns.split is not None or columns.group_id is not None


def _keys_of_list(path: Path) -> list[str]:
    """Returns the keys of the first object of a JSON list, none if the file is something else."""
    start = _json_start(path)
    try:
        first, _ = (
            json.JSONDecoder().raw_decode(start[1:].lstrip()) if start[:1] == "[" else ({}, 0)
        )
    except (ValueError, RecursionError):
        return []
    return list(first) if isinstance(first, dict) else []


def _json_start(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(_JSON_START).lstrip()


def _read_coco(
    place: Path, source: str, report: ReadReport, images: Path | None = None
) -> Iterator[MedCapRecord]:
    for file in _coco_files(place):
        root = images or _image_root(file, place)
        splits = SPLITS if _is_karpathy(file) else (split_in_name(file.name),)
        yield from read_coco(file, root, splits, source=source, report=report)


def _image_root(file: Path, place: Path) -> Path:
    """Returns the folder that image names are relative to."""
    if _is_lavis_list(file) and (file.parent / "images").is_dir():
        return file.parent / "images"
    if place.is_dir():
        return place
    return file.parent.parent if file.parent.name == "annotations" else file.parent


def split_in_name(name: str) -> str:
    """Returns the split that a file name tells, or "train"."""
    return split_word(name) or "train"


# --- tables --------------------------------------------------------------------------------------


def _is_table(place: Path) -> bool:
    if place.is_file():
        return place.suffix.lower() in TABLE_SUFFIXES
    try:
        return bool(find_tables(str(place), Path, ""))
    except DataError:
        return False


def _read_tables(
    place: Path, source: str, report: ReadReport, images: Path | None = None
) -> Iterator[MedCapRecord]:
    for split, files in find_tables(str(place), Path, str(place)).items():
        for file in files:
            told = has_split_column(file, None, None, source)
            word = None if split or told else split_word(file.name)
            known = split or word or (None if told else "train")
            for record in read_table(file, images, split=known, source=source, report=report):
                if split is None and known:
                    report.notes[_SPLIT_OF_NAME if word else _NO_SPLIT] += 1
                yield record


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
    Format(
        "roco-kaggle",
        "ROCO v1 as on Kaggle (CSV)",
        lambda place: bool(_kaggle_splits(place)),
        _read_kaggle,
    ),
    Format("rocov2", "ROCOv2 (CSV or Parquet)", lambda p: bool(rocov2_splits(p)), _read_rocov2),
    Format("medicat", "a MedICaT release", _is_medicat, _read_medicat),
    Format("webdataset", "tar shards (WebDataset)", _is_shards, _read_shards),
    Format(
        "coco", "COCO captions (json)", lambda place: bool(_coco_files(place)), _read_coco, True
    ),
    Format("table", "a table (CSV, TSV, JSON lines, Parquet)", _is_table, _read_tables, True),
)
BY_NAME: Mapping[str, Format] = {entry.name: entry for entry in FORMATS}
