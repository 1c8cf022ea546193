"""What the four training scripts share: seeds, schedule, progress, saving."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm


def seed_everything(seed: int) -> None:
    """Fixes every random source."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - LAVIS and timm draw from the global state
    torch.manual_seed(seed)


class Trainer:
    """AdamW with warm-up and cosine decay, gradient clipping, and a progress bar.

    Args:
        module: What is trained.
        steps: Number of optimizer steps.
        learning_rate: Peak learning rate.
        name: Shown in front of the bar.
    """

    def __init__(self, module: nn.Module, steps: int, learning_rate: float, name: str) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98)
        )
        self.steps, self.learning_rate, self.name = steps, learning_rate, name
        self.step_count = 0
        self.started = time.monotonic()

    def progress(self, batches: Iterable[object]) -> Iterator[object]:
        """Yields ``steps`` batches, repeating the iterable as often as needed."""
        with tqdm(total=self.steps, desc=self.name, mininterval=5) as self.bar:
            while self.step_count < self.steps:
                for batch in batches:
                    yield batch
                    self.bar.update()
                    if self.step_count >= self.steps:
                        return

    def step(self, loss: Tensor) -> None:
        """Makes one optimizer step."""
        share = self.step_count / self.steps
        warmup = min(1.0, (self.step_count + 1) / (0.05 * self.steps))
        rate = self.learning_rate * warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step_count += 1
        if self.step_count % 20 == 0:
            self.bar.set_postfix(loss=f"{loss.item():.3f}")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


def save_half(state_dict: Mapping[str, Tensor], path: Path, note: str) -> None:
    """Saves tensors as float16 safetensors (integers as they are)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (value.half() if value.is_floating_point() else value).detach().contiguous()
        for name, value in state_dict.items()
    }
    save_file(tensors, path, metadata={"format": "pt", "note": note})
    path.chmod(0o644)  # safetensors writes for the owner alone
