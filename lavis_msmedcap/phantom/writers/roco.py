"""Medical phantoms in the format of ROCO (first version), radiology part."""

from __future__ import annotations

from pathlib import Path

from lavis_msmedcap.phantom.seeding import pick
from lavis_msmedcap.phantom.writers.figures import medical_figures
from lavis_msmedcap.phantom.writers.files import (
    Fact,
    OnImage,
    save_jpeg,
    save_mask,
    write_lines,
)

DATASET = "roco"
SPLIT_FOLDERS = {"train": "train", "val": "validation", "test": "test"}

# identifiers and article numbers of the splits never meet, so no article leaks into another split
_FIRST_ID = {"train": 1, "val": 70_001, "test": 80_001}
_FIRST_ARTICLE = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000}
_QUALITIES = (88, 90, 92)
_LICENCES = ("CC BY", "CC BY", "CC BY-NC", "CC0", "NO-CC CODE")


def write_roco(root: Path, seed: int, split: str, count: int, on_image: OnImage) -> list[Fact]:
    """Writes one split: JPEG images, ``captions.txt``, ``dlinks.txt`` and ``licences.txt``.

    Args:
        root: The phantom set's root; ``roco/`` is made below it. ``masks/roco`` must exist.
        seed: The user's seed.
        split: ``train``, ``val`` or ``test``.
        count: Number of images.
        on_image: Called after each image.
    """
    folder = root / "roco" / "data" / SPLIT_FOLDERS[split] / "radiology"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    captions: list[str] = []
    links: list[str] = []
    licences = ["ROCO_ID,PMC_ID,CC"]
    facts_list: list[Fact] = []
    for figure in medical_figures(seed, f"roco/{split}", count, _FIRST_ARTICLE[split]):
        article = figure.article
        image_id = f"ROCO_{_FIRST_ID[split] + figure.index:05d}"
        path = folder / "images" / f"{image_id}.jpg"
        save_jpeg(figure.image, path, pick(figure.meta, _QUALITIES))
        source = f"phantom-{article}-g{figure.place:03d}.jpg"
        captions.append(f"{image_id}\t {figure.caption}")
        links.append(
            f"{image_id}\twget -r ftp://phantom.invalid/pub/pmc/oa_package/"
            f"{article % 97:02x}/{article % 89:02x}/PMC{article}.tar.gz -P /path/to/Dir\t{source}"
        )
        licences.append(f"{image_id},PMC{article}_{source},{pick(figure.meta, _LICENCES)}")
        facts_list.append(
            {
                "image_id": image_id,
                "dataset": DATASET,
                "split": split,
                "group_id": f"PMC{article}",
                **figure.facts.as_dict(),
                "captions": [figure.caption],
                "image": path.relative_to(root).as_posix(),
                "mask": save_mask(root, DATASET, image_id, figure.drawn.mask),
            }
        )
        on_image()
    write_lines(folder / "captions.txt", captions)
    write_lines(folder / "dlinks.txt", links)
    write_lines(folder / "licences.txt", licences)
    return facts_list
