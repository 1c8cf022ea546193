"""A batch that cannot be read, not the first of its step, cost every step since the last state."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import load_module

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.runners.training_state import StateStore, read_state
from lavis_msmedcap.runners.worker_errors import Ahead
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    return load_module(Path(__file__).parents[1] / "runners" / "tiny.py")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("accumulate", [1, 3, 4, 6])
def test_the_state_before_the_step_is_written(
    tiny: ModuleType, tmp_path: Path, accumulate: int, workers: int
) -> None:
    class Broken(tiny.TinyDataset):  # type: ignore[misc, name-defined]
        def __getitem__(self, index: int) -> Any:
            if self.split == "train" and self.name == "coco" and self.epoch >= 0 and index == 3:
                raise DataError("cannot read image 3")
            return super().__getitem__(index)

    runner = tiny.make_runner(
        tmp_path,
        MixedSemanticPretrainTask(),
        dataset=Broken,
        accum_grad_iters=accumulate,
        num_workers=workers,
        save_every_minutes=0,
    )
    sampler = runner.train_loader.batch_sampler
    sampler.set_epoch(0)
    bad = next(n for n, batch in enumerate(sampler) if 3 in batch)
    with pytest.raises(DataError, match="cannot read image 3"):
        runner.train()
    paths = StateStore(Path(runner.output_dir) / "resume").paths()
    done = [read_state(path)[1].step for path in paths]
    assert done == ([bad // accumulate] if bad >= accumulate else [])


def test_batches_come_in_order_however_far_one_looks() -> None:
    source = Ahead({"n": n} for n in range(7))
    seen = []
    for batch in source:
        seen.append(batch["n"])
        source.look(3)
    assert seen == list(range(7))
    assert source.error is None
