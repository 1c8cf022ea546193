"""Trees in real formats with dirt and leaks that are known one by one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from lavis_msmedcap.datasets.records import MedCapRecord


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A picture with structure at several scales, as different from others as photographs are."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (7, 9), dtype=np.uint8)
    big = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return big.filter(ImageFilter.GaussianBlur(1)).convert("RGB")


def jpeg_bytes(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def put(path: Path, content: bytes | str | Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        content.save(path)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_bytes(content)
    return path


def roco(
    root: Path, split: str, entries: dict[str, tuple[str, str, bytes | Image.Image | None]]
) -> Path:
    """Writes a split of a ROCO v1 tree.

    Args:
        root: Folder that holds ``data/``.
        split: Its folder.
        entries: (article, caption, file or None for none) by id.
    """
    folder = root / "data" / split / "radiology"
    put(folder / "captions.txt", "".join(f"{i}\t {c}\n" for i, (_, c, _) in entries.items()))
    rows = [f"{i},{article}_{i}.jpg,CC BY\n" for i, (article, _, _) in entries.items()]
    put(folder / "licences.txt", "ROCO_ID,PMC_ID,CC\n" + "".join(rows))
    for name, (_, _, content) in entries.items():
        if content is not None:
            put(folder / "images" / f"{name}.jpg", content)
    return root


def dirty_tree(root: Path) -> Path:
    """Writes a ROCO tree with one image of each kind of dirt.

    Train: sound 1, 2 and 3; 4 missing, 5 truncated, 6 of 0 bytes, 7 a web page, 8 text, 9 of one
    value, 10 tiny, 11 very long, 12 the same bytes as 1, 13 the same pixels as a PNG of itself.
    """
    whole = jpeg_bytes(picture(5, (300, 200)))
    sound = jpeg_bytes(picture(1))
    train: dict[str, tuple[str, str, bytes | Image.Image | None]] = {
        "ROCO_00001": ("PMC1", "Axial CT of the left kidney.", sound),
        "ROCO_00002": ("PMC2", "Chest\u2028X-ray of a patient.", jpeg_bytes(picture(2))),
        "ROCO_00003": ("PMC3", "TC.", jpeg_bytes(picture(3))),
        "ROCO_00004": ("PMC4", "Ultrasound of the neck.", None),
        "ROCO_00005": ("PMC5", "MRI of the brain.", whole[: len(whole) // 2]),
        "ROCO_00006": ("PMC6", "MRI of the spine.", b""),
        "ROCO_00007": ("PMC7", "MRI of the hip.", b"<!DOCTYPE html><html>404</html>"),
        "ROCO_00008": ("PMC8", "MRI of the wrist.", b"Not found\n" * 20),
        "ROCO_00009": ("PMC9", "MRI of the ankle.", jpeg_bytes(Image.new("RGB", (64, 64), 7))),
        "ROCO_00010": ("PMC10", "MRI of the elbow.", jpeg_bytes(picture(10, (20, 20)))),
        "ROCO_00011": ("PMC11", "MRI of the knee.", jpeg_bytes(picture(11, (400, 40)))),
        "ROCO_00012": ("PMC12", "MRI of the toe.", sound),
        "ROCO_00013": (
            "PMC13",
            "Imagen de resonancia magnética de la rodilla con una lesión.",
            jpeg_bytes(picture(13)),
        ),
    }
    roco(root, "train", train)
    images = root / "data" / "train" / "radiology" / "images"
    with Image.open(images / "ROCO_00013.jpg") as image:
        twin = image.copy()
    # a PNG of the very pixels, under the id of a 14th entry
    put(images / "ROCO_00014.png", twin)
    folder = images.parent
    with (folder / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("ROCO_00014\t MRI of the knee.\nROCO_00015\t \nno tab\n")
    return root


def leaking_trees(folder: Path) -> tuple[Path, Path]:
    """Writes two ROCO trees; the second one's training images contain test images of the first one.

    In the first: train a1 and test a2 come from one article. In the second: train b1 is from the
    article of test a3; train b2 is test a4, saved again and scaled;
    train b3 is test a5, byte for byte; b4 is clean; and val b5 is clean.
    """
    shared, again = jpeg_bytes(picture(105)), picture(104, (400, 320))
    one = folder / "roco"
    roco(one, "train", {"ROCO_1": ("PMC70077", "Axial CT of the abdomen.", jpeg_bytes(picture(1)))})
    test: dict[str, tuple[str, str, bytes | Image.Image | None]] = {
        "ROCO_2": ("PMC70077", "Coronal CT of the abdomen.", jpeg_bytes(picture(2))),
        "ROCO_3": (
            "PMC80088",
            "Radiograph of the hand with a fracture seen.",
            jpeg_bytes(picture(3)),
        ),
        "ROCO_4": ("PMC99", "Sonogram of the liver.", jpeg_bytes(again)),
        "ROCO_5": ("PMC100", "Mammogram.", shared),
    }
    roco(one, "test", test)
    two = folder / "rocov2"
    smaller = again.resize((250, 200), Image.Resampling.LANCZOS)
    train: dict[str, tuple[str, str, bytes | Image.Image | None]] = {
        "B_1": (
            "PMC80088",
            "RADIOGRAPH of the  hand with a fracture seen.",
            jpeg_bytes(picture(4)),
        ),
        "B_2": ("PMC200", "Ultrasound.", jpeg_bytes(smaller, 70)),
        "B_3": ("PMC201", "A breast.", shared),
        "B_4": ("PMC202", "An orthopantomogram.", jpeg_bytes(picture(6))),
    }
    roco(two, "train", train)
    roco(two, "validation", {"B_5": ("PMC203", "A skull.", jpeg_bytes(picture(7)))})
    return one, two


def record(
    number: int, split: str = "train", group: str | None = None, source: str = "roco", **fields: str
) -> MedCapRecord:
    return MedCapRecord(
        image=fields.get("image", f"/images/{source}/{number}.png"),
        captions=(fields.get("caption", f"Caption of image number {number}."),),
        image_id=fields.get("image_id", f"{source}{number}"),
        split=split,
        group_id=group,
        source=source,
        domain="medical",
    )


def manifest_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
