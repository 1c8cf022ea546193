"""One process of a distributed test, started as a script: ``ddp_worker.py MODE OUTPUT_FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tiny
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lavis_msmedcap.common.errors import DataError, SharedDataError
from lavis_msmedcap.datasets.caption_datasets import MedCapEvalDataset
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.datasets.skipping import SkippedImage
from lavis_msmedcap.processors.image_processors import MSMedCapImageEvalProcessor
from lavis_msmedcap.runners.image_check import check_eval_images
from lavis_msmedcap.runners.loaders import eval_data, train_loader
from lavis_msmedcap.runners.nonfinite import NonFiniteError
from lavis_msmedcap.runners.precision import Precision
from lavis_msmedcap.runners.schedule import LRSchedule, SchedulePlan
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.runners.skipped_images import SkippedImages
from lavis_msmedcap.runners.training_loop import TrainingLoop

CPU = torch.device("cpu")
DOMAINS = {"coco": "general", "roco": "medical"}


def datasets() -> dict[str, dict[str, Any]]:
    return {
        name: {
            "train": tiny.TinyDataset(name, domain, 16, "train", 1),
            "val": tiny.TinyDataset(name, domain, 5, "val", 2),
            "test": tiny.TinyDataset(name, domain, 3, "test", 3),
        }
        for name, domain in DOMAINS.items()
    }


def train_loop(batch_size: int, accumulate: int = 1, poison: str = "") -> dict[str, Any]:
    """Two epochs of the plain loop; the joint run calls this too, in one process."""
    model: Any = tiny.TinyModel(poison=poison)
    if dist.is_initialized():
        model = DistributedDataParallel(model, find_unused_parameters=True)
    bare = getattr(model, "module", model)
    optimizer = torch.optim.SGD(bare.get_optimizer_params(weight_decay=0.0), lr=0.05)
    schedule = LRSchedule(optimizer, "constant_lr", SchedulePlan(init_lr=0.05))
    listener = tiny.Silent()
    loop = TrainingLoop(
        model,
        lambda m, s: m(s),
        optimizer,
        schedule,
        Precision("off", CPU),
        listener,
        accumulate=accumulate,
        clip_grad_norm=1.0,
        log_freq=1,
    )
    settings = RunSettings(batch_size_train=batch_size, seed=5)
    loader = train_loader(datasets(), DOMAINS, settings, CPU)
    error = None
    try:
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)
            loop.run_epoch(loader, epoch)
    except NonFiniteError as found:
        error = {"message": str(found), "step": found.step, "image_ids": found.image_ids}
    return {
        "means": [means for _, means in listener.logs],
        "norms": [report.grad_norm for report in listener.steps],
        "images": [report.images for report in listener.steps],
        "weights": {n: p.flatten().tolist() for n, p in bare.trainable_state_dict().items()},
        "error": error,
    }


def whole_runs(folder: Path) -> dict[str, Any]:
    """The registered runner with both tasks."""
    from omegaconf import OmegaConf

    from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
    from lavis_msmedcap.tasks.medical_captioning import MedicalCaptioningTask
    from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

    found = {}
    for name, task in (
        ("pretrain", MixedSemanticPretrainTask()),
        ("caption", MedicalCaptioningTask()),
    ):
        run = {
            "output_dir": str(folder / name),
            "max_epoch": 2,
            "batch_size_train": 2,
            "batch_size_eval": 2,
            "init_lr": 0.05,
            "log_freq": 2,
            "device": "cpu",
            "valid_splits": ["val"],
            "test_splits": ["test"],
        }
        whole = OmegaConf.create({"scale": "demo", "model": {}, "datasets": {}, "run": run})
        cfg = SimpleNamespace(
            config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
        )
        runner = RunnerMSMedCap(cfg, task, tiny.TinyModel(), datasets(), "job")
        runner.train()
        found[name] = {
            "directory": str(runner.output_dir),
            "best": runner.state.best_metric,
            "weights": {
                n: p.flatten().tolist()
                for n, p in runner.unwrap_dist_model(runner.model).trainable_state_dict().items()
            },
        }
    return found


def failing_run(folder: Path) -> dict[str, Any]:
    """A run in which the second rank alone meets something it cannot take."""
    from omegaconf import OmegaConf

    from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
    from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

    class Fails(MixedSemanticPretrainTask):
        def train_step(self, **_: Any) -> Any:
            if dist.get_rank() == 1:
                raise RuntimeError("only here")
            raise KeyError("and here")

    run = {"output_dir": str(folder / "failing"), "batch_size_train": 2, "device": "cpu"}
    whole = OmegaConf.create({"model": {}, "datasets": {}, "run": run})
    cfg = SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )
    runner = RunnerMSMedCap(cfg, Fails(), tiny.TinyModel(), datasets(), "job")
    try:
        runner.train()
    except (RuntimeError, KeyError) as error:
        return {"error": str(error)}
    return {}


def skipped_images() -> dict[str, Any]:
    """Each rank meets one image of its own and one that both meet; at 3 of 16 the ceiling is."""
    data = tiny.TinyDataset("roco", "medical", 16)
    data.max_bad = 2.5 / 16
    tally = SkippedImages({"roco": data})
    rank = dist.get_rank()
    tally.take({"skipped": [SkippedImage("roco", "both.png", "empty")] * (rank + 1)})
    tally.exchange()
    seen = tally.facts()
    tally.take({"skipped": [SkippedImage("roco", f"{rank}.png", "empty")]})
    try:
        tally.exchange()
    except DataError as error:
        return {"seen": seen, "error": str(error)}
    return {"seen": seen, "error": None}


def image_check(folder: Path) -> dict[str, Any]:
    """Looks at six images of which two are broken; mends them, looks again, and once more."""
    dataset = MedCapEvalDataset(
        [
            MedCapRecord(str(path), ("CT",), path.stem, "val", None, "roco", "medical")
            for path in sorted(folder.glob("*.png"))
        ],
        NotingProcessor(64, 128),
        str,
        name="roco",
        domain="medical",
    )
    seen = dataset.vis_processor.seen
    settings = RunSettings(num_workers=0)
    split = eval_data({"roco": {"val": dataset}}, "val", settings, CPU)
    found: dict[str, Any] = {"seen": [], "errors": []}
    for _ in range(3):
        seen.clear()
        try:
            check_eval_images([split])
        except SharedDataError as error:
            found["errors"].append(str(error))
        found["seen"].append(sorted(seen))
        dist.barrier()
        if dist.get_rank() == 0:
            for path in folder.glob("*.png"):
                if path.read_bytes() == b"<html>":
                    path.write_bytes((folder / "sound").read_bytes())
        dist.barrier()
    return found


class NotingProcessor(MSMedCapImageEvalProcessor):
    """Notes which images were read."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.seen: list[str] = []

    def read(self, image: str) -> Any:
        self.seen.append(Path(image).name)
        return super().read(image)


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    dist.init_process_group("gloo", init_method="env://")
    if mode == "loop":
        result = {
            "plain": train_loop(4),
            "accumulated": train_loop(2, accumulate=3),
            "poisoned": train_loop(4, poison="roco_train_002"),
            "skipped": skipped_images(),
            "failing": failing_run(folder),
        }
    elif mode == "images":
        result = image_check(folder)
    else:
        result = whole_runs(folder)
    rank = os.environ["RANK"]
    (folder / f"rank{rank}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
