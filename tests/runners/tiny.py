"""A small model with the interface of ours, and datasets that live in memory.

Kept as a plain file (not a test module), because processes started by a test import it too.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

WIDTH = 6


class TinyDataset(Dataset):
    """Images are short vectors; the target is a fixed linear function of them."""

    def __init__(self, name: str, domain: str, count: int, split: str = "train", seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.name = name
        self.domain = domain
        self.split = split
        self.ratio = 1.0
        self.epoch = -1
        self.images = torch.randn(count, WIDTH, generator=generator)
        self.image_ids = [f"{name}_{split}_{index:03d}" for index in range(count)]
        self.records = [SimpleNamespace(image_id=image_id) for image_id in self.image_ids]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        caption = f"caption {index % 3}"
        item = {
            "image": self.images[index],
            "text_input": caption,
            "image_id": self.image_ids[index],
            "instance_id": f"{self.image_ids[index]}/0",
            "dataset": self.name,
            "domain": self.domain,
            "image_path": f"/nowhere/{self.image_ids[index]}.png",
        }
        if self.split != "train":
            item["references"] = [caption, f"{caption} again"]
        return item

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {key: [s[key] for s in samples] for key in samples[0]}
        batch["image"] = torch.stack(batch["image"])
        return batch


class TinyModel(nn.Module):
    """Two branches on one frozen encoder; medical images pass through ``sam`` only."""

    def __init__(self, seed: int = 0, poison: str = ""):
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Linear(WIDTH, WIDTH)
        self.encoder.requires_grad_(False)
        self.clip = nn.Linear(WIDTH, 1)
        self.sam = nn.Linear(WIDTH, 1)
        self.poison = poison

    @property
    def device(self) -> torch.device:
        return self.clip.weight.device

    def forward(self, samples: dict[str, Any]) -> dict[str, Any]:
        features = self.encoder(samples["image"])
        target = samples["image"].sum(dim=1) * 0.3 + 0.5
        general = torch.tensor([d == "general" for d in samples["domain"]], device=features.device)
        logs: dict[str, Tensor] = {}
        per_sample: dict[str, Tensor] = {}
        loss = features.new_zeros(())
        takes_part = {"clip": general, "sam": torch.ones_like(general)}
        for name, mask in takes_part.items():
            if not mask.any():
                continue
            error = (getattr(self, name)(features[mask]).squeeze(1) - target[mask]) ** 2
            values = error.new_full((len(mask),), float("nan"))
            values[mask] = error.detach()
            for index, image_id in enumerate(samples["image_id"]):
                if image_id == self.poison:
                    error = error * float("nan")
                    values[index] = float("nan")
            key = f"{name}/loss_lm"
            per_sample[key] = values
            logs[key] = error.mean().detach()
            loss = loss + error.mean()
        return {"loss": loss, "logs": logs, "per_sample": per_sample}

    def generate(self, samples: dict[str, Any], **kwargs: Any) -> list[str]:
        self.generate_kwargs = kwargs
        return [f"caption {int(image_id[-3:]) % 3}" for image_id in samples["image_id"]]

    def get_optimizer_params(self, weight_decay: float, **_: Any) -> list[dict[str, Any]]:
        trainable = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]

    def trainable_state_dict(self) -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in self.named_parameters() if p.requires_grad}

    def load_trainable_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        own = {n: p for n, p in self.named_parameters() if p.requires_grad}
        assert own.keys() == state_dict.keys()
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state_dict[name])

    def checkpoint_metadata(self) -> dict[str, str]:
        return {"arch": "tiny"}

    def describe_trainable(self) -> str:
        return f"trainable: {sum(p.numel() for p in self.parameters() if p.requires_grad)}"


def batch_of(dataset: TinyDataset, indices: list[int]) -> dict[str, Any]:
    return dataset.collater([dataset[index] for index in indices])


def make_runner(
    folder: Any, task: Any, model: nn.Module | None = None, dataset: Any = None, **run: Any
) -> Any:
    """The registered runner, for 3 epochs of 10 steps over both domains."""
    from omegaconf import OmegaConf

    from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap

    domains = {"coco": "general", "roco": "medical"}
    section = {
        "output_dir": str(folder),
        "max_epoch": 3,
        "batch_size_train": 4,
        "batch_size_eval": 4,
        "init_lr": 0.05,
        "warmup_steps": 3,
        "log_freq": 2,
        "device": "cpu",
        "valid_splits": ["val"],
        "save_every_minutes": 1e-9,
        **run,
    }
    whole: Any = OmegaConf.create(
        {
            "model": {"arch": "tiny"},
            "datasets": {name: {"domain": domain} for name, domain in domains.items()},
            "run": section,
        }
    )
    config = SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )
    data = {
        name: {
            split: (dataset or TinyDataset)(name, domain, 20, split) for split in ("train", "val")
        }
        for name, domain in domains.items()
    }
    return RunnerMSMedCap(config, task, model or TinyModel(), data, "job")


class Silent:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.logs: list[Any] = []

    def on_step(self, report: Any) -> None:
        self.steps.append(report)

    def on_log(self, report: Any, sums: Any) -> None:
        self.logs.append((report, sums.means()))


def load_beside(name: str) -> ModuleType:
    """Loads another file of this folder as a module; it may import this one as ``tiny``."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"msmedcap_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = sys.modules[__name__]
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["tiny"]
    return module
