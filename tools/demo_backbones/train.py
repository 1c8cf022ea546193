"""Trains the miniature backbones of `scale: demo` from a fixed seed (README.md says which).

python tools/demo_backbones/train.py --out lavis_msmedcap/assets/demo
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from clip import train_clip
from opt import train_answers, train_opt
from sam import standardize_sam, train_sam
from vocabularies import train_bpe, train_wordpiece

from lavis_msmedcap.common.paths import cache_root, package_path
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.phantom import PhantomSizes, ensure_phantom
from lavis_msmedcap.phantom.text import general_text, medical_text
from lavis_msmedcap.processors.caption_processors import MSMedCapCaptionProcessor

SEED = 1000  # run configurations use phantoms of seed 0: no backbone has seen their images
SIZES = PhantomSizes(
    coco_train=6000, coco_val=0, roco_train=4000, roco_validation=0, roco_test=0, medicat=0
)
PARTS = ("vocabularies", "clip", "sam", "standardize", "opt", "answers")


def clean(text: str) -> str:
    """Processes a caption as the demo's text processor does."""
    return MSMedCapCaptionProcessor(lower=True)(text)


def language_documents(count: int, seed: int) -> list[str]:
    """Returns shuffled documents for the language model, two thirds of them medical."""
    medical = list(medical_text(seed, 2 * count // 3, transform=clean))
    general = list(general_text(seed, count // 3, transform=clean))
    return list(chain.from_iterable(zip(medical[::2], general, medical[1::2])))


def mask_pairs(root: Path) -> list[tuple[Path, Path]]:
    """Returns image and mask files of all phantoms that have a mask."""
    facts = [json.loads(line) for line in (root / "facts.jsonl").read_text().split("\n") if line]
    return [(root / f["image"], root / f["mask"]) for f in facts if f.get("mask")]


def train(out: Path, parts: list[str]) -> dict[str, Any]:
    """Trains the named parts; returns their figures."""
    root = ensure_phantom(seed=SEED, sizes=SIZES)
    demo = package_path("configs/models/blip2_dual_qformer_demo.yaml").read_text()
    branches = yaml.safe_load(demo)["model"]["branches"]
    figures: dict[str, Any] = {}
    documents = language_documents(45000, SEED)
    if "vocabularies" in parts:
        coco = read_coco(
            root / "coco/annotations/captions_train2014.json", root / "coco/train2014", "train"
        )
        captions = [clean(caption) for record in coco for caption in record.captions]
        texts = [*captions, *documents]
        figures["vocabularies"] = {
            "wordpiece": train_wordpiece(texts, out / "qformer_tokenizer"),
            "bpe": train_bpe(texts, out / "opt"),
        }
    if "clip" in parts:
        figures["clip"] = train_clip(root, out, branches["clip"]["encoder"], SEED)
    if "sam" in parts:
        figures["sam"] = train_sam(mask_pairs(root), out, branches["sam"]["encoder"], SEED)
    if "standardize" in parts:
        settings = branches["sam"]["encoder"]
        figures["standardize"] = standardize_sam(mask_pairs(root), out, settings, SEED)
    if "opt" in parts:
        figures["opt"] = train_opt(documents, out, SEED)
    if "answers" in parts:
        figures["answers"] = train_answers(documents, out, SEED)
    return figures


def main() -> None:
    """Parses arguments, trains, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="assets folder to write")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    started = time.monotonic()
    figures = train(arguments.out, arguments.only)
    figures["seconds"] = round(time.monotonic() - started)
    print(json.dumps(figures, indent=2), "cache:", cache_root())


if __name__ == "__main__":
    main()
