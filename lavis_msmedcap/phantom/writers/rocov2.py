"""Medical phantoms in the format of ROCOv2: CSV files and image folders."""

from __future__ import annotations

import csv
from pathlib import Path

from lavis_msmedcap.phantom.seeding import pick
from lavis_msmedcap.phantom.writers.figures import medical_figures
from lavis_msmedcap.phantom.writers.files import Fact, OnImage, save_jpeg, save_mask

DATASET = "rocov2"
SPLIT_WORDS = {"train": "train", "val": "valid", "test": "test"}

_FIRST_ARTICLE = {"train": 4_000_000, "val": 5_000_000, "test": 6_000_000}
_QUALITIES = (88, 90, 92)
_LICENCES = ("CC BY", "CC BY", "CC BY-NC", "CC0")
_LICENCE_FILE = "license_information.csv"


def write_rocov2(root: Path, seed: int, split: str, count: int, on_image: OnImage) -> list[Fact]:
    """Writes one split: captions and JPEG images, and its lines of ``license_information.csv``.

    Args:
        root: The phantom set's root; ``rocov2/`` is made below it. ``masks/rocov2`` must exist.
        seed: The user's seed.
        split: ``train``, ``val`` or ``test``.
        count: Number of images.
        on_image: Called after each image.
    """
    word = SPLIT_WORDS[split]
    folder = root / "rocov2" / f"{word}_images" / word  # as its archive unpacks
    folder.mkdir(parents=True, exist_ok=True)
    captions = [["ID", "Caption"]]
    licences: list[list[str]] = []
    facts_list: list[Fact] = []
    for figure in medical_figures(seed, f"rocov2/{split}", count, _FIRST_ARTICLE[split]):
        image_id = f"ROCOv2_2023_{word}_{figure.index + 1:06d}"
        path = folder / f"{image_id}.jpg"
        save_jpeg(figure.image, path, pick(figure.meta, _QUALITIES))
        captions.append([image_id, figure.caption])
        licences.append([image_id, f"PMC{figure.article}", pick(figure.meta, _LICENCES)])
        facts_list.append(
            {
                "image_id": image_id,
                "dataset": DATASET,
                "split": split,
                "group_id": f"PMC{figure.article}",
                **figure.facts.as_dict(),
                "captions": [figure.caption],
                "image": path.relative_to(root).as_posix(),
                "mask": save_mask(root, DATASET, image_id, figure.drawn.mask),
            }
        )
        on_image()
    _write_rows(root / "rocov2" / f"{word}_captions.csv", captions)
    licence_file = root / "rocov2" / _LICENCE_FILE
    head = [] if licence_file.exists() else [["ID", "PMCID", "License"]]
    _write_rows(licence_file, head + licences)
    return facts_list


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    """Appends rows to a CSV file."""
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
