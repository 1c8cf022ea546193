"""What an earlier conversion to LAVIS' annotation files left in a folder, and taking it away.

A test file that stays beside a new training file is soon measured on, so that a conversion either
finds none or removes it. Nothing else in the folder is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_convert.report import NAME
from lavis_msmedcap.datasets.readers.identity import ImageKeys
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord

IMAGES = "images"
IN_PLACE = "named where they are"  # in a report: no image was copied
# how our annotation files begin; those of others have no line break there, or other keys
_LISTS = (b'[\n{"image": "', b"[]\n")
_REFERENCES = (b'{"info": {}, "licenses": [], "images": [',)


class Earlier(NamedTuple):
    """Files of an earlier conversion of one data set.

    Attributes:
        source: The data set.
        files: Its annotation files.
        images: The images that it copied, as ``<source>/<split>/<name>`` below the image folder.
    """

    source: str
    files: list[Path]
    images: list[str]


def annotation_files(out: Path, source: str, split: str) -> list[Path]:
    """Returns the files of a split: the list, and for evaluation that with all references."""
    names = [f"{source}_{split}.json"] + [f"{source}_{split}_gt.json"] * (split != "train")
    return [out / name for name in names]


def refuse_earlier(out: Path, sources: Iterable[str], copies: bool) -> None:
    """Sees to it that nothing of an earlier conversion mixes with a new one.

    Args:
        out: Folder of the conversion.
        sources: Its data sets.
        copies: Whether images are copied, too.

    Raises:
        DataError: If files of any split, or an image folder, are there.
    """
    for source in sources:
        places = [path for split in SPLITS for path in annotation_files(out, source, split)]
        places += [out / IMAGES / source] * copies
        there = [place for place in places if place.exists()]
        if there:
            raise DataError(
                f"{there[0]} is there already; name another folder, or give --overwrite, which "
                f"replaces an earlier conversion of {source} in all its splits"
            )


def find_earlier(out: Path, source: str) -> Earlier:
    """Finds what an earlier conversion wrote: files of our form, images that its report tells of.

    Args:
        out: Folder of the conversion.
        source: The data set.
    """
    told = _report(out)
    files: list[Path] = []
    images: list[str] = []
    for split in SPLITS:
        path, *references = annotation_files(out, source, split)
        part = told.get(f"{source} {split}", {})
        if _begins(path, _LISTS):
            files.append(path)
            # the report must be that of these very files
            same = part.get("size") == sum(
                p.stat().st_size for p in (path, *references) if p.exists()
            )
            if same and IN_PLACE not in part.get("how", IN_PLACE):
                images += _copies(_read(path), source, split)
        files += [path for path in references if _begins(path, _REFERENCES)]
    return Earlier(source, files, images)


def parts_beside(out: Path, sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns what the report in a folder tells of other data sets than ``sources``."""
    return {
        name: part for name, part in _report(out).items() if name.rpartition(" ")[0] not in sources
    }


def remove_earlier(
    out: Path,
    earlier: Earlier,
    files: Container[Path],
    images: Container[str],
    records: Iterable[MedCapRecord],
) -> None:
    """Removes what a new conversion has not replaced.

    Args:
        out: Folder of both.
        earlier: From before the new one wrote anything.
        files: Annotation files of the new one.
        images: Its images, named as those of ``earlier``.
        records: What was converted; images that were read from the folder itself stay.
    """
    for file in earlier.files:
        if file not in files:
            file.unlink(missing_ok=True)
    stale = [name for name in earlier.images if name not in images]
    if stale:
        keys, root = ImageKeys(), os.path.realpath(out / IMAGES)
        read = {keys.image(record).partition("::")[0] for record in records}
        for name in stale:
            if f"{root}/{name}" not in read:
                (out / IMAGES / name).unlink(missing_ok=True)
    folder = out / IMAGES / earlier.source
    for emptied in (*(folder / split for split in SPLITS), folder, out / IMAGES):
        with contextlib.suppress(OSError):  # there is something in it, or it is not there
            emptied.rmdir()


def left_images(out: Path, source: str, images: Container[str]) -> int:
    """Counts the files in the image folder of a data set that its conversion has not written."""
    root = out / IMAGES
    found = (path for path in (root / source).rglob("*") if path.is_file())
    return sum(path.relative_to(root).as_posix() not in images for path in found)


def _copies(entries: Any, source: str, split: str) -> Iterator[str]:
    """Yields the images of a list that lie where copies are put."""
    for entry in entries if isinstance(entries, list) else []:
        parts = PurePosixPath(str(entry.get("image"))).parts if isinstance(entry, dict) else ()
        if len(parts) == 3 and parts[:2] == (source, split) and parts[2] != "..":
            yield "/".join(parts)


def _report(out: Path) -> dict[str, dict[str, Any]]:
    """Returns the parts of the report in a folder, none if there is no report of ours."""
    told = _read(out / NAME)
    parts = told.items() if isinstance(told, dict) else ()
    return {name: part for name, part in parts if isinstance(part, dict)}


def _begins(path: Path, starts: tuple[bytes, ...]) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(max(map(len, starts))).startswith(starts)


def _read(path: Path) -> Any:
    """Returns the content of a JSON file, None if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
