"""Reader of COCO captions: COCO's own annotation files, and the lists that LAVIS uses.

COCO: ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``.
LAVIS (Karpathy splits): ``[{"image": "val2014/COCO_val2014_….jpg", "caption": str or [str]}]``,
and perhaps ``"image_id"``.
Karpathy's own ``dataset_coco.json``: ``{"images": [{"filepath": "val2014", "filename", "split",
"sentences": [{"raw"}]}]}``, one file for all splits; ``restval`` is trained on, and images of
splits that nobody knows are counted. Those of Flickr8k and Flickr30k have no ``filepath``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import (
    FolderIndex,
    read_json,
    require,
    safe_name,
    usable_captions,
)
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import GENERAL, SPLITS, MedCapRecord

_FOLDER_IN_NAME = re.compile(r"^COCO_((?:train|val|test)\d{4})_")
_SPLIT_OF_KARPATHY = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_FOLDER_IN_FILE = re.compile(r"((?:train|val|test)\d{4})")


def read_coco(
    annotation_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    splits: str | Sequence[str],
    *,
    source: str = "coco2014_caption",
    domain: str = GENERAL,
    report: ReadReport | None = None,
) -> Iterator[MedCapRecord]:
    """Yields one record per image, with all its captions, split by split in the file's order.

    The file is parsed once, however many splits are read.

    Images are looked for in ``image_root`` and, as COCO's archives unpack, in its folder
    ``train2014/`` or ``val2014/``. A record whose image is nowhere names the place where it was
    expected; whether that is an error is for the caller to say.

    ``image_id`` is the file name without folder and extension. Of a LAVIS list it is the written
    one, except for files named as COCO names them: of these LAVIS' training list has ids of its
    own, its others have none, and an image is to have one id everywhere. Names that differ in the
    folder only keep it.

    Args:
        annotation_file: COCO captions file or LAVIS list.
        image_root: Folder with the images or with ``train2014/`` and ``val2014/``.
        splits: Split that the records get, or several: of Karpathy's file those to read, of any
            other file each image counts in all of them.
        source: Registered dataset name.
        domain: Domain of the records.
        report: Where to count.

    Raises:
        DataError: If the file or the folder is missing, the file is in neither form, or an id
            stands for two images.
    """
    report = ReadReport(source) if report is None else report
    splits = [splits] if isinstance(splits, str) else list(splits)
    prefix = f"datasets.{source}.build_info"
    path = require(
        Path(annotation_file), "the COCO captions file", f"{prefix}.annotations.{splits[0]}.storage"
    )
    root = require(Path(image_root), "the COCO image folder", f"{prefix}.images.storage")
    index = FolderIndex()
    content = read_json(path)
    grouped = _grouped(content, path, splits, report)
    written = _written_ids(content) if isinstance(content, list) else {}
    for split in splits:
        stems = Counter(PurePosixPath(name).stem for name in grouped[split])
        for name, raw in grouped[split].items():
            captions = usable_captions(raw, report.notes)
            if not captions:
                report.dropped["without caption"] += 1
                continue
            blank = sum(not isinstance(text, str) or not text.strip() for text in raw)
            if blank:
                report.notes["empty captions beside others, left out"] += blank
            report.kept[split] += 1
            yield MedCapRecord(
                image=str(_locate(root, safe_name(name, str(path)), path, index)),
                captions=captions,
                image_id=written.get(name) or _id_of_name(name, stems),
                split=split,
                group_id=None,
                source=source,
                domain=domain,
            )


_Grouped = dict[str, list[Any]]  # captions by file name


def _grouped(
    content: Any, path: Path, splits: Sequence[str], report: ReadReport
) -> dict[str, _Grouped]:
    """Collects the captions of each split, whichever of the three forms the file has."""
    try:
        if isinstance(content, dict):
            if content["images"] and "sentences" in content["images"][0]:
                return _group_karpathy(content, splits, report)
            return dict.fromkeys(splits, _group_coco(content, path))
        if isinstance(content, list):
            return dict.fromkeys(splits, _group_lavis(content))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: an entry lacks a field, has the wrong type, or names an unknown "
            f"image: {error!r}"
        ) from error
    raise DataError(
        f"{path} holds neither COCO captions ({{'images': […], 'annotations': […]}}) nor a LAVIS "
        "list of {'image', 'caption'}"
    )


def _group_coco(content: dict[str, Any], path: Path) -> _Grouped:
    names: dict[Any, str] = {}
    for image in content["images"]:
        name = str(image["file_name"])
        if names.setdefault(image["id"], name) != name:
            raise DataError(
                f"{path}: image id {image['id']!r} stands for {names[image['id']]} and {name}, so "
                "nothing says which captions belong to which; give each its own"
            )
    captions: dict[str, list[Any]] = {name: [] for name in names.values()}
    for annotation in content["annotations"]:
        captions[names[annotation["image_id"]]].append(annotation["caption"])
    return captions


def _group_karpathy(
    content: dict[str, Any], splits: Sequence[str], report: ReadReport
) -> dict[str, _Grouped]:
    captions: dict[str, _Grouped] = {split: {} for split in SPLITS}
    for image in content["images"]:
        split = _SPLIT_OF_KARPATHY.get(image["split"])
        if split is None:
            report.dropped[f"of split {image['split']!r}"] += 1
            continue
        name = "/".join(filter(None, (image.get("filepath"), image["filename"])))
        captions[split].setdefault(name, []).extend(text["raw"] for text in image["sentences"])
    return {split: captions[split] for split in splits}


def _group_lavis(content: list[Any]) -> _Grouped:
    captions: dict[str, list[Any]] = {}
    for entry in content:
        caption = entry["caption"]
        several = caption if isinstance(caption, list) else [caption]
        captions.setdefault(str(entry["image"]), []).extend(several)
    return captions


def _written_ids(content: list[dict[str, Any]]) -> dict[str, str]:
    """Returns the ids that a LAVIS list gives to its images; none for those of COCO."""
    ids: dict[str, str] = {}
    for entry in content:
        name, image_id = str(entry["image"]), entry.get("image_id")
        if image_id not in (None, "") and not _FOLDER_IN_NAME.match(PurePosixPath(name).name):
            ids.setdefault(name, str(image_id))
    return ids


def _id_of_name(name: str, stems: Counter[str]) -> str:
    path = PurePosixPath(name)
    return path.stem if stems[path.stem] == 1 else str(path.with_suffix(""))


def _locate(root: Path, name: str, annotation_file: Path, index: FolderIndex) -> Path:
    """Returns where an image is, or where it was expected."""
    in_name = _FOLDER_IN_NAME.match(PurePosixPath(name).name)
    in_file = _FOLDER_IN_FILE.search(annotation_file.name)
    folders = [match.group(1) for match in (in_name, in_file) if match]
    if "/" in name:  # the name says the folder itself
        folders = []
    candidates = [*(root / folder / name for folder in folders), root / name]
    return index.first(candidates) or candidates[0]
