"""Which format a folder or file is in, and its records: what a check does without a configuration.

A format is one entry of ``FORMATS``: its name, what it looks like, and how it is read. The first
one that a place looks like is taken, so the most particular ones come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lavis_msmedcap.common.config_check import nearest
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.data_check.manifest import read_manifest
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.coco_files import coco_files, image_root, is_karpathy
from lavis_msmedcap.datasets.readers.files import split_in_name, split_word
from lavis_msmedcap.datasets.readers.medicat import read_medicat, release_files
from lavis_msmedcap.datasets.readers.report import WITHOUT_SPLIT, ReadReport
from lavis_msmedcap.datasets.readers.roco import is_roco, read_roco, roco_splits
from lavis_msmedcap.datasets.readers.roco_kaggle import is_kaggle, kaggle_splits, read_roco_kaggle
from lavis_msmedcap.datasets.readers.rocov2 import is_rocov2, read_rocov2, rocov2_splits
from lavis_msmedcap.datasets.readers.selection import merge_repeated
from lavis_msmedcap.datasets.readers.shard_places import find_shards
from lavis_msmedcap.datasets.readers.shards import read_shards
from lavis_msmedcap.datasets.readers.table import read_table, tell_splits
from lavis_msmedcap.datasets.readers.table_files import (
    TABLE_SUFFIXES,
    find_tables,
    is_manifest,
    tables_in,
)
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord

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
        report: Where to count, and whether there are splits; its name becomes the records' source.
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
    first, noted = not report.n_read, report.notes[WITHOUT_SPLIT]
    found = list(chosen.read(place, report.name, report, **where))
    untold = report.notes[WITHOUT_SPLIT] - noted
    report.undivided = (first or report.undivided) and untold == len(found)
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


def _read_roco(root: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for split, kinds in roco_splits(root).items():
        yield from read_roco(root, split, kinds, source=source, report=report)


def _read_kaggle(root: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for split, kinds in kaggle_splits(root).items():
        yield from read_roco_kaggle(root, split, kinds, source=source, report=report)


def _read_rocov2(root: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for split in rocov2_splits(root):
        yield from read_rocov2(root, split, source=source, report=report)


# --- MedICaT -------------------------------------------------------------------------------------


def _is_medicat(place: Path) -> bool:
    return any((file.parent / "figures").is_dir() for file in release_files(place))


def _read_medicat(place: Path, source: str, report: ReadReport) -> Iterator[MedCapRecord]:
    for record in read_medicat(place, source=source, report=report):
        report.notes[WITHOUT_SPLIT] += 1
        yield record


# --- COCO ----------------------------------------------------------------------------------------


def _read_coco(
    place: Path, source: str, report: ReadReport, images: Path | None = None
) -> Iterator[MedCapRecord]:
    for file in coco_files(place):
        root = images or image_root(file, place)
        whole = is_karpathy(file)
        splits = SPLITS if whole else (split_in_name(file.name),)
        untold = not whole and split_word(file.name) is None
        for record in read_coco(file, root, splits, source=source, report=report):
            if untold:
                report.notes[WITHOUT_SPLIT] += 1
            yield record


# --- tables --------------------------------------------------------------------------------------


def _is_table(place: Path) -> bool:
    if place.is_file():
        return place.suffix.lower() in TABLE_SUFFIXES
    return bool(tables_in(place))


def _read_tables(
    place: Path, source: str, report: ReadReport, images: Path | None = None
) -> Iterator[MedCapRecord]:
    for split, files in find_tables(str(place), Path, str(place)).items():
        told = split is None and tell_splits(files, None, None, source)
        for file in files:
            word = None if split or told else split_word(file.name)
            known = split or word or (None if told else "train")
            for record in read_table(file, images, split=known, source=source, report=report):
                if split is None and known:
                    report.notes[_SPLIT_OF_NAME if word else WITHOUT_SPLIT] += 1
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
    Format("roco", "a ROCO v1 tree", is_roco, _read_roco),
    Format("roco-kaggle", "ROCO v1 as on Kaggle (CSV)", is_kaggle, _read_kaggle),
    Format("rocov2", "ROCOv2 (CSV or Parquet)", is_rocov2, _read_rocov2),
    Format("medicat", "a MedICaT release", _is_medicat, _read_medicat),
    Format("webdataset", "tar shards (WebDataset)", _is_shards, _read_shards),
    Format("coco", "COCO captions (json)", lambda place: bool(coco_files(place)), _read_coco, True),
    Format("table", "a table (CSV, TSV, JSON lines, Parquet)", _is_table, _read_tables, True),
)
BY_NAME: Mapping[str, Format] = {entry.name: entry for entry in FORMATS}
