from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.models.recall import Recall
from lavis_msmedcap.tasks.retrieval_pool import RetrievalPool

CPU = torch.device("cpu")
WIDTH = 16


def encode(texts: Any) -> dict[str, Tensor]:
    """Texts of one dimension each: their number."""
    return {name: torch.stack([axis(int(text[1:])) for text in texts]) for name in ("clip", "sam")}


def axis(number: int) -> Tensor:
    return F.one_hot(torch.tensor(number), WIDTH).float()


def batch(dataset: str, pictures: list[int], texts: list[list[str]]) -> dict[str, Any]:
    return {
        "image": torch.tensor(pictures, dtype=torch.uint8)[:, None],
        "dataset": [dataset] * len(pictures),
        "text_inputs": texts,
    }


def feats(*numbers: int) -> Tensor:
    return torch.stack([axis(number) for number in numbers])[:, None]


def test_each_branch_on_the_images_it_has_looked_at() -> None:
    pool = RetrievalPool()
    sides = {"clip": feats(0, 1), "sam": feats(0, 2)}  # sam takes the second for another
    pool.add(batch("coco", [10, 11], [["t0", "t5"], ["t1"]]), sides)
    missed = torch.full((1, 1, WIDTH), float("nan"))
    pool.add(batch("roco", [12], [["t2"]]), {"clip": missed, "sam": feats(2)})
    found = pool.recalls(encode, CPU)
    assert list(found) == ["clip", "sam", "fused"] + [
        f"{dataset}/{name}"
        for dataset, names in (("coco", ("clip", "sam", "fused")), ("roco", ("sam",)))
        for name in names
    ]
    assert (found["clip"].images, found["clip"].texts) == (2, 3)
    assert (found["sam"].images, found["sam"].texts) == (3, 4)
    assert found["clip"].i2t[0] == 1
    assert found["sam"].i2t[0] == 2 / 3
    assert found["roco/sam"] == Recall(1, 1, (1, 1, 1), (1, 1, 1))


def test_one_dataset_is_told_once() -> None:
    pool = RetrievalPool()
    pool.add(batch("roco", [1, 2], [["t1"], ["t2"]]), {"sam": feats(1, 2)})
    assert list(pool.recalls(encode, CPU)) == ["sam"]


def test_a_picture_twice_is_one_image_with_the_captions_of_both() -> None:
    pool = RetrievalPool()
    pool.add(batch("roco", [1, 2, 1], [["t1"], ["t2"], ["t3"]]), {"sam": feats(1, 2, 1)})
    found = pool.recalls(encode, CPU)["sam"]
    assert (found.images, found.texts) == (2, 3)
    assert found.i2t[0] == 1


def test_a_caption_of_two_images_is_one_text_that_finds_either() -> None:
    pool = RetrievalPool()
    pool.add(batch("roco", [1, 2, 3], [["t1"], ["t1"], ["t3"]]), {"sam": feats(1, 1, 3)})
    found = pool.recalls(encode, CPU)["sam"]
    assert (found.images, found.texts) == (3, 2)
    assert found.i2t[0] == found.t2i[0] == 1


def test_captions_that_cleaning_emptied_are_left_out() -> None:
    pool = RetrievalPool()
    pool.add(batch("roco", [1, 2], [["t1", " "], ["t2"]]), {"sam": feats(1, 2)})
    assert pool.recalls(encode, CPU)["sam"].texts == 2


def test_without_features_there_is_no_recall() -> None:
    pool = RetrievalPool()
    pool.add(batch("roco", [1], [["t1"]]), {})
    assert pool.recalls(encode, CPU) == {}


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    script = Path(__file__).with_name("recall_in_two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    alone, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("alone", "0", "1")
    )
    assert first == second == alone
    assert alone["sam"]["images"] == 11
    assert 0 < alone["fused"]["t2i_r1"] < 1
