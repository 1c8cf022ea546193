"""What a run needs to go on exactly where it stopped: one file per moment, verified when read.

A state holds the trainable parameters, the optimizer's moments, the average of the weights where
one is kept, and in the header how far the run had come. It holds no random state: every step and
every sample seeds the generators from its own place in the training (`datasets.random_streams`).
The frozen networks are not in it either; the header says which they were.

Legend: P trainable parameters by name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lavis_msmedcap.common.distributed import is_main_process
from lavis_msmedcap.common.errors import MSMedCapError, WeightsError
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.runners.ema import WeightAverage

logger = logging.getLogger(__name__)

PREFIX, SUFFIX = "step-", ".safetensors"
MODEL, OPTIMIZER, AVERAGE = "model", "optimizer", "average"


class StateError(MSMedCapError, RuntimeError):
    """A saved state that is damaged or does not fit the run."""


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        epoch: Epoch that the next batch belongs to, counted from 0.
        batch: Batches of that epoch that are done, on every process.
        step: Optimizer steps done.
        images_seen: Images of all processes.
        totals: Loss name to (sum, number of samples) of the epoch so far.
        scaler: State of the fp16 loss scaler.
        overflows: fp16 steps without an update in a row.
        skipped: fp16 steps without an update in all.
        skipped_images: Images that could not be read so far, see `SkippedImages.facts`.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    images_seen: int = 0
    totals: dict[str, tuple[float, float]] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    overflows: int = 0
    skipped: int = 0
    skipped_images: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        """Says it in words."""
        where = f"epoch {self.epoch + 1}, batch {self.batch}" if self.batch else "between epochs"
        return f"step {self.step} ({where})"


class StateStore:
    """The states of one run, the newest few of them.

    Args:
        folder: Where they are; it is made with the first one.
        keep: How many are kept.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self._keep = max(1, keep)
        self._damaged: set[Path] = set()  # newer than the state that was loaded

    def paths(self) -> list[Path]:
        """Returns the states that there are, newest first."""
        found = self.folder.glob(f"{PREFIX}*{SUFFIX}") if self.folder.is_dir() else ()
        return sorted(found, reverse=True)

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        identity: Mapping[str, str],
        average: WeightAverage | None = None,
    ) -> Path:
        """Writes a state; a crash at any moment leaves the older ones as they were.

        Args:
            model: Its trainable parameters are written.
            optimizer: Its state of those parameters is written.
            progress: How far the training has come.
            identity: What has to be the same when the state is taken up.
            average: Written too.
        """
        self.folder.mkdir(exist_ok=True)
        tensors = collect(model, optimizer, average)
        header = {
            "progress": json.dumps(asdict(progress)),
            "identity": json.dumps(dict(identity)),
        }
        path = self.folder / f"{PREFIX}{progress.step:09d}{SUFFIX}"
        save_checkpoint(path, tensors, header)
        for old in self._damaged - {path}:  # or they would count among those that are kept
            old.unlink(missing_ok=True)
        self._damaged.clear()
        for old in self.paths()[self._keep :]:
            old.unlink(missing_ok=True)
        return path

    def load(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, str],
        average: WeightAverage | None = None,
    ) -> Progress | None:
        """Puts the newest state that can be read into model and optimizer.

        Args:
            model: Gets the trainable parameters.
            optimizer: Gets the moments.
            identity: Must be what the state was saved with.
            average: Gets the average of the weights.

        Returns:
            How far the training had come, None if there is no state.

        Raises:
            StateError: If all states are damaged, or the newest readable one is of another model,
                other frozen weights, or another global batch.
        """
        damaged: list[Path] = []
        for path in self.paths():
            try:
                tensors, progress, stored = read_state(path)
            except StateError as error:
                if is_main_process():
                    logger.warning("%s. Going back to the state before it", error)
                damaged.append(path)
                continue
            self._damaged = set(damaged)
            _check_identity(path, stored, identity)
            restore(model, optimizer, tensors, path, average)
            logger.info("going on from %s: %s", path, progress)
            return progress
        if damaged:
            names = ", ".join(path.name for path in damaged)
            raise StateError(
                f"no state in {self.folder} can be read ({names}): to start the "
                "training anew, set run.resume=off"
            )
        return None


def read_state(path: Path) -> tuple[dict[str, Tensor], Progress, dict[str, str]]:
    """Reads and verifies a state.

    Returns:
        Tensors by name, the progress, and the identity that it was saved with.

    Raises:
        StateError: If it is damaged.
    """
    try:
        tensors, header = read_checkpoint(path, needs_checksum=True)
        progress = json.loads(header["progress"])
        totals = {name: (float(a), float(b)) for name, (a, b) in progress["totals"].items()}
        return tensors, Progress(**{**progress, "totals": totals}), json.loads(header["identity"])
    except WeightsError as error:
        raise StateError(str(error)) from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path} is damaged: {error}") from error


def collect(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None
) -> dict[str, Tensor]:
    """Returns the trainable parameters, the optimizer's tensors and the average by name."""
    kept = {} if average is None else average.values
    tensors = {f"{AVERAGE}.{name}": value for name, value in kept.items()}
    for name, parameter in _trainable(model).items():
        tensors[f"{MODEL}.{name}"] = parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER}.{name}.{key}"] = torch.as_tensor(value)
    return tensors


@torch.no_grad()
def restore(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    path: Path,
    average: WeightAverage | None = None,
) -> None:
    """Puts tensors from `collect` back.

    Raises:
        StateError: If their names or shapes are not those of the model.
    """
    parameters = _trainable(model)
    kept = {} if average is None else average.values
    wanted = {
        **{f"{MODEL}.{name}": parameter.shape for name, parameter in parameters.items()},
        **{f"{AVERAGE}.{name}": value.shape for name, value in kept.items()},
    }
    sorts = (f"{MODEL}.", f"{AVERAGE}.")
    given = {name: t.shape for name, t in tensors.items() if name.startswith(sorts)}
    if wanted != given:
        different = sorted(
            name for name in {**wanted, **given} if wanted.get(name) != given.get(name)
        )
        raise StateError(
            f"{path} is of another model: {', '.join(different[:3])} differ; take up the run with "
            "the configuration that it was started with"
        )
    moments: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == OPTIMIZER:
            of, _, key = rest.rpartition(".")
            moments[of][key] = value
    for name, value in kept.items():
        value.copy_(tensors[f"{AVERAGE}.{name}"])
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"{MODEL}.{name}"])
        # the optimizer counts its steps on the CPU; its moments lie where the parameter does
        optimizer.state[parameter] = {
            key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
            for key, value in moments[name].items()
        }


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _check_identity(path: Path, stored: Mapping[str, str], own: Mapping[str, str]) -> None:
    different = [name for name in own if stored.get(name) != own[name]]
    if different:
        facts = "; ".join(
            f"{name} was {_short(stored.get(name))} and is {_short(own[name])}"
            for name in different
        )
        raise StateError(
            f"{path} was saved by another training: {facts}. Take it up with what it was started "
            "with, or start anew with run.resume=off"
        )


def _short(value: str | None) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"
