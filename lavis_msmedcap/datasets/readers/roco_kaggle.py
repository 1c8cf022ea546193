"""Reader of ROCO v1 as it is copied on Kaggle: one CSV per split and kind.

::

    all_data/{train,validation,test}/radiology/
        radiology{train,val,test}data.csv   id,name,caption (also beside radiology/)
        images/                             PMC4608653_cro-0008-0385-g01.jpg, the column name
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import SPLIT_WORDS
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.roco import KINDS, kinds_by_split
from lavis_msmedcap.datasets.readers.table import read_table
from lavis_msmedcap.datasets.records import MEDICAL, SPLITS, MedCapRecord

# the id is the record's, as in the tree
_COLUMNS = {
    "image": "name",
    "caption": "caption",
    "image_id": "id",
    "split": None,
    "group_id": None,
    "domain": None,
}
_ARTICLE = re.compile(r"PMC\d+")


def kaggle_csv(root: Path, split: str, kind: str) -> Path | None:
    """Returns the CSV of a split and kind, None if there is none.

    Args:
        root: Folder that holds ``all_data/`` or the split folders themselves.
        split: "train", "val" or "test".
        kind: "radiology" or "non-radiology".
    """
    for base in (root / "all_data", root):
        for word in SPLIT_WORDS[split]:
            found = _csv_in(base / word, kind)
            if found:
                return found
    return None


def is_kaggle(root: Path) -> bool:
    """Tells whether a folder holds a CSV as Kaggle's copy of ROCO has it."""
    return any(kaggle_csv(root, split, kind) for split in SPLITS for kind in KINDS)


def kaggle_splits(root: Path) -> dict[str, list[str]]:
    """Returns the kinds of figures that each split of a copy has a CSV or a folder for.

    A CSV need not be there, so that reading names the one that is missing.
    """
    base = root / "all_data" if (root / "all_data").is_dir() else root
    folders = {split: [base / word for word in SPLIT_WORDS[split]] for split in SPLITS}
    return kinds_by_split(
        folders, lambda folder, kind: (folder / kind).is_dir() or bool(_csv_in(folder, kind))
    )


def _csv_in(folder: Path, kind: str) -> Path | None:
    """Returns the CSV of a kind in the folder of a split, or in its own folder there."""
    for place in (folder / kind, folder):
        for name in (kind.replace("-", ""), kind):
            found = sorted(place.glob(f"{name}*data.csv"))
            if found:
                return found[0]
    return None


def kaggle_images(table: Path, kind: str) -> Path:
    """Returns the image folder that belongs to a CSV."""
    beside = table.parent / "images"
    return table.parent / kind / "images" if table.parent.name != kind else beside


def read_roco_kaggle(
    root: Path,
    split: str,
    kinds: Sequence[str] = ("radiology",),
    *,
    source: str = "roco",
    domain: str = MEDICAL,
    report: ReadReport | None = None,
) -> Iterator[MedCapRecord]:
    """Yields one record per row of the CSV files.

    Args:
        root: Folder that holds ``all_data/`` or the split folders themselves.
        split: "train", "val" or "test".
        kinds: "radiology", "non-radiology" or both.
        source: Registered dataset name.
        domain: Domain of the records.
        report: Where to count.

    Raises:
        DataError: If a CSV is missing or cannot be read.
    """
    report = ReadReport(source) if report is None else report
    for kind in kinds:
        table = kaggle_csv(root, split, kind)
        if table is None:
            raise DataError(
                f"no {kind.replace('-', '')}…data.csv of the {split} split in {root}; expected "
                f"all_data/{SPLIT_WORDS[split][0]}/{kind}/, as the Kaggle copy of ROCO has it"
            )
        rows = read_table(
            table,
            kaggle_images(table, kind),
            split=split,
            columns=_COLUMNS,
            source=source,
            domain=domain,
            report=report,
        )
        for record in rows:
            article = _ARTICLE.match(Path(record.image).name)
            if article is None:
                report.notes["without article id"] += 1
                yield record
            else:
                yield replace(record, group_id=article.group())
