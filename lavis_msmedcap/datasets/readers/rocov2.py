"""Reader of ROCOv2: the CSV files and image archives of its publisher, and the Parquet copy.

::

    train_captions.csv           ID,Caption (in some copies id,caption); the ID is the file name
                                 without extension
    train_images/train/ID.jpg    two folders, as the archive unpacks into one of its name
    license_information.csv      ID and, somewhere in the row, the article (PMC…)

    data/train-00000-of-00027.parquet   image, image_id, caption, cui

The validation split is called ``valid`` by the publisher, ``validation`` in the Parquet copy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.columns import choose_columns
from lavis_msmedcap.datasets.readers.files import SPLIT_WORDS, require
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.rows import TableOptions, open_table
from lavis_msmedcap.datasets.readers.table import as_text, read_table
from lavis_msmedcap.datasets.records import MEDICAL, SPLITS, MedCapRecord

FORMATS = ("csv", "parquet")

_LICENCES = "license_information.csv"
_ARTICLE = re.compile(r"PMC\d+")
_ID_NAMES = ("id", "image_id", "image", "name")
_CSV_NAMES = ("ID", "Caption")  # as the publisher writes them
_PARQUET_COLUMNS = {"image": "image", "caption": "caption", "image_id": "image_id"}
_TOLD_ELSEWHERE = {"split": None, "group_id": None, "domain": None}


def read_rocov2(
    root: str | os.PathLike[str],
    split: str,
    *,
    layout: str = "auto",
    source: str = "rocov2",
    domain: str = MEDICAL,
    report: ReadReport | None = None,
) -> Iterator[MedCapRecord]:
    """Yields one record per row of a split.

    ``group_id`` is the article, where ``license_information.csv`` tells it.

    Args:
        root: Folder that holds the CSV files and image folders, or the Parquet files or ``data/``.
        split: "train", "val" or "test".
        layout: "csv", "parquet" or "auto".
        source: Registered dataset name.
        domain: Domain of the records.
        report: Where to count.

    Raises:
        DataError: If files are missing or cannot be read.
    """
    report = ReadReport(source) if report is None else report
    base = Path(root)
    tables = find_captions(base, split, layout, f"datasets.{source}.build_info.root")
    articles = read_articles(base / _LICENCES) if (base / _LICENCES).is_file() else {}
    for table in tables:
        from_csv = table.suffix == ".csv"
        for record in read_table(
            table,
            image_folder(base, split) if from_csv else None,
            split=split,
            columns=_columns(table),
            options=TableOptions(format="csv" if from_csv else "parquet"),
            source=source,
            domain=domain,
            report=report,
        ):
            article = articles.get(_stem(record.image_id))
            if article is None:
                report.notes["without article id"] += 1
                yield record
            else:
                yield replace(record, group_id=article)


def find_captions(root: Path, split: str, layout: str, key: str) -> list[Path]:
    """Returns the files with the captions of a split: one CSV, or the Parquet files.

    Args:
        root: As for `read_rocov2`.
        split: "train", "val" or "test".
        layout: "csv", "parquet" or "auto".
        key: Configuration key of the root, for the message.

    Raises:
        DataError: If there are none.
    """
    require(root, "ROCOv2", key)
    words = SPLIT_WORDS[split]
    if layout != "parquet":
        for word in words:
            path = root / f"{word}_captions.csv"
            if path.is_file():
                return [path]
    if layout != "csv":
        for folder in (root / "data", root):
            for word in words:
                found = sorted(folder.glob(f"{word}-*.parquet")) or sorted(
                    folder.glob(f"{word}.parquet")
                )
                if found:
                    return found
    expected = {"csv": f"{words[0]}_captions.csv", "parquet": f"data/{words[0]}-….parquet"}
    names = expected.get(layout) or " or ".join(expected.values())
    raise DataError(
        f"the {split} split of ROCOv2 not found in {root}: expected {names}; set {key} to the "
        "folder that holds it"
    )


def is_rocov2(root: Path) -> bool:
    """Tells whether a folder holds a split of ROCOv2, and no table of somebody's own.

    Its tables tell no groups; one that does is an own one, and its groups count. So is one with
    columns ``id,caption`` without an image folder of ROCOv2 beside it.
    """
    places = [(split, _captions_or_none(root, split)) for split in SPLITS if root.is_dir()]
    tables = [(split, table) for split, table in places if table is not None]
    if any(_tells_groups(table) for _, table in tables):
        return False
    return any(_is_published(table, root, split) for split, table in tables)


def rocov2_splits(root: Path) -> list[str]:
    """Returns the splits of which a folder holds captions or images.

    Captions need not be there or be readable, so that reading names those that are not.
    """
    return [split for split in SPLITS if _captions_or_none(root, split) or _images(root, split)]


def _captions_or_none(root: Path, split: str) -> Path | None:
    try:
        return find_captions(root, split, "auto", "")[0]
    except DataError:
        return None


def _tells_groups(table: Path) -> bool:
    try:
        columns = choose_columns(open_table(table).columns, {}, str(table), "")
    except DataError:
        return False
    return columns.group_id is not None


def _is_published(table: Path, root: Path, split: str) -> bool:
    try:
        columns = open_table(table).columns
        named = set(_columns(table).values()) - {None} <= set(columns)
    except DataError:
        return False
    published = table.suffix != ".csv" or set(_CSV_NAMES) <= set(columns)
    return named and (published or image_folder(root, split).is_dir())


def _columns(table: Path) -> dict[str, str | None]:
    """Returns which columns of a captions file hold what.

    Raises:
        DataError: If it is a CSV file without id or caption.
    """
    if table.suffix != ".csv":
        return {**_PARQUET_COLUMNS, **_TOLD_ELSEWHERE}
    columns = open_table(table, TableOptions(format="csv")).columns
    name, caption = _first(columns, _ID_NAMES), _first(columns, ("caption",))
    if name is None or caption is None:
        raise DataError(
            f"{table}: expected the columns {' and '.join(_CSV_NAMES)}; it has: "
            f"{', '.join(columns)}. Fetch it again, or read it with the dataset caption_table"
        )
    return {"image": name, "caption": caption, "image_id": None, **_TOLD_ELSEWHERE}


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Returns the column with the likeliest of some lower-case names."""
    by_name: Mapping[str, str] = {column.lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in names if name in by_name), None)


def image_folder(root: Path, split: str) -> Path:
    """Returns the folder of a split's images, or that in which the archive puts them."""
    found, words = _images(root, split), SPLIT_WORDS[split]
    if found is None and (root / "images").is_dir():
        return root / "images"
    return found or root / f"{words[0]}_images" / words[0]


def _images(root: Path, split: str) -> Path | None:
    """Returns the folder of the images of this split and no other, None if there is none."""
    words = SPLIT_WORDS[split]
    shapes = ("{0}_images/{1}", "{0}_images", "images/{0}", "{0}")
    pairs = [(first, second) for first in words for second in words]
    candidates = [root / shape.format(*pair) for shape in shapes for pair in pairs]
    return next((folder for folder in candidates if folder.is_dir()), None)


def read_articles(path: Path) -> dict[str, str]:
    """Maps image ids to articles, ``PMC…``, from whichever column of a row names one.

    Raises:
        DataError: If the file cannot be read.
    """
    table = open_table(path, TableOptions(format="csv"))
    id_column = _first(table.columns, _ID_NAMES) or table.columns[0]
    articles: dict[str, str] = {}
    for _, cells in table.rows(table.columns):
        values = "\t".join(map(str, (cells or {}).values()))
        article = _ARTICLE.search(values)
        if cells and article:
            articles[_stem(as_text(cells[id_column]))] = article.group()
    return articles


def _stem(image_id: str) -> str:
    return image_id[:-4] if image_id.lower().endswith(".jpg") else image_id
