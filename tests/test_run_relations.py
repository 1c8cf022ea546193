"""What keys must hold together: what is sound, and what the machine has a say in.

Each mistake has its case in `support/broken_relations.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from lavis_msmedcap.run_config import resolve_run_config
from lavis_msmedcap.run_relations.model import model_problems
from lavis_msmedcap.runners.run_directory import obstacle
from lavis_msmedcap.runners.trackers import TRACKERS

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"
CAPTION = "projects/msmedcap/caption.yaml"


def problems(path: str, *options: str) -> list[str]:
    return resolve_run_config(path, [*options, "run.device=cpu"])[1]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


SOUND: dict[str, Sequence[str]] = {
    "ratio of one dataset of two is 0": ["datasets.roco.ratio=0"],
    "run ratio lifts a dataset of ratio 0": [
        "datasets.roco.ratio=0",
        "datasets.medicat.ratio=0",
        "run.train_dataset_ratios.roco=2",
    ],
    "an epoch of one batch per domain": ["run.samples_per_epoch=64"],
    "processors of LAVIS, the same for a domain": [
        f"datasets.{name}.vis_processor.train.name=blip_image_train" for name in ("roco", "medicat")
    ],
    "another text processor": ["datasets.roco.text_processor.train={name: blip_caption}"],
    "augmentation without a cache": [
        "datasets.roco.vis_processor.train.augment={rotation: 3, flip: true}",
        "run.feature_cache_gib=0",
    ],
    "augmentation switched off": ["datasets.roco.vis_processor.train.augment=null"],
    "one objective": ["model.loss_weights={itc: 1, itm: 0, lm: 0}"],
    "one image at a time without objectives that need more": [
        "run.batch_size_train=1",
        "run.batch_size_eval=1",
        "model.loss_weights={itc: 0, itm: 0, lm: 1}",
    ],
    "one image at a time where nothing is validated": [
        "run.batch_size_eval=1",
        "run.valid_splits=[]",
    ],
    "losses of the training data": ["run.valid_splits=[train]"],
    "so many steps": ["run.max_epoch=null", "run.max_iters=100", "run.iters_per_inner_epoch=10"],
    "short windows of two batches": [
        "run.max_epoch=null",
        "run.max_iters=3",
        "run.iters_per_inner_epoch=1",
        "run.accum_grad_iters=2",
    ],
    "recall chooses": ["run.best_metric=fused/r_mean", "run.early_stopping=2"],
    "recall of one dataset chooses": ["run.best_metric=roco/sam/t2i_r5"],
    "nothing is chosen where nothing is trained": [
        "run.evaluate=true",
        "run.valid_splits=[]",
        "run.test_splits=[val]",
        "run.best_metric=loss",
    ],
    "largest seed": ["run.seed=2147483647"],
    "longest text of BERT": ["model.max_txt_len=512"],
    "evaluation alone trains nobody": [
        "run.evaluate=true",
        "run.test_splits=[val]",
        "run.train_splits=[]",
        "run.train_dataset_ratios={coco2014_caption: 0}",
    ],
    "empty mapping that asks for a dataset": ["datasets.roco={}"],
    "world size of one": ["run.world_size=1", "run.distributed=true"],
}


@pytest.mark.parametrize("case", SOUND)
def test_sound(case: str) -> None:
    assert problems(PRETRAIN, *SOUND[case]) == []


@pytest.mark.parametrize(
    "options",
    [
        ["run.max_len=231"],
        ["model.max_txt_len=240"],
        ["model.max_txt_len=10"],
        ["run.max_len=1000", "run.valid_splits=[]", "run.test_splits=[]"],  # nothing is written
        ["model.prompt=''", "run.max_len=239"],
    ],
    ids=" ".join,
)
def test_longest_lengths(options: list[str]) -> None:
    assert problems(CAPTION, "model.stage1=null", *options) == []


def test_published_llm_is_known_without_its_files() -> None:
    told = problems(CAPTION, "scale=paper", "run.max_len=5000", "run.amp=off")
    assert not any("run.max_len" in problem for problem in told)  # no tokenizer to count with
    told = problems(
        CAPTION,
        "model.stage1=null",
        "model.llm.weights=opt-2.7b",
        "run.max_len=5000",
    )
    assert any("of the 2048 positions of the LLM" in problem for problem in told)


def test_tracker_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "mlflow", ("unused", ("no_such_module", "mlflow-skinny")))
    (problem,) = problems(PRETRAIN, "run.trackers=[mlflow]")
    assert problem.endswith("is not installed: pip install mlflow-skinny")


# --- processes and folders ---------------------------------------------------------------------


def test_torchrun_decides_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert problems(PRETRAIN, "run.world_size=2") == []
    (problem,) = problems(PRETRAIN, "run.world_size=4")
    assert "run.world_size is 4, but this is a run of 2 process(es)" in problem
    # images of other processes are negatives too
    assert problems(PRETRAIN, "run.batch_size_train=1", "run.batch_size_eval=1") == []
    (problem,) = problems(PRETRAIN, "run.samples_per_epoch=64")
    assert "one batch of each of 2 domains takes 128 samples" in problem


def test_one_gpu_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    told = resolve_run_config(PRETRAIN, ["run.device=cuda:1"])[1]
    assert any("which would all take that one; set run.device=cuda" in p for p in told)


def test_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert obstacle(str(tmp_path / "a" / "b")) == f"{tmp_path} may not be written to"


def test_looking_for_obstacles_makes_no_folder(tmp_path: Path) -> None:
    assert obstacle(str(tmp_path / "a" / "b")) is None
    assert list(tmp_path.iterdir()) == []


def test_lora_of_no_layer() -> None:
    model = {"llm": {"lora": {"rank": 2, "alpha": 4, "target_modules": []}}}
    config = {"model": model, "datasets": {}, "run": {"device": "cpu"}}
    (problem,) = model_problems(config, {}, ())
    assert "model.llm.lora.target_modules is empty" in problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora", {"rank": 2, "alpha": 4, "target_modules": ["q_proj"]}),
        ("quantization", "int8"),
    ],
)
def test_an_llm_that_trains_or_is_quantised_is_not_divided(key: str, value: object) -> None:
    config = {
        "model": {"llm": {key: value}},
        "datasets": {},
        "run": {"device": "cpu", "shard_llm": True},
    }
    (problem,) = (p for p in model_problems(config, {}, ()) if p.startswith("run.shard_llm"))
    assert f"but model.llm.{key} is" in problem
    assert f"set model.llm.{key}=null, or run.shard_llm=false" in problem
