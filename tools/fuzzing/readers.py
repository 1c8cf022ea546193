"""Small valid trees of the data sets that have a reader of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fuzzing.damage import damaged_json
from fuzzing.target import Target
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.medicat import read_medicat
from lavis_msmedcap.datasets.readers.roco import read_roco
from lavis_msmedcap.datasets.readers.roco_kaggle import read_roco_kaggle
from lavis_msmedcap.datasets.readers.rocov2 import read_rocov2


def reader_targets() -> Iterator[Target]:
    """Yields a tree of each data set."""
    folder = "data/train/radiology"
    yield Target(
        "roco",
        {
            f"{folder}/captions.txt": "\ufeffROCO_00001\t CT of the liver.\r\n"
            "ROCO_00002\t MRI \u2028 of the knee (arrow).\r\n".encode(),
            f"{folder}/licences.txt": b"ROCO_ID,PMC_ID,CC\nROCO_00001,PMC11_a-g1.jpg,CC BY\n"
            b'ROCO_00002,"PMC11_b, c.jpg",CC BY\n',
        },
        lambda root: list(read_roco(root, "train")),
    )
    yield Target(
        "roco_links",
        {
            f"{folder}/captions.txt": b"ROCO_00001\t CT of the liver.\n",
            f"{folder}/dlinks.txt": b"ROCO_00001\twget ftp://h/PMC55.tar.gz -P /x\tscan-g1.jpg\n",
        },
        lambda root: list(read_roco(root, "train")),
    )
    yield Target(
        "roco_kaggle",
        {
            "all_data/train/radiologytraindata.csv": b"id,name,caption\n"
            b'ROCO_00001,PMC11_a-g1.jpg," CT, ""axial"" view\n"\n',
            "all_data/train/radiology/images/PMC11_a-g1.jpg": b"",
        },
        lambda root: list(read_roco_kaggle(root, "train")),
    )
    yield Target(
        "rocov2",
        {
            "train_captions.csv": "\ufeffID,Caption\r\nROCOv2_1,CT\r\nROCOv2_2,MRI\r\n".encode(),
            "license_information.csv": b"ID,Link\nROCOv2_1,https://x/PMC77/\n",
            "train_images/train/ROCOv2_1.jpg": b"",
        },
        lambda root: list(read_rocov2(root, "train")),
    )
    entry = {
        "pdf_hash": "a" * 40,
        "fig_uri": "1-Figure1-1.png",
        "s2_caption": "Figure 1. CT of the chest (arrow).",
        "s2orc_caption": None,
        "s2orc_references": ["As Fig. 1 shows"],
        "radiology": True,
        "oa_info": {"doi": "10.1/x", "oa": {"is_oa": True}},
    }
    lines = json.dumps(entry) + "\r\n" + json.dumps({**entry, "fig_uri": "2.png"}) + "\n"
    name = "release/s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
    files = {name: lines.encode()}
    yield Target("medicat", files, lambda root: list(read_medicat(root)), damaged_json)
    coco = {
        "images": [{"id": 1, "file_name": "COCO_train2014_1.jpg"}],
        "annotations": [{"image_id": 1, "id": 5, "caption": "A bowl of food."}],
    }
    karpathy = [{"image": "val2014/2.jpg", "caption": ["A", "B"], "image_id": "coco_2"}]
    for kind, content in (("coco", coco), ("karpathy", karpathy)):
        yield Target(
            kind,
            {"captions.json": json.dumps(content).encode()},
            lambda root: list(read_coco(root / "captions.json", root, "train")),
            damaged_json,
        )
