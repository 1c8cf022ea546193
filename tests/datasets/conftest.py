"""Small trees in the real formats, with the dirt that real copies have."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

HASH_A, HASH_B, HASH_C = "a" * 40, "b" * 40, "c" * 40


def picture(seed=0, size=(24, 16)):
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(path: Path, image: Image.Image | None = None, seed=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture(seed)).save(path)
    return path


def write(path: Path, text: str, *, encoding="utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    picture(9, (120, 90)).save(buffer, "JPEG")
    return buffer.getvalue()[:900]


@pytest.fixture
def make():
    """The helpers above, for tests that write their own trees."""
    return SimpleNamespace(
        picture=picture, save=save, write=write, truncated_jpeg=truncated_jpeg, hashes="abc"
    )


@pytest.fixture
def coco_tree(tmp_path):
    root = tmp_path / "coco"
    names = [f"COCO_train2014_{number:012d}.jpg" for number in (9, 25, 30, 34)]
    for seed, name in enumerate(names[:3]):
        save(root / "train2014" / name, seed=seed)
    content = {
        "info": {},
        "licenses": [],
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": 1, "image_id": 0, "caption": "A bowl of food.\n"},
            {"id": 2, "image_id": 1, "caption": "A giraffe."},
            {"id": 3, "image_id": 0, "caption": "Lunch on a table. "},
            {"id": 4, "image_id": 0, "caption": None},
            {"id": 5, "image_id": 2, "caption": "A vase."},
            {"id": 6, "image_id": 3, "caption": "  "},
        ],
    }
    write(root / "annotations" / "captions_train2014.json", "\ufeff" + json.dumps(content))
    return root


@pytest.fixture
def roco_tree(tmp_path):
    """A byte order mark and CRLF in train, PMC file names in validation, dlinks only in test."""
    data = tmp_path / "roco" / "data"
    train = data / "train" / "radiology"
    lines = [
        "ROCO_00001\t Axial CT of the liver.",
        "ROCO_00002\t Chest X-ray.\rSecond line\u2028third.",
        "ROCO_00003\t ",
        "no tab here",
        "ROCO_00004\t Panoramic\tdental radiograph.",
        "ROCO_00001\t Axial CT of the liver, again.",
        "",
    ]
    write(train / "captions.txt", "\ufeff" + "\r\n".join(lines))
    licences = [
        "ROCO_ID,PMC_ID,CC",
        "ROCO_00001,PMC111_a-g1.jpg,CC BY",
        "ROCO_00002,PMC111_a-g2.jpg,CC BY-NC",
        "ROCO_00004,PMC222_b-g1.jpg,NO-CC CODE",
    ]
    write(train / "licences.txt", "\n".join(licences) + "\n")
    for number in (1, 2, 4):
        save(train / "images" / f"ROCO_{number:05d}.jpg", seed=number)

    val = data / "validation" / "radiology"
    write(val / "captions.txt", "ROCO_00011\t MRI of the knee.\nROCO_00012\t Ultrasound.\n")
    write(
        val / "licences.txt",
        "ROCO_ID,PMC_ID,CC\nROCO_00011,PMC333_k.jpg,X\nROCO_00012,PMC444_u.jpg,X\n",
    )
    save(val / "images" / "PMC333_k.jpg", seed=11)
    save(val / "images" / "PMC444_u.jpg", seed=12)

    test = data / "test" / "radiology"
    write(test / "captions.txt", "ROCO_00021\t Scan.\nROCO_00022\t Angiogram.\n")
    link = "wget -r ftp://host/oa_package/8d/34/PMC555.tar.gz -P /x"
    write(test / "dlinks.txt", f"ROCO_00021\t{link}\tscan-g1.jpg\n")
    ramp = np.linspace(0, 4095, 24 * 16).astype(np.uint16).reshape(16, 24)
    save(test / "images" / "ROCO_00021.png", Image.fromarray(ramp))
    save(test / "images" / "ROCO_00022.jpg", seed=22)

    other = data / "train" / "non-radiology"
    write(other / "captions.txt", "ROCO_90001\t A photograph of a hand.\n")
    save(other / "images" / "ROCO_90001.jpg", seed=90)
    return tmp_path / "roco"


def medicat_entry(pdf_hash, uri, **fields):
    entry = {
        "pdf_hash": pdf_hash,
        "fig_uri": uri,
        "fig_key": "Figure1",
        "s2_caption": f"Figure 1. Caption of {uri}.",
        "s2orc_caption": None,
        "s2orc_references": None,
        "radiology": True,
        "scope": False,
    }
    return {**entry, **fields}


@pytest.fixture
def medicat_tree(tmp_path):
    release = tmp_path / "medicat" / "release"
    entries = [
        medicat_entry(HASH_A, "1-Figure1-1.png"),
        medicat_entry(HASH_A, "2-Figure2-1.png", s2_caption=None, s2orc_caption="From the PDF."),
        medicat_entry(HASH_B, "3-Figure1-1.png", s2_caption="", s2orc_caption=None),
        medicat_entry(HASH_B, "4-Figure2-1.png", radiology=False),
        medicat_entry(HASH_C, "5-Figure1-1.png", scope=True),
        medicat_entry(HASH_C, "5-Figure1-1.png"),
    ]
    name = "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
    write(release / name, "".join(json.dumps(entry) + "\r\n" for entry in entries))
    for seed, entry in enumerate(entries[:5]):
        rgba = picture(seed).convert("RGBA")
        save(release / "figures" / f"{entry['pdf_hash']}_{entry['fig_uri']}", rgba)
    return tmp_path / "medicat"
