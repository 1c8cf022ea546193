"""Stage 1: mixed semantic pre-training, validated by its own losses."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lavis.common.registry import registry
from torch import nn

from lavis_msmedcap.common.distributed import is_main_process
from lavis_msmedcap.tasks._base import Key, MSMedCapTask, Row, gather_rows

logger = logging.getLogger(__name__)


@registry.register_task("mixed_semantic_pretrain")
class MixedSemanticPretrainTask(MSMedCapTask):
    """Trains the Q-Formers with ITC, ITM and ITG; the metric is minus the validation loss."""

    @classmethod
    def setup_task(cls, cfg: Any) -> MixedSemanticPretrainTask:  # noqa: ARG003 - LAVIS' signature
        """Makes the task; it needs nothing of the configuration."""
        return cls()

    @torch.no_grad()
    def valid_step(self, model: nn.Module, samples: Mapping[str, Any]) -> list[Row]:
        """Computes the losses of a batch without training.

        Returns:
            Per image ``dataset``, ``image_id`` and ``losses``: ``loss`` is that of the batch (its
            contrastive part belongs to the batch as a whole), the others are the image's own, and
            losses that the image took no part in are absent.
        """
        output = model(samples)
        loss = float(output["loss"])
        per_sample = {name: v.tolist() for name, v in (output.get("per_sample") or {}).items()}
        names = samples.get("dataset") or [""] * len(samples["image_id"])
        rows = []
        for index, (dataset, image_id) in enumerate(zip(names, samples["image_id"])):
            own = {name: values[index] for name, values in per_sample.items()}
            losses = {name: value for name, value in own.items() if not math.isnan(value)}
            rows.append(
                {"dataset": dataset, "image_id": image_id, "losses": {"loss": loss, **losses}}
            )
        return rows

    def after_evaluation(
        self,
        val_result: Sequence[Row],
        split_name: str,
        epoch: int | str,
        expected: Sequence[Key] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Averages the losses over all images of all ranks.

        Args:
            val_result: Rows of this rank.
            split_name: Name of the split.
            epoch: Epoch, or a word: ``best``, ``given``.
            expected: Every (dataset, image_id) that must be there.
            kwargs: What else the run tells about itself; ``weights`` is shown.

        Returns:
            On every rank: ``agg_metrics`` (minus the mean loss, None if that is not finite),
            ``loss``, the mean of each ``<branch>/<objective>``, and all of them with the dataset
            in front.
        """
        rows = gather_rows(val_result, expected, split_name)
        means = mean_losses(rows)
        loss = means.get("loss", math.nan)
        if is_main_process():
            weights = kwargs.get("weights", f"epoch {epoch}")
            if not math.isfinite(loss):
                logger.warning("%s: the loss of %s is %s, no metric", split_name, weights, loss)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
            logger.info("%s (%s): %d images, %s", split_name, weights, len(rows), shown)
        return {"agg_metrics": -loss if math.isfinite(loss) else None, **means}


def mean_losses(rows: Sequence[Row]) -> dict[str, float]:
    """Averages ``losses`` of rows, over everything and per dataset."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row["losses"].items():
            values[name].append(value)
            values[f"{row['dataset']}/{name}"].append(value)
    names = sorted(values, key=lambda name: (name != "loss", name))
    return {name: math.fsum(values[name]) / len(values[name]) for name in names}
