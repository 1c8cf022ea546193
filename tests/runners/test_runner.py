"""The registered runner with both tasks, on a tiny model and datasets in memory."""

from __future__ import annotations

import csv
import json
import logging
import random
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.runners.nonfinite import NonFiniteError
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.tasks._base import MSMedCapTask
from lavis_msmedcap.tasks.medical_captioning import MedicalCaptioningTask
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


class ScriptedTask(MSMedCapTask):
    """Gives the metrics that a test asks for, one per validation."""

    def __init__(self, metrics: list[float | None]):
        super().__init__()
        self.metrics = list(metrics)
        self.seen: list[tuple[str, Any, str]] = []

    def valid_step(self, _model: Any, samples: Any) -> list[dict[str, Any]]:
        return [{"image_id": image_id} for image_id in samples["image_id"]]

    def after_evaluation(self, split_name: str, epoch: Any, **facts: Any) -> Any:
        self.seen.append((split_name, epoch, facts["weights"]))
        return {"agg_metrics": self.metrics.pop(0)} if self.metrics else {"agg_metrics": None}


def config(tmp_path: Path, **run: Any) -> Any:
    sections = {
        "scale": "demo",
        "model": {"arch": "tiny"},
        "datasets": {"coco": {"domain": "general"}, "roco": {"domain": "medical"}},
        "run": {
            "output_dir": str(tmp_path / "out"),
            "max_epoch": 2,
            "batch_size_train": 4,
            "batch_size_eval": 4,
            "init_lr": 0.05,
            "lr_sched": "constant_lr",
            "weight_decay": 0.0,
            "log_freq": 2,
            "seed": 7,
            "device": "cpu",
            "evaluate": False,
            "train_splits": ["train"],
            "valid_splits": ["val"],
            "test_splits": ["test"],
            "num_beams": 3,
            "max_len": 12,
            "min_len": 2,
            **run,
        },
    }
    whole = OmegaConf.create(sections)
    return SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )


def datasets(tiny: ModuleType, train: int = 8, val: int = 5) -> dict[str, dict[str, Any]]:
    return {
        name: {
            split: tiny.TinyDataset(name, domain, count, split, seed)
            for seed, (split, count) in enumerate((("train", train), ("val", val), ("test", 3)))
        }
        for name, domain in (("coco", "general"), ("roco", "medical"))
    }


def make(tiny: ModuleType, tmp_path: Path, task: Any = None, model: Any = None, **run: Any) -> Any:
    data = run.pop("data", None) or datasets(tiny)
    return RunnerMSMedCap(
        config(tmp_path, **run),
        MixedSemanticPretrainTask() if task is None else task,
        tiny.TinyModel() if model is None else model,
        data,
        "job",
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_stage_1_run_from_end_to_end(tiny: ModuleType, tmp_path: Path):
    runner = make(tiny, tmp_path, max_epoch=10)
    frozen = runner.model.encoder.weight.clone()
    runner.train()
    directory = runner.output_dir
    assert directory.parent == tmp_path / "out"
    assert sorted(p.name for p in directory.iterdir() if p.name != ".lock") == [
        "checkpoint_best.safetensors",
        "checkpoint_last.safetensors",
        "config.yaml",
        "data_summary.json",
        "environment.json",
        "log.txt",
        "metrics.csv",
        "result",
        "status.json",
        "tensorboard",
        "validation.csv",
    ]
    assert OmegaConf.load(directory / "config.yaml").run.seed == 7
    assert torch.equal(runner.model.encoder.weight, frozen)

    rows = table(directory / "metrics.csv")
    assert list(rows[0]) == [
        "epoch",
        "step",
        "images_seen",
        "lr",
        "grad_norm",
        "images_per_second",
        "seconds",
        "data_wait",
        "memory_gib",
        "loss",
        "clip/loss_lm",
        "coco/clip/loss_lm",
        "coco/sam/loss_lm",
        "roco/sam/loss_lm",
        "sam/loss_lm",
    ]
    assert [int(row["step"]) for row in rows] == list(range(2, 41, 2))  # 4 steps x 10 epochs
    assert [int(row["images_seen"]) for row in rows] == list(range(8, 161, 8))
    assert {row["lr"] for row in rows} == {"0.05"}
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert all(float(row["grad_norm"]) > 0 for row in rows)
    assert all(float(row["images_per_second"]) > 0 for row in rows)

    validation = table(directory / "validation.csv")
    assert [int(row["epoch"]) for row in validation] == list(range(1, 11))
    assert all(float(r["agg_metrics"]) == -float(r["loss"]) for r in validation)
    log = (directory / "log.txt").read_text()
    assert "trainable: 14" in log
    assert "epoch 1/10, step 2/40: loss" in log
    assert re.search(r"\d+:\d\d left", log)


def test_checkpoints_hold_the_trainable_parameters_and_the_facts(tiny: ModuleType, tmp_path: Path):
    runner = make(tiny, tmp_path)
    runner.train()
    tensors, facts = read_checkpoint(runner.output_dir / "checkpoint_last.safetensors")
    assert sorted(tensors) == ["clip.bias", "clip.weight", "sam.bias", "sam.weight"]
    assert (facts["epoch"], facts["global_step"], facts["scale"]) == ("2", "8", "demo")
    assert facts["arch"] == "tiny"
    metrics = [float(row["agg_metrics"]) for row in table(runner.output_dir / "validation.csv")]
    assert float(facts["best_metric"]) == pytest.approx(max(metrics))
    assert facts["best_epoch"] == str(metrics.index(max(metrics)) + 1)


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ([0.0, 0.0, 0.0], 1),
        ([-3.0, -2.0, -2.5], 2),
        ([-3.0, float("nan"), -2.0], 3),
        ([None, 0.25, 0.5], 3),
        ([None, None, None], None),
    ],
)
def test_the_best_epoch(
    tiny: ModuleType, tmp_path: Path, metrics: list[float | None], best: int | None
):
    task = ScriptedTask(metrics)
    runner = make(tiny, tmp_path, task, max_epoch=3)
    runner.train()
    best_file = runner.output_dir / "checkpoint_best.safetensors"
    assert (runner.output_dir / "checkpoint_last.safetensors").is_file()
    assert runner.state.best_epoch == best
    assert best_file.is_file() == (best is not None)
    used = "checkpoint_last.safetensors" if best is None else best_file.name
    assert task.seen[-1] == ("test", "best" if best else 3, used)
    tensors, facts = read_checkpoint(runner.output_dir / used)
    assert facts["epoch"] == str(best or 3)
    for name, tensor in tensors.items():
        assert torch.equal(dict(runner.model.named_parameters())[name], tensor)


def test_a_checkpoint_that_cannot_be_written_shows_before_training(
    tiny: ModuleType, tmp_path: Path
):
    class Unfit(tiny.TinyModel):  # type: ignore[name-defined]
        def checkpoint_metadata(self) -> dict[str, str]:
            raise TypeError("not JSON")

    runner = make(tiny, tmp_path, model=Unfit())
    before = runner.model.trainable_state_dict()
    with pytest.raises(TypeError, match="not JSON"):
        runner.train()
    for name, value in before.items():
        assert torch.equal(runner.model.trainable_state_dict()[name], value)
    assert not (runner.output_dir / "metrics.csv").exists()


def test_without_validation_and_test_there_is_still_a_checkpoint(tiny: ModuleType, tmp_path: Path):
    runner = make(tiny, tmp_path, valid_splits=[], test_splits=None)
    runner.train()
    assert (runner.output_dir / "checkpoint_last.safetensors").is_file()
    assert not (runner.output_dir / "checkpoint_best.safetensors").exists()
    assert runner.evaluate() == {}


def test_two_runs_in_one_process_keep_apart_and_agree(tiny: ModuleType, tmp_path: Path):
    runs = []
    for _ in range(2):
        random.seed(0)  # a seeded process must still get two directories
        torch.manual_seed(0)
        runner = make(tiny, tmp_path)
        assert registry.get_path("result_dir") == str(runner.output_dir / "result")
        runner.train()
        runs.append(runner)
    first, second = (table(run.output_dir / "metrics.csv") for run in runs)
    assert runs[0].output_dir != runs[1].output_dir
    assert [row["loss"] for row in first] == [row["loss"] for row in second]
    assert runs[1].output_dir.name not in (runs[0].output_dir / "log.txt").read_text()
    files = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    assert files == [] or all("log.txt" not in handler.baseFilename for handler in files)


def test_validation_does_not_change_the_training(tiny: ModuleType, tmp_path: Path):
    class Noisy(tiny.TinyModel):  # type: ignore[name-defined]
        def forward(self, samples: Any) -> Any:
            output = super().forward(samples)
            return {**output, "loss": output["loss"] * (0.5 + torch.rand(()))}

    losses = []
    for valid in ([], ["val"]):
        torch.manual_seed(3)
        model = Noisy()
        torch.manual_seed(3)
        runner = make(tiny, tmp_path, model=model, valid_splits=valid, test_splits=[])
        runner.train()
        losses.append([row["loss"] for row in table(runner.output_dir / "metrics.csv")])
    assert losses[0] == losses[1]


def test_batch_size_one(tiny: ModuleType, tmp_path: Path):
    runner = make(tiny, tmp_path, batch_size_train=1, batch_size_eval=1, max_epoch=1)
    runner.train()
    assert runner.state.global_step == 16


def test_accumulation_counts_optimizer_steps(tiny: ModuleType, tmp_path: Path):
    runner = make(tiny, tmp_path, accum_grad_iters=3, max_epoch=2)  # 4 batches: 3 + 1
    runner.train()
    assert runner.steps_per_epoch == 2
    assert runner.state.global_step == 4


def test_too_little_data_is_told_before_a_directory_is_made(tiny: ModuleType, tmp_path: Path):
    with pytest.raises(DataError, match="batch_size_train"):
        make(tiny, tmp_path, data=datasets(tiny, train=3))
    assert not (tmp_path / "out").exists()


def test_a_nan_stops_the_run_and_is_in_the_log(tiny: ModuleType, tmp_path: Path):
    runner = make(tiny, tmp_path, model=tiny.TinyModel(poison="roco_train_002"))
    with pytest.raises(NonFiniteError, match="roco_train_002"):
        runner.train()
    assert "roco_train_002" in (runner.output_dir / "log.txt").read_text()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"valid_splits": ["vall"]}, r"run\.valid_splits: no dataset has a split 'vall'"),
        ({"train_splits": ["trian"]}, r"run\.train_splits is \['trian'\]"),
        ({"train_splits": ["train", "val"]}, r"run\.train_splits is \['train', 'val'\]"),
        ({"train_splits": []}, r"run\.train_splits is \[\]"),
        ({"train_dataset_ratios": {"rocco": 2}}, r"run\.train_dataset_ratios\.rocco"),
        ({"resume": "x"}, r"run\.resume: .*x holds no state"),
        ({"device": "cuda:9"}, r"run\.device"),
        ({"device": "gpu"}, r"run\.device"),
        ({"lr_sched": "cosine"}, r"run\.lr_sched"),
    ],
)
def test_settings_that_cannot_work(tiny: ModuleType, tmp_path: Path, run: Any, words: str):
    with pytest.raises(ConfigError, match=words):
        make(tiny, tmp_path, **run)
    assert not (tmp_path / "out").exists()


def test_a_domain_that_no_branch_trains_on(tiny: ModuleType, tmp_path: Path):
    model = tiny.TinyModel()
    model.train_domains = {"general"}
    with pytest.raises(ConfigError, match=r"datasets\.roco is of domain medical"):
        make(tiny, tmp_path, model=model)


def test_ratios_change_what_is_drawn(tiny: ModuleType, tmp_path: Path):
    runner = make(tiny, tmp_path, train_dataset_ratios={"coco": 2, "roco": 0.5})
    drawn = [name for batch in runner.train_loader for name in batch["dataset"]]
    assert (drawn.count("coco"), drawn.count("roco")) == (16, 4)


def test_epochs_differ_and_reach_the_datasets(tiny: ModuleType, tmp_path: Path):
    data = datasets(tiny)
    runner = make(tiny, tmp_path, data=data, max_epoch=3, valid_splits=[], test_splits=[])
    runner.train()
    assert data["coco"]["train"].epoch == 2
    orders = []
    for epoch in range(2):
        runner.train_loader.batch_sampler.set_epoch(epoch)
        orders.append([i for batch in runner.train_loader for i in batch["image_id"]])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_evaluating_only(tiny: ModuleType, tmp_path: Path):
    task = ScriptedTask([0.5, 0.25])
    runner = make(tiny, tmp_path, task, evaluate=True)
    runner.train()
    weights = ("given", "the weights that the run started from")
    assert task.seen == [("val", *weights), ("test", *weights)]
    assert "train" not in runner.dataloaders
    assert not list(runner.output_dir.glob("checkpoint*"))

    task = ScriptedTask([0.5])
    runner = make(tiny, tmp_path, task, evaluate=True, test_splits=[])
    assert runner.evaluate(skip_reload=True) == {"val": {"agg_metrics": 0.5}}


def test_captioning_writes_predictions_and_scores(tiny: ModuleType, tmp_path: Path):
    run = {"valid_splits": ["val"], "test_splits": ["test"], "report": False}
    task = MedicalCaptioningTask.setup_task(config(tmp_path, **run))
    runner = make(tiny, tmp_path, task, max_epoch=1, **run)
    runner.train()
    predictions = json.loads((runner.result_dir / "predictions_val.json").read_text())
    assert len(predictions) == 10
    assert predictions[0] == {
        "image_id": "coco_val_000",
        "dataset": "coco",
        "caption": "caption 0",
        "references": ["caption 0", "caption 0 again"],
        "image": "/nowhere/coco_val_000.png",
    }
    metrics = json.loads((runner.result_dir / "metrics_test.json").read_text())
    assert metrics["weights"] == "checkpoint_best.safetensors"
    assert metrics["decoding"]["max_length"] == 12
    assert runner.model.generate_kwargs == {
        "use_nucleus_sampling": False,
        "num_beams": 3,
        "max_length": 12,
        "min_length": 2,
        "length_penalty": 1.0,
        "repetition_penalty": 1.0,
    }
    [row] = table(runner.output_dir / "validation.csv")
    assert float(row["agg_metrics"]) == pytest.approx(float(row["CIDEr"]))
    assert "the deciding metric is CIDEr" in (runner.output_dir / "log.txt").read_text()


def test_at_most_so_many_evaluation_images(tiny: ModuleType, tmp_path: Path):
    task = MedicalCaptioningTask()
    runner = make(tiny, tmp_path, task, max_eval_samples=2, evaluate=True, test_splits=[])
    runner.evaluate()
    predictions = json.loads((runner.result_dir / "predictions_val.json").read_text())
    assert [p["image_id"] for p in predictions] == [
        "coco_val_000",
        "coco_val_002",
        "roco_val_000",
        "roco_val_002",
    ]


def test_worker_processes_load_the_same_batches(tiny: ModuleType, tmp_path: Path):
    ids = []
    for workers in (0, 1):
        runner = make(tiny, tmp_path, num_workers=workers)
        ids.append([batch["image_id"] for batch in runner.train_loader])
    assert ids[0] == ids[1]
