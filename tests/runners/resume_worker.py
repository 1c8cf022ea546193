"""One process of a stage-1 run that is cut off, started as a script.

``resume_worker.py FOLDER CUT`` takes the settings of the model from ``settings.json`` and images
from ``images.safetensors``. The test calls `run` too, for the parts that one process trains.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn

from lavis_msmedcap.common.distributed import get_rank, get_world_size
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

# isort: split
# beside this file, and in tests/support
import tiny
from tiny_models import SENTENCES, spread

GLOBAL_BATCH = 4
NEVER = 0


class PowerCutError(RuntimeError):
    """Ends a run without any of the steps of an orderly end."""


class Pictures(tiny.TinyDataset):
    """Random pictures with captions of different lengths."""

    def __init__(self, pictures: Tensor, name: str, domain: str, count: int, split: str) -> None:
        super().__init__(name, domain, count, split)
        self.pictures = pictures

    def __getitem__(self, index: int) -> dict[str, Any]:
        words = SENTENCES[index % 2].split()
        picture = self.pictures[(index + len(self.name + self.split)) % len(self.pictures)]
        text = " ".join(words[: 1 + index % len(words)])
        return {**super().__getitem__(index), "image": picture, "text_input": text}


class Watched(MixedSemanticPretrainTask):
    """Notes the images of every step that is trained, and breaks off in the given one."""

    def __init__(self, cut: int) -> None:
        super().__init__()
        self.left = cut
        self.steps: list[tuple[int, int, list[str]]] = []  # epoch, batch, images

    def train_step(self, model: nn.Module, samples: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise PowerCutError
        self.steps.append((samples["epoch"], samples["iters"], list(samples["image_id"])))
        return super().train_step(model, samples)


def run(folder: Path, output: Path, cut: int = NEVER) -> dict[str, Any]:
    """Trains, or goes on with, the one run below ``output``."""
    images = load_file(folder / "images.safetensors")["images"]
    torch.manual_seed(0)
    model = Blip2DualQformer.from_config(json.loads((folder / "settings.json").read_text()))
    spread(model.branches)
    whole: Any = OmegaConf.create(
        {
            "model": {},
            "datasets": {},
            "run": {
                "output_dir": str(output),
                "max_epoch": 2,
                "batch_size_train": GLOBAL_BATCH // get_world_size(),
                "batch_size_eval": GLOBAL_BATCH // get_world_size(),
                "init_lr": 1e-3,
                "warmup_steps": 3,
                "log_freq": 1,
                "device": "cpu",
                "valid_splits": ["val"],
                "resume": "auto",
                "save_every_minutes": 1e-9,
            },
        }
    )
    config = SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )
    data = {
        name: {
            "train": Pictures(images, name, domain, 12, "train"),
            "val": Pictures(images, name, domain, 4, "val"),
        }
        for name, domain in (("coco", "general"), ("roco", "medical"))
    }
    task = Watched(cut)
    runner = RunnerMSMedCap(config, task, model, data, "job")
    try:
        runner.train()
    except PowerCutError:
        assert cut != NEVER
    if runner._open.lock is not None:
        runner._open.lock.release()  # what the end of the process does
    return {"directory": str(runner.output_dir), "steps": task.steps}


def main() -> None:
    folder, cut = Path(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", init_method="env://")
    found = run(folder, folder / "resumed", cut)
    (folder / f"rank{get_rank()}.json").write_text(json.dumps(found))
    os._exit(0)  # as after a power cut: no rank waits for another


if __name__ == "__main__":
    main()
