"""Medical phantoms in a table as anybody might write it: path, caption and patient."""

from __future__ import annotations

import csv
from pathlib import Path

from lavis_msmedcap.phantom.writers.figures import medical_figures
from lavis_msmedcap.phantom.writers.files import Fact, OnImage, save_mask, save_png

DATASET = "caption_table"

_FIRST_PATIENT = 1001


def write_table(root: Path, seed: int, count: int, on_image: OnImage) -> list[Fact]:
    """Writes ``table/captions.csv`` and the PNG images that it names, a folder per patient.

    The table tells no split; the facts' ``split`` is None and ``group_id`` is the patient.

    Args:
        root: The phantom set's root; ``table/`` is made below it. ``masks/caption_table`` must
            exist.
        seed: The user's seed.
        count: Number of images.
        on_image: Called after each image.
    """
    folder = root / "table"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [["image", "caption", "patient_id"]]
    facts_list: list[Fact] = []
    for figure in medical_figures(seed, "table", count, _FIRST_PATIENT):
        patient = f"P{figure.article}"
        name = f"images/{patient}/{figure.place}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(figure.image, path)
        rows.append([name, figure.caption, patient])
        mask = save_mask(root, DATASET, f"{patient}-{figure.place}", figure.drawn.mask)
        facts_list.append(
            {
                "image_id": name,
                "dataset": DATASET,
                "split": None,
                "group_id": patient,
                **figure.facts.as_dict(),
                "captions": [figure.caption],
                "image": path.relative_to(root).as_posix(),
                "mask": mask,
            }
        )
        on_image()
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return facts_list
