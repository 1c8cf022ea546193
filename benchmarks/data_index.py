"""Seconds and memory for the index of a large data set: read, split, images there, leaks.

python benchmarks/data_index.py [--records 200000]

The index is made up: captions of the length of ROCO's, 1.65 figures per article, and as many empty
files as images, since nothing here opens one. Each format is measured in a process of its own, so
that the peaks do not add up; "records" is what the records alone hold on to at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from lavis_msmedcap.data_check.leaks import GROUP, leaks
from lavis_msmedcap.datasets.readers.medicat import read_medicat
from lavis_msmedcap.datasets.readers.roco import read_roco
from lavis_msmedcap.datasets.readers.selection import (
    drop_missing_images,
    drop_short_captions,
    merge_repeated,
    split_by_group,
)
from lavis_msmedcap.datasets.readers.table import read_table
from lavis_msmedcap.datasets.records import MedCapRecord

WORDS = ("axial", "contrast", "enhanced", "tomography", "of", "the", "left", "lung", "with", "mass")
FIGURES_PER_ARTICLE = 1.65
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
JSONL = "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"

READERS: dict[str, Callable[[Path], Iterator[MedCapRecord]]] = {
    "csv": lambda root: read_table(root / "table.csv", root / "roco/train/radiology/images"),
    "jsonl": lambda root: read_table(root / "table.jsonl", root / "roco/train/radiology/images"),
    "roco tree": lambda root: read_roco(root / "roco", "train"),
    "medicat": lambda root: read_medicat(root / "medicat"),
}


def main() -> None:
    """Makes the files, measures each format in a process of its own, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--measure", nargs=2, metavar=("FORMAT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, folder = arguments.measure
        print(json.dumps(measure(READERS[name], Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), arguments.records)
        steps = ("read", "settle", "split", "images", "leaks")
        print("".join(f"{column:>12}" for column in ("format", *steps, "all", "peak", "records")))
        for name in READERS:
            command = [sys.executable, __file__, "--measure", name, folder]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            facts = json.loads(output)
            seconds = [*(facts[step] for step in steps), sum(facts[step] for step in steps)]
            cells = [*(f"{value:.2f} s" for value in seconds)]
            cells += [f"{facts['peak_mib']:.0f} MiB", f"{facts['record_bytes']:.0f} B"]
            print("".join(f"{cell:>12}" for cell in (name, *cells)))
    # not before: a process starts with the peak of the one that started it, and torch is large
    from _common import machine

    print(f"{arguments.records:,} records on {machine()}")


def measure(read: Callable[[Path], Iterator[MedCapRecord]], root: Path) -> dict[str, float]:
    """Runs every step once.

    Args:
        read: Reads the records of one format.
        root: What `write_index` filled.

    Returns:
        Seconds by step, ``peak_mib`` over what the process had before, ``record_bytes`` each.
    """
    before = _peak_mib()
    facts: dict[str, float] = {}
    records: list[MedCapRecord] = []
    steps: dict[str, Callable[[list[MedCapRecord]], list[MedCapRecord]]] = {
        "read": lambda _: list(read(root)),
        "settle": lambda records: drop_short_captions(merge_repeated(records), 3),
        "split": lambda records: split_by_group(records, SHARES, 0),
        "images": lambda records: drop_missing_images(records, 0.0, "max_missing"),
        "leaks": _without_leaks,
    }
    for name, step in steps.items():
        started = time.perf_counter()
        records = step(records)
        facts[name] = time.perf_counter() - started
    facts["peak_mib"] = _peak_mib() - before
    count = len(records)
    del records
    tracemalloc.start()
    kept = list(read(root))
    facts["record_bytes"] = tracemalloc.get_traced_memory()[0] / len(kept)
    assert count == len(kept)
    return facts


def _without_leaks(records: list[MedCapRecord]) -> list[MedCapRecord]:
    """Looks for articles, images and captions in two splits; a split by article has none in two."""
    assert not leaks(records).of_kind(GROUP)
    return records


def write_index(root: Path, count: int) -> None:
    """Writes the same captions in every format, and an empty file for every image.

    Args:
        root: An empty folder.
        count: Number of records.
    """
    rng = random.Random(0)
    roco, release = root / "roco/train/radiology", root / "medicat/release"
    for folder in (roco / "images", release / "figures"):
        folder.mkdir(parents=True)
    article = 0
    places = {
        "table": root / "table.csv",
        "lines": root / "table.jsonl",
        "captions": roco / "captions.txt",
        "licences": roco / "licences.txt",
        "figures": release / JSONL,
    }
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(path.open("w", encoding="utf-8", newline=""))
            for name, path in places.items()
        }
        rows = csv.writer(files["table"])
        rows.writerow(["image", "caption", "patient_id"])
        files["licences"].write("ROCO_ID,PMC_ID,CC\n")
        for number in range(count):
            article += rng.random() < 1 / FIGURES_PER_ARTICLE
            name, caption = f"ROCO_{number:06d}", " ".join(rng.choices(WORDS, k=20))
            rows.writerow([f"{name}.jpg", f"{caption}, {number}.", f"P{article}"])
            entry = {"image": name, "caption": f"{caption}.", "patient_id": f"P{article}"}
            files["lines"].write(json.dumps(entry) + "\n")
            files["captions"].write(f"{name}\t {caption}.\n")
            files["licences"].write(f"{name},PMC{article}_g{number}.jpg,CC BY\n")
            figure = {"pdf_hash": f"{article:040x}", "fig_uri": f"{number}-Figure1-1.png"}
            figure |= {"s2_caption": f"Figure 1. {caption}.", "s2orc_caption": None}
            files["figures"].write(json.dumps({**figure, "radiology": True, "scope": False}) + "\n")
            (roco / "images" / f"{name}.jpg").touch()
            (release / "figures" / f"{figure['pdf_hash']}_{figure['fig_uri']}").touch()


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
