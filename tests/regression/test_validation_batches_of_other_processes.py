"""On another number of processes, stage 1 was validated with other batches: easier, or harder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from by_path import load_module

from lavis_msmedcap.runners.run_status import JointBatches
from lavis_msmedcap.tasks.medical_captioning import MedicalCaptioningTask
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    return load_module(Path(__file__).parents[1] / "runners" / "tiny.py")


def test_the_joint_batch_of_stage_1_belongs_to_the_run(tiny: ModuleType, tmp_path: Path) -> None:
    first = tiny.make_runner(tmp_path, MixedSemanticPretrainTask(), resume="auto")
    first._open.lock.release()
    other = tiny.make_runner(
        tmp_path, MixedSemanticPretrainTask(), resume="auto", batch_size_eval=2
    )
    assert other.output_dir != first.output_dir


def test_captions_do_not_depend_on_it(tiny: ModuleType, tmp_path: Path) -> None:
    first = tiny.make_runner(tmp_path, MedicalCaptioningTask(), resume="auto")
    first._open.lock.release()
    other = tiny.make_runner(tmp_path, MedicalCaptioningTask(), resume="auto", batch_size_eval=2)
    assert other.output_dir == first.output_dir


@pytest.mark.parametrize(
    ("world_size", "told"),
    [
        (
            2,
            [
                "images of all processes per batch: 12 -> 16, run.batch_size_eval=6"
                " on 2 process(es) makes them the same"
            ],
        ),
        (5, ["images of all processes per batch: 12 -> 16, run.batch_size_eval"]),
    ],
)
def test_what_makes_them_the_same(world_size: int, told: list[str]) -> None:
    assert JointBatches(8, 12).differences(JointBatches(8, 16), world_size) == told
