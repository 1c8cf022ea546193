"""Reader of the ROCO v1 tree, as its repository and download script lay it out.

::

    [data/]{train,validation,test}/{radiology,non-radiology}/
        captions.txt    ROCO_00001<TAB> Caption
        licences.txt    ROCO_ID,PMC_ID,CC   (PMC_ID is "PMC4608653_cro-0008-0385-g01.jpg")
        dlinks.txt      ROCO_00001<TAB>wget … PMC4608653.tar.gz …<TAB>cro-0008-0385-g01.jpg
        images/         ROCO_00001.jpg, or PMC4608653_cro-0008-0385-g01.jpg in older downloads
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import (
    SPLIT_WORDS,
    FolderIndex,
    require,
    safe_name,
    text_lines,
    usable_captions,
)
from lavis_msmedcap.datasets.readers.report import REPEATED_ID, ReadReport
from lavis_msmedcap.datasets.records import MEDICAL, SPLITS, MedCapRecord

KINDS = ("radiology", "non-radiology")
_SUFFIXES = (".jpg", ".jpeg", ".png")
_ARTICLE = re.compile(r"PMC\d+")


def read_roco(
    root: str | os.PathLike[str],
    split: str,
    kinds: Sequence[str] = ("radiology",),
    *,
    source: str = "roco",
    domain: str = MEDICAL,
    report: ReadReport | None = None,
) -> Iterator[MedCapRecord]:
    """Yields one record per figure, in the order of the captions files.

    ``group_id`` is the article (its PMC id): figures of one article often show one patient, and
    ROCO's own splits do not keep articles apart. A record whose image is nowhere names the place
    where it was expected.

    Args:
        root: Folder that holds ``data/`` or the split folders themselves.
        split: "train", "val" or "test".
        kinds: Some of ``KINDS``.
        source: Registered dataset name.
        domain: Domain of the records.
        report: Where to count.

    Raises:
        DataError: If a folder or captions file is missing, or an image name is unsafe.
    """
    report = ReadReport(source) if report is None else report
    base = split_folder(Path(root), split, f"datasets.{source}.build_info.root")
    index = FolderIndex()
    for kind in kinds:
        folder = require(base / kind, "the ROCO folder", f"datasets.{source}.kinds")
        file_names, images = _original_names(folder), folder / "images"
        for roco_id, raw in _captions(folder, report).items():
            captions = usable_captions(raw)
            if not captions:
                report.dropped["without caption"] += 1
                continue
            report.kept[split] += 1
            original = file_names.get(roco_id)
            article = _ARTICLE.match(original) if original else None
            if article is None:
                report.notes["without article id"] += 1
            yield MedCapRecord(
                image=_locate(images, roco_id, original, index),
                captions=captions,
                image_id=roco_id,
                split=split,
                group_id=article.group() if article else None,
                source=source,
                domain=domain,
            )


def split_folder(root: Path, split: str, key: str) -> Path:
    """Returns the folder of a split, under any of the names that copies use.

    Args:
        root: Folder that holds ``data/`` or the split folders themselves.
        split: "train", "val" or "test".
        key: Configuration key that sets the root, for the message.

    Raises:
        DataError: If there is none.
    """
    candidates = _candidates(root, split)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise DataError(
        f"the {split} split of ROCO not found: expected {candidates[0]} (ROCO v1 tree of the "
        f"roco-dataset repository); set {key} to the folder that holds data/"
    )


def is_roco(root: Path) -> bool:
    """Tells whether a folder holds captions as a ROCO v1 tree has them."""
    return _base(root) is not None


def roco_splits(root: Path) -> dict[str, list[str]]:
    """Returns the kinds of figures that each split of a tree has a folder for.

    Captions need not be there, so that reading names those that are missing.
    """
    base = _base(root)
    if base is None:
        return {}
    folders = {split: [base / word for word in SPLIT_WORDS[split]] for split in SPLITS}
    return kinds_by_split(folders, lambda folder, kind: (folder / kind).is_dir())


def kinds_by_split(
    folders: Mapping[str, Sequence[Path]], holds: Callable[[Path, str], bool]
) -> dict[str, list[str]]:
    """Returns the kinds of figures of each split that has a folder.

    Args:
        folders: Where each split may be.
        holds: Whether a folder has something of a kind.

    Returns:
        Kinds by split; of a split whose folder has none, those that the others have.
    """
    found = {
        split: [kind for kind in KINDS if any(holds(folder, kind) for folder in places)]
        for split, places in folders.items()
        if any(folder.is_dir() for folder in places)
    }
    every = [kind for kind in KINDS if any(kind in kinds for kinds in found.values())]
    return {split: kinds or every for split, kinds in found.items()}


def _base(root: Path) -> Path | None:
    """Returns the folder of the split folders, None if no captions are there."""
    words = [word for split in SPLITS for word in SPLIT_WORDS[split]]
    for base in _bases(root):
        for folder in (base / word / kind for word in words for kind in KINDS):
            if (folder / "captions.txt").is_file():
                return base
    return None


def _bases(root: Path) -> tuple[Path, Path]:
    return root / "data", root


def _candidates(root: Path, split: str) -> list[Path]:
    return [base / name for base in _bases(root) for name in SPLIT_WORDS[split]]


def _captions(folder: Path, report: ReadReport) -> dict[str, list[str]]:
    """Reads captions.txt; an id that occurs again adds a caption to the first one's."""
    path = require(folder / "captions.txt", "the ROCO captions", "datasets.roco.build_info.root")
    captions: dict[str, list[str]] = {}
    for number, line in text_lines(path):
        roco_id, tab, caption = line.partition("\t")
        if not line.strip():
            continue
        if not tab:
            report.dropped["without a tab between id and caption"] += 1
            continue
        roco_id = safe_name(roco_id.strip(), f"{path}, line {number}")
        if roco_id in captions:
            report.dropped[REPEATED_ID] += 1
        captions.setdefault(roco_id, []).append(caption)
    return captions


def _original_names(folder: Path) -> dict[str, str]:
    """Maps ROCO ids to "PMC…_name.jpg", from licences.txt or else from dlinks.txt."""
    licences, links = folder / "licences.txt", folder / "dlinks.txt"
    if licences.exists():
        try:
            with licences.open(encoding="utf-8-sig", newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) >= 2]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"{licences} is no CSV file in UTF-8: {error}; fetch it again"
            ) from error
        return {
            row[0].strip(): safe_name(row[1].strip(), str(licences))
            for row in rows
            if row[0].strip() != "ROCO_ID" and row[1].strip()
        }
    names = {}
    for _, line in text_lines(links) if links.exists() else ():
        fields = line.split("\t")
        article = _ARTICLE.search(fields[1]) if len(fields) >= 3 else None
        if article:
            name = f"{article.group()}_{fields[2].strip()}"
            names[fields[0].strip()] = safe_name(name, str(links))
    return names


def _locate(images: Path, roco_id: str, original: str | None, index: FolderIndex) -> str:
    """Returns where an image is, under its new or its old name, or where it was expected."""
    candidates = [f"{roco_id}{suffix}" for suffix in _SUFFIXES]
    if original:
        candidates.append(original)
    there = index.names(images)
    name = next((name for name in candidates if name in there), candidates[0])
    return f"{images}{os.sep}{name}"
