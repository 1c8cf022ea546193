"""What is said when a loss or a gradient is nan or infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor

from lavis_msmedcap.common.distributed import gather_objects, get_rank
from lavis_msmedcap.common.errors import MSMedCapError


class NonFiniteError(MSMedCapError, ArithmeticError):
    """A loss or gradient that is nan or infinite, which no further step could repair.

    Args:
        message: What was found.
        step: Optimizer step, counted from 1.
        datasets: Datasets of the batches in question.
        image_ids: Their images.
    """

    def __init__(self, message: str, step: int, datasets: list[str], image_ids: list[str]) -> None:
        self.step = step
        self.datasets = datasets
        self.image_ids = image_ids
        super().__init__(message)


@dataclass(frozen=True)
class BatchNote:
    """What is remembered of a batch until its window closes.

    Attributes:
        loss: Detached scalar.
        logs: Detached losses by name.
        per_sample: Detached (B,) losses by name.
        datasets: Dataset of each sample.
        image_ids: Id of each sample.
        size: B.
        weight: How much the batch counts among those of its optimizer step.
    """

    loss: Tensor
    logs: dict[str, Any] = field(default_factory=dict)
    per_sample: dict[str, Tensor] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)
    image_ids: list[str] = field(default_factory=list)
    size: int = 0
    weight: Tensor | float = 1.0

    def broken_losses(self) -> list[str]:
        """Returns the names of the losses that are not finite."""
        return sorted(name for name, value in self.logs.items() if not math.isfinite(float(value)))

    def suspects(self) -> list[str]:
        """Returns the samples whose own loss is not finite while others of the batch are.

        A sample that is so in every loss that tells samples apart goes first: in ITM a broken image
        also spoils the samples that it is the wrong image of.
        """
        by_loss: list[set[int]] = []
        for name in self.broken_losses():
            finite = self.per_sample[name].isfinite().tolist() if name in self.per_sample else []
            if any(finite):
                by_loss.append({index for index, good in enumerate(finite) if not good})
        found = set.intersection(*by_loss) or set.union(*by_loss) if by_loss else set()
        return [self.image_ids[index] for index in sorted(found) if index < len(self.image_ids)]


def note_batch(output: Mapping[str, Any], samples: Mapping[str, Any]) -> BatchNote:
    """Keeps what `raise_nonfinite` would need to know of a batch."""
    return BatchNote(
        loss=output["loss"].detach(),
        logs=dict(output.get("logs") or {}),
        per_sample=dict(output.get("per_sample") or {}),
        datasets=[str(name) for name in samples.get("dataset") or []],
        image_ids=[str(name) for name in samples.get("image_id") or []],
        size=len(samples["image"]),
        weight=output.get("weight", 1.0),
    )


def raise_nonfinite(window: list[BatchNote], epoch: int, step: int, grad_norm: float) -> NoReturn:
    """Raises the same error on every rank, naming the batches at fault of all of them.

    Args:
        window: Batches of this rank's window.
        epoch: Counted from 0.
        step: Optimizer step, counted from 1.
        grad_norm: Gradient norm of the window.

    Raises:
        NonFiniteError: Always.
    """
    local = [_describe(note) for note in window]
    everyone = gather_objects(local)
    guilty = [entry for entry in everyone if not entry["finite"]]
    if guilty:
        what = "the loss is not finite"
    else:
        what = f"the gradient is not finite (norm {grad_norm}), although every loss is"
    entries = guilty or everyone
    lines = [
        f"  rank {entry['rank']}: loss {entry['loss']}"
        + (f", not finite: {', '.join(entry['broken'])}" if entry["broken"] else "")
        + (f"; suspected images: {', '.join(entry['suspects'])}" if entry["suspects"] else "")
        + f"; datasets: {', '.join(sorted(set(entry['datasets'])))}"
        + f"; image ids: {', '.join(entry['image_ids'])}"
        for entry in entries
    ]
    raise NonFiniteError(
        "\n".join(
            [
                f"epoch {epoch + 1}, step {step}: {what}. Training stops before the parameters "
                "are touched; checkpoints of finished epochs are good. Look at the images "
                "below; if they are fine, lower run.init_lr or use run.amp: off.",
                *lines,
            ]
        ),
        step,
        sorted({name for entry in entries for name in entry["datasets"]}),
        [name for entry in entries for name in entry["image_ids"]],
    )


def _describe(note: BatchNote) -> dict[str, Any]:
    loss = float(note.loss)
    return {
        "rank": get_rank(),
        "loss": loss,
        "finite": math.isfinite(loss),
        "broken": note.broken_losses(),
        "suspects": note.suspects(),
        "datasets": note.datasets,
        "image_ids": note.image_ids,
    }
