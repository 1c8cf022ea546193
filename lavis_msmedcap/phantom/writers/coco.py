"""General phantoms in the format of COCO 2014 captions."""

from __future__ import annotations

from pathlib import Path

from lavis_msmedcap.phantom.general import render_general
from lavis_msmedcap.phantom.general_facts import general_captions, sample_general_facts
from lavis_msmedcap.phantom.seeding import rng_for
from lavis_msmedcap.phantom.writers.files import Fact, OnImage, save_jpeg, to_json

DATASET = "coco2014_caption"

# COCO numbers images through both splits; the gap lets either split grow on its own
_FIRST_ID = {"train": 1, "val": 500_001}
_JPEG_QUALITY = 90
_CAPTION_SLOTS = 10
_LICENCES = [{"id": 1, "name": "Generated, free of rights", "url": "https://phantom.invalid/"}]


def write_coco(root: Path, seed: int, split: str, count: int, on_image: OnImage) -> list[Fact]:
    """Writes one split: JPEG images and ``captions_<split>2014.json`` with five captions each.

    Args:
        root: The phantom set's root; ``coco/`` is made below it.
        seed: The user's seed.
        split: ``train`` or ``val``.
        count: Number of images.
        on_image: Called after each image.
    """
    folder = root / "coco" / f"{split}2014"
    folder.mkdir(parents=True, exist_ok=True)
    images: list[Fact] = []
    annotations: list[Fact] = []
    facts_list: list[Fact] = []
    for index in range(count):
        number = _FIRST_ID[split] + index
        facts = sample_general_facts(rng_for(seed, f"coco/{split}/facts", index))
        image = render_general(facts, rng_for(seed, f"coco/{split}/pixels", index))
        captions = general_captions(facts, rng_for(seed, f"coco/{split}/captions", index))
        name = f"COCO_{split}2014_{number:012d}"
        save_jpeg(image, folder / f"{name}.jpg", _JPEG_QUALITY)
        images.append(
            {
                "license": 1,
                "file_name": f"{name}.jpg",
                "height": image.height,
                "width": image.width,
                "id": number,
            }
        )
        annotations.extend(
            {"image_id": number, "id": number * _CAPTION_SLOTS + slot, "caption": caption}
            for slot, caption in enumerate(captions)
        )
        facts_list.append(
            {
                "image_id": name,
                "dataset": DATASET,
                "split": split,
                "group_id": None,
                "modality": None,
                **facts.as_dict(),
                "captions": captions,
                "image": f"coco/{split}2014/{name}.jpg",
                "mask": None,
            }
        )
        on_image()
    target = root / "coco" / "annotations" / f"captions_{split}2014.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    info = {"description": "Generated phantoms in COCO 2014 format", "version": "1.0", "year": 2014}
    document = {"info": info, "images": images, "licenses": _LICENCES, "annotations": annotations}
    target.write_text(to_json(document), encoding="utf-8")
    return facts_list
