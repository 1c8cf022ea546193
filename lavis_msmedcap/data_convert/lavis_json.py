"""Writes LAVIS' annotation files: lists of ``{"image", "caption", "image_id"}``, one per split.

Training has one entry per caption, evaluation one per image, as in the Karpathy files that LAVIS
itself uses; beside each evaluation file stands a COCO-style file with all references.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.common.whole_files import whole_file, write_whole
from lavis_msmedcap.data_convert.earlier import (
    IMAGES,
    IN_PLACE,
    annotation_files,
    find_earlier,
    left_images,
    parts_beside,
    refuse_earlier,
    remove_earlier,
)
from lavis_msmedcap.data_convert.images import (
    ImageSettings,
    store_image,
    why_not_plain,
)
from lavis_msmedcap.data_convert.plan import by_part
from lavis_msmedcap.data_convert.report import ConvertReport
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.imaging.places import parse_place
from lavis_msmedcap.imaging.read import DEFAULTS, ReadOptions, read_image

KEEP, COPY = "keep", "copy"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_NAME = 180  # characters; most file systems take 255 bytes
_CHUNK = 256  # images in flight at a time, so that memory does not grow with the data


class _Written(NamedTuple):
    """What became of an image: its name below the image folder, or why it was left out."""

    name: str
    how: str
    broken: str = ""


def write_lavis_json(
    records: Iterable[MedCapRecord],
    out: Path,
    *,
    images: str = KEEP,
    settings: ImageSettings = ImageSettings(),  # noqa: B008 - a tuple of constants
    reading: Mapping[tuple[str, str], ReadOptions] | None = None,
    skip_bad: bool = False,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> ConvertReport:
    """Writes ``<source>_<split>.json``, for evaluation ``<source>_<split>_gt.json``, and a report.

    Args:
        records: Images of any data sets and splits.
        out: Folder for the files, made if it is not there.
        images: "keep" names the images where they are, which takes files that LAVIS can read;
            "copy" puts all of them below ``out/images/``, named by `file_names`.
        settings: What is done to copied images.
        reading: Windows and limits that images are read with, by (source, split), where not by
            default.
        skip_bad: Leave broken images out and tell them in the report, instead of stopping.
        workers: Images that are decoded at a time.
        overwrite: Replace what an earlier conversion of the same data sets wrote here, splits that
            there are no more included.
        progress: Show a bar on a terminal.

    Raises:
        BadImageError: If an image is broken and not ``skip_bad``.
        DataError: If files are there already, or images cannot be named in place.
    """
    parts = by_part(records)
    out.mkdir(parents=True, exist_ok=True)
    sources = list(dict.fromkeys(source for source, _ in parts))
    if not overwrite:
        refuse_earlier(out, sources, images == COPY)
    earlier = [find_earlier(out, source) for source in sources]
    names: set[str] = set()
    report = ConvertReport()
    total = sum(map(len, parts.values()))
    with tqdm(total=total, unit=" images", desc="images", disable=not progress or None) as bar:
        for (source, split), members in parts.items():
            own = (reading or {}).get((source, split), DEFAULTS)
            if images == COPY:
                results = _copy_images(members, out, settings, own, skip_bad, workers)
            else:
                root = image_root(
                    r for (name, _), rs in parts.items() if name == source for r in rs
                )
                results = _keep_images(members, root, own, skip_bad, workers)
            written = []
            for result in results:
                written.append(result)
                bar.update()
            names.update(result.name for result in written if images == COPY)
            _write_part(out, source, split, members, written, report)
    files = {path for part in parts for path in annotation_files(out, *part)}
    everything = [record for members in parts.values() for record in members]
    for old in earlier:
        remove_earlier(out, old, files, names, everything)
        left = left_images(out, old.source, names) if images == COPY else 0
        if left:
            report.notes.append(
                f"{out / IMAGES / old.source} holds {left:,} files besides, of which it is not "
                "known that an earlier conversion wrote them; they were left"
            )
    report.write(out, parts_beside(out, sources))
    return report


def image_root(records: Iterable[MedCapRecord]) -> Path:
    """Returns the deepest folder that holds all images."""
    return Path(os.path.commonpath([str(Path(parse_place(r.image).file).parent) for r in records]))


def stock_image_id(name: str) -> str:
    """Returns the image id that LAVIS' own COCO evaluation takes from a file name.

    It strips the letters of ".jpg" from both ends, and takes what follows the last underscore.
    """
    return name.split("/")[-1].strip(".jpg").split("_")[-1]


def file_names(image_ids: Iterable[str]) -> Iterator[str]:
    """Yields a name without ending for each id, such as ``images_ct_001`` for images/ct_001.

    Names lead nowhere else, and differ even where upper and lower case do not.
    """
    following: dict[str, int] = {}
    for image_id in image_ids:
        stem = _UNSAFE.sub("_", image_id).lstrip(".-")[:_LONGEST_NAME] or "image"
        name = stem
        while name.lower() in following:
            following[stem.lower()] += 1
            name = f"{stem}-{following[stem.lower()]}"
        following[name.lower()] = 1
        yield name


def _keep_images(
    records: Sequence[MedCapRecord], root: Path, reading: ReadOptions, skip_bad: bool, workers: int
) -> Iterator[_Written]:
    """Checks that LAVIS can read the images where they are.

    Raises:
        DataError: If it cannot, with the reasons counted.
    """
    strange: Counter[str] = Counter()

    def look(record: MedCapRecord) -> _Written:
        inside = parse_place(record.image).kind
        reason = f"inside a {Path(parse_place(record.image).file).suffix} file" if inside else ""
        try:
            read_image(record.image, reading)
        except BadImageError as error:
            return _broken(record, error, skip_bad)
        return _Written(record.image, reason or why_not_plain(record.image))

    for result in _in_order(look, records, workers):
        if result.broken:
            yield result
            continue
        strange.update([result.how] if result.how else [])
        if not strange:
            name = Path(result.name).relative_to(root).as_posix()
            yield _Written(name, IN_PLACE)
    if strange:
        told = "; ".join(f"{count:,} {reason}" for reason, count in strange.most_common())
        raise DataError(
            f"LAVIS cannot read some images of {records[0].source} ({records[0].split}) as they "
            f"are: {told}. Give --images copy to have all of them in the folder, these as PNG"
        )


def _copy_images(
    records: Sequence[MedCapRecord],
    out: Path,
    settings: ImageSettings,
    reading: ReadOptions,
    skip_bad: bool,
    workers: int,
) -> Iterator[_Written]:
    """Puts the images below ``out/images/<source>/<split>/``."""
    folder = Path(records[0].source) / records[0].split
    (out / IMAGES / folder).mkdir(parents=True, exist_ok=True)
    names = dict(zip(map(id, records), file_names(record.image_id for record in records)))

    def copy(record: MedCapRecord) -> _Written:
        try:
            stored = store_image(record.image, settings, reading)
        except BadImageError as error:
            return _broken(record, error, skip_bad)
        path = folder / f"{names[id(record)]}{stored.suffix}"
        with whole_file(out / IMAGES / path) as file:
            file.write(stored.data)
        return _Written(path.as_posix(), stored.how)

    return _in_order(copy, records, workers)


def _broken(record: MedCapRecord, error: BadImageError, skip_bad: bool) -> _Written:
    if not skip_bad:
        raise error
    return _Written(record.image_id, "", error.reason)


def _in_order(
    work: Callable[[MedCapRecord], _Written], records: Sequence[MedCapRecord], workers: int
) -> Iterator[_Written]:
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(records), _CHUNK):
            yield from pool.map(work, records[first : first + _CHUNK])


def _write_part(
    out: Path,
    source: str,
    split: str,
    records: Sequence[MedCapRecord],
    written: Sequence[_Written],
    report: ConvertReport,
) -> None:
    pairs = [(record, result) for record, result in zip(records, written) if not result.broken]
    part = report.part(source, split)
    part.images, part.captions = len(pairs), sum(len(record.captions) for record, _ in pairs)
    part.how.update(result.how for _, result in pairs)
    part.broken += [(result.name, result.broken) for result in written if result.broken]
    make = _training_entries if split == "train" else _evaluation_entries
    path, *gt_path = annotation_files(out, source, split)
    _write_list(path, (entry for pair in pairs for entry in make(*pair)))
    for gt in gt_path:
        numbers = _stock_numbers(pairs)
        write_whole(gt, [json.dumps(_references(pairs, numbers)), "\n"])
        if numbers is None:
            report.notes.append(
                f"{gt.name} has the image ids of the data set; LAVIS' own captioning task takes "
                "ids from file names that end in _<number>.jpg, which these do not, so that it "
                "cannot be scored with this file there (medical_captioning can)"
            )
    files = [path, *gt_path]
    part.files, part.size = len(files), sum(file.stat().st_size for file in files)


def _write_list(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON list, an entry per line, without holding all of it as text."""

    def chunks() -> Iterator[str]:
        between = "[\n"
        for entry in entries:
            yield between + json.dumps(entry)
            between = ",\n"
        yield "[]\n" if between == "[\n" else "\n]\n"

    write_whole(path, chunks())


def _training_entries(record: MedCapRecord, result: _Written) -> Iterator[dict[str, Any]]:
    for caption in record.captions:
        yield {"image": result.name, "caption": caption, "image_id": record.image_id}


def _evaluation_entries(record: MedCapRecord, result: _Written) -> Iterator[dict[str, Any]]:
    captions = record.captions
    caption = list(captions) if len(captions) > 1 else captions[0]
    yield {"image": result.name, "caption": caption, "image_id": record.image_id}


def _stock_numbers(pairs: Sequence[tuple[MedCapRecord, _Written]]) -> list[int] | None:
    """Returns the ids that LAVIS' own evaluation gives to the images, None if they do not work."""
    numbers = [stock_image_id(result.name) for _, result in pairs]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    found = list(map(int, numbers))
    return found if len(set(found)) == len(found) else None


def _references(
    pairs: Sequence[tuple[MedCapRecord, _Written]], numbers: Sequence[int] | None
) -> dict[str, Any]:
    """Returns COCO's form of all references."""
    ids: Sequence[int | str] = numbers or [record.image_id for record, _ in pairs]
    annotations: list[dict[str, Any]] = []
    for image_id, (record, _) in zip(ids, pairs):
        for caption in record.captions:
            entry = {"id": len(annotations), "image_id": image_id, "caption": caption}
            annotations.append(entry)
    images = [
        {"id": image_id, "file_name": result.name} for image_id, (_, result) in zip(ids, pairs)
    ]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations}
