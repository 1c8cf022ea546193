"""What took the place of an unreadable image could stand in the batch already.

ITC and ITM then took its own caption for a wrong one. Where training data are evaluated, another
image was evaluated in its place.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.datasets.caption_datasets import MedCapTrainDataset
from lavis_msmedcap.datasets.mixing import BatchPlan, JoinedDataset, PlannedBatchSampler
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.runners.loaders import eval_data
from lavis_msmedcap.runners.settings import RunSettings

COUNTS = {"roco": 26, "medicat": 18}


def dataset(folder: Path, name: str) -> MedCapTrainDataset:
    """Every third image is broken."""
    records = []
    for index in range(COUNTS[name]):
        path = folder / f"{name}{index}.png"
        Image.new("RGB", (2, 2), (index, 0, 0)).save(path)
        if index % 3 == 0:
            path.write_bytes(b"<html>")
        records.append(
            MedCapRecord(str(path), ("CT",), f"{name}{index}", "train", None, name, "medical")
        )

    def vector(picture: Image.Image) -> torch.Tensor:
        return torch.tensor(picture.getpixel((0, 0)))

    return MedCapTrainDataset(
        records, vector, str, name=name, domain="medical", on_bad="skip", max_bad=1.0
    )


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_no_image_twice_in_a_global_batch(tmp_path: Path, world: int, workers: int) -> None:
    joined = JoinedDataset({name: dataset(tmp_path, name) for name in COUNTS}, seed=0)
    ranks: list[list[dict[str, Any]]] = []
    for rank in range(world):
        plan = BatchPlan(joined.specs(), 8 // world, 0, rank=rank, world_size=world)
        sampler = PlannedBatchSampler(plan, joined)
        loader = DataLoader(
            joined, batch_sampler=sampler, num_workers=workers, collate_fn=joined.collater
        )
        found = []
        for epoch in range(4):
            sampler.set_epoch(epoch)
            found += list(loader)
        ranks.append(found)
    skipped = 0
    for parts in zip(*ranks):
        ids = [image_id for part in parts for image_id in part["image_id"]]
        assert max(Counter(ids).values()) == 1
        skipped += sum(len(part.get("skipped", ())) for part in parts)
    assert skipped > 20


def test_nothing_stands_in_where_training_data_are_evaluated(tmp_path: Path) -> None:
    datasets = {"roco": {"train": dataset(tmp_path, "roco")}}
    settings = RunSettings(batch_size_eval=4, num_workers=0)
    evaluation = eval_data(datasets, "train", settings, torch.device("cpu"))
    with pytest.raises(BadImageError, match=r"roco0\.png.*web page"):
        list(evaluation.loader)
