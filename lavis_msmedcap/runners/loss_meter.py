"""Means of losses per branch, per objective and per dataset, without a device sync per step.

Dimensions: B batch of this process, K objectives, S datasets in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lavis_msmedcap.common.distributed import gather_objects

TOTAL = "loss"


@dataclass
class Sums:
    """Sums and counts by loss name, over all ranks.

    Attributes:
        totals: Name to (sum over samples, number of samples).
    """

    totals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Adds another set of sums."""
        for name, (value, count) in other.totals.items():
            old_value, old_count = self.totals.get(name, (0.0, 0.0))
            self.totals[name] = (old_value + value, old_count + count)

    def means(self) -> dict[str, float]:
        """Returns the mean per name, ``loss`` first, the others sorted."""
        names = sorted(self.totals, key=lambda name: (name != TOTAL, name))
        return {
            name: self.totals[name][0] / self.totals[name][1]
            for name in names
            if self.totals[name][1] > 0
        }

    @property
    def samples(self) -> int:
        """Number of samples seen."""
        return int(self.totals.get(TOTAL, (0.0, 0.0))[1])


class LossMeter:
    """Collects the outputs of training steps.

    Names: ``loss``, the model's own names (``sam/loss_itc``), and those with the dataset in front
    (``roco/sam/loss_itc``). Every mean weighs samples alike and leaves out samples that did not
    take part. All ranks hold equally many samples, as the plan deals them.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}  # names -> (2, number of names)

    def update(self, output: Mapping[str, Any], samples: Mapping[str, Any]) -> None:
        """Adds one step.

        Args:
            output: Model output: ``loss``, and where given ``logs`` (scalars) and ``per_sample``
                ((B,) tensors with nan for samples that did not take part).
            samples: The batch; ``dataset`` (B names) splits ``per_sample``.
        """
        loss = output["loss"].detach().double()
        batch = len(samples["image"])
        per_sample: Mapping[str, Tensor] = output.get("per_sample") or {}
        logs: Mapping[str, Any] = output.get("logs") or {}
        taking_part = {name: (~value.isnan()).sum() for name, value in per_sample.items()}
        plain = {**logs, TOTAL: loss}
        counts = torch.stack([_scalar(taking_part.get(name, batch), loss.device) for name in plain])
        values = torch.stack([_scalar(value, loss.device) for value in plain.values()])
        # a branch that nobody of the batch took part in may log nan
        values = torch.where(counts > 0, values * counts, torch.zeros_like(values))
        self._accumulate(tuple(plain), values, counts)
        datasets = list(samples.get("dataset") or [])
        if per_sample and len(datasets) == batch:
            self._add_per_dataset(per_sample, datasets)

    def _add_per_dataset(self, per_sample: Mapping[str, Tensor], datasets: Sequence[str]) -> None:
        values = torch.stack([value.detach().double() for value in per_sample.values()])  # (K, B)
        present = ~values.isnan()
        values = torch.where(present, values, torch.zeros_like(values))
        kinds = sorted(set(datasets))
        member = torch.tensor(
            [[kind == name for kind in kinds] for name in datasets],
            dtype=torch.float64,
            device=values.device,
        )  # (B, S)
        self._accumulate(
            tuple(f"{kind}/{name}" for name in per_sample for kind in kinds),
            (values @ member).flatten(),  # (K, S) -> (K * S,)
            (present.double() @ member).flatten(),
        )

    def _accumulate(self, names: tuple[str, ...], values: Tensor, counts: Tensor) -> None:
        new = torch.stack([values, counts])
        old = self._sums.get(names)
        self._sums[names] = new if old is None else old + new

    def read(self) -> Sums:
        """Returns the sums over all ranks since the last reading, and starts anew.

        Every rank must call it at the same step.
        """
        local = Sums()
        for names, tensor in self._sums.items():
            values, counts = tensor.tolist()
            local.add(Sums(dict(zip(names, zip(values, counts)))))
        self._sums.clear()
        merged = Sums()
        for totals in gather_objects([local.totals]):
            merged.add(Sums(totals))
        return merged


def _scalar(value: Any, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(device).double().reshape(())
    return torch.tensor(float(value), dtype=torch.float64, device=device)
