"""Which files of a folder hold COCO captions: told from their names and first characters."""

from __future__ import annotations

import json
from pathlib import Path

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.columns import choose_columns
from lavis_msmedcap.datasets.readers.files import split_word

_JSON_START = 1 << 16  # characters


def coco_files(place: Path) -> list[Path]:
    """Returns the files with captions in COCO's, LAVIS' or Karpathy's form; none if there are none.

    Args:
        place: Such a file, or a folder that holds some, or holds ``annotations/``; files such as
            ``roco_val_gt.json``, which repeats ``roco_val.json``, are left out of a folder.
    """
    if place.is_file():
        return [place] if place.suffix == ".json" and _begins_as_coco(place) else []
    folders = (place / "annotations", place)
    found = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    named = [p for p in found if "caption" in p.name or "karpathy" in p.name or _is_lavis_list(p)]
    own = [path for path in named if not (_is_own_list(path) or _is_references(path))]
    return own or [path for path in found if is_karpathy(path)]


def _is_references(path: Path) -> bool:
    """Tells whether a file repeats the references of another one, for COCO's scorer."""
    stem = path.stem.removesuffix("_gt")
    return stem != path.stem and path.with_name(f"{stem}.json").is_file()


def _begins_as_coco(path: Path) -> bool:
    start = _json_start(path)
    if start.startswith("["):
        return '"caption"' in start and not _is_own_list(path)
    return start.startswith("{") and ('"caption"' in start or '"images"' in start)


def is_karpathy(path: Path) -> bool:
    """Tells whether a file is Karpathy's own, which holds all splits."""
    start = _json_start(path)
    return start.startswith("{") and '"images"' in start and '"sentences"' in start


def image_root(file: Path, place: Path) -> Path:
    """Returns the folder that the image names of a file are relative to.

    Args:
        file: One of `coco_files`.
        place: Where it was found.
    """
    if _is_lavis_list(file) and (file.parent / "images").is_dir():
        return file.parent / "images"
    if place.is_dir():
        return place
    return file.parent.parent if file.parent.name == "annotations" else file.parent


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
