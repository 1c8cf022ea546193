"""A run of one process goes on with two, and the other way round, at the same global batch.

Stage 1 with the recipe (G, G+M): batches of one domain, hard negatives, gathered contrasts. The
processes share the joint batch in another way, so that float32 sums run in another order; nothing
else differs. Dropout is 0, see `test_joint_batch`.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lavis_msmedcap.models.checkpoints import read_checkpoint

# of weights of about 1 after 12 AdamW steps of at most 1e-3
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def worker(tiny: ModuleType) -> ModuleType:
    return tiny.load_beside("resume_worker")


@pytest.fixture
def folder(tmp_path: Path, stage1_settings: dict[str, Any], packed_images: Tensor) -> Path:
    stage1_settings["qformer"]["dropout"] = 0.0
    (tmp_path / "settings.json").write_text(json.dumps(stage1_settings))
    save_file({"images": packed_images}, tmp_path / "images.safetensors")
    return tmp_path


def on_two(tiny: ModuleType, folder: Path, cut: int) -> dict[str, Any]:
    """Runs two processes; the images of a step are those of rank 0 before those of rank 1."""
    script = Path(__file__).with_name("resume_worker.py")
    tiny.load_beside("processes").run_ranks(script, str(folder), str(cut))
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["directory"] == second["directory"]
    assert all(len(ids) == 2 for _, _, ids in first["steps"] + second["steps"])
    joint = [(e, i, a + b) for (e, i, a), (_, _, b) in zip(first["steps"], second["steps"])]
    return {"directory": first["directory"], "steps": joint}


def rows(root: str, name: str) -> list[dict[str, float]]:
    """Reads a table, without what the clock says."""
    with (Path(root) / name).open(newline="") as file:
        return [
            {k: float(v) for k, v in row.items() if v and (k == "step" or "loss" in k)}
            for row in csv.DictReader(file)
        ]


def test_one_process_then_two_then_one(tiny: ModuleType, folder: Path, worker: Any) -> None:
    whole = worker.run(folder, folder / "whole")
    parts = [
        worker.run(folder, folder / "resumed", cut=4),  # ends in the fourth step
        on_two(tiny, folder, cut=5),  # in the second epoch
        worker.run(folder, folder / "resumed"),
    ]
    assert len({part["directory"] for part in parts}) == 1
    assert [len(part["steps"]) for part in parts] == [3, 4, 5]

    log = (Path(parts[0]["directory"]) / "log.txt").read_text()
    assert "DDP over 2 processes; some batches leave out parameters" in log

    # the same images at each step, in the same order within the joint batch, each step once
    steps = [tuple(step) for part in parts for step in part["steps"]]
    assert steps == [tuple(step) for step in whole["steps"]]
    assert [step[:2] for step in steps] == [(epoch, i) for epoch in range(2) for i in range(6)]
    assert {len(set(ids)) for _, _, ids in steps} == {worker.GLOBAL_BATCH}

    found, expected = (
        read_checkpoint(Path(root) / "checkpoint_last.safetensors")[0]
        for root in (parts[0]["directory"], whole["directory"])
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # softmax does not see the bias of keys: its gradient is rounding noise, of which AdamW
        # makes steps of full length
        if not name.endswith("key.bias"):
            torch.testing.assert_close(found[name], value, atol=TOLERANCE, rtol=0, msg=name)
    for table in ("metrics.csv", "validation.csv"):
        ours, theirs = (rows(root, table) for root in (parts[0]["directory"], whole["directory"]))
        assert len(ours) == len(theirs) > 1
        for mine, other in zip(ours, theirs):
            assert mine == pytest.approx(other, abs=1e-4)
