"""Stage 1: mixed semantic pre-training, validated by its own losses and by retrieval."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lavis.common.registry import registry
from torch import nn

from lavis_msmedcap.common.distributed import is_main_process
from lavis_msmedcap.models.recall import Recall
from lavis_msmedcap.report import format_recalls, write_pretraining_report
from lavis_msmedcap.tasks._base import (
    Key,
    MSMedCapTask,
    Row,
    gather_rows,
    report_may_fail,
    write_json,
)
from lavis_msmedcap.tasks.metric_names import pretraining_metrics
from lavis_msmedcap.tasks.retrieval_pool import RetrievalPool

logger = logging.getLogger(__name__)


@registry.register_task("mixed_semantic_pretrain")
class MixedSemanticPretrainTask(MSMedCapTask):
    """Trains the Q-Formers with ITC, ITM and ITG; the metric is minus the validation loss.

    Args:
        report_split: Split that ``report.html`` is about; None writes none.
    """

    compares_within_batches: ClassVar[bool] = True  # ITC, and the hard negatives of ITM

    def __init__(self, report_split: str | None = None) -> None:
        super().__init__()
        self.report_split = report_split
        self._pool = RetrievalPool()
        self._recalls: dict[str, Recall] = {}

    @classmethod
    def setup_task(cls, cfg: Any) -> MixedSemanticPretrainTask:
        """Makes the task; the report is about the first test split, else about validation."""
        run_cfg = cfg.run_cfg
        splits = [*(run_cfg.get("test_splits") or ()), *(run_cfg.get("valid_splits") or ())]
        return cls(splits[0] if splits and run_cfg.get("report", True) else None)

    def metric_names(self, model: nn.Module, domains: Mapping[str, str]) -> list[str] | None:
        """Returns the names of losses and recalls; None for a model without a recipe."""
        train_on = getattr(model, "train_on", None)
        return None if train_on is None else pretraining_metrics(train_on, domains)

    @torch.no_grad()
    def evaluation(
        self,
        model: nn.Module,
        data_loader: Iterable[Mapping[str, Any]],
        cuda_enabled: bool | None = None,
    ) -> list[Row]:
        """Runs `valid_step` on every batch of this process, then measures retrieval.

        Args:
            model: Model without a DDP wrapper, in eval mode. Retrieval needs ``image_feats`` among
                its outputs and a method ``text_feats``, see `Blip2DualQformer`.
            data_loader: Batches of this process.
            cuda_enabled: Not used; batches go to the model's device.

        Returns:
            One row per image.
        """
        self._pool = RetrievalPool()
        rows = super().evaluation(model, data_loader, cuda_enabled)
        pool, self._pool = self._pool, RetrievalPool()  # the features are large
        encode = getattr(model, "text_feats", None)
        device = next(model.parameters()).device
        self._recalls = {} if encode is None else pool.recalls(encode, device)
        return rows

    @torch.no_grad()
    def valid_step(self, model: nn.Module, samples: Mapping[str, Any]) -> list[Row]:
        """Computes the losses of a batch without training.

        Returns:
            Per image ``dataset``, ``image_id`` and ``losses``: ``loss`` is that of the batch (its
            contrastive part belongs to the batch as a whole), the others are the image's own, and
            losses that the image took no part in are absent.
        """
        output = model(samples)
        self._pool.add(samples, output.get("image_feats") or {})
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
        """Averages the losses over all images of all ranks, and saves them with the recalls.

        Args:
            val_result: Rows of this rank.
            split_name: Name of the split.
            epoch: Epoch, or a word: ``best``, ``given``.
            expected: Every (dataset, image_id) that must be there.
            kwargs: What else the run tells about itself, for example ``weights``; kept with the
                results.

        Returns:
            On every rank: ``agg_metrics`` (minus the mean loss, None if that is not finite),
            ``loss``, the mean of each ``<branch>/<objective>``, and all of them with the dataset
            in front; then the recalls of each branch, ``<branch>/i2t_r1`` to ``<branch>/t2i_r10``
            and ``<branch>/r_mean``, the same for ``fused``, and with the dataset in front.
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
            if self._recalls:
                recalls = format_recalls(self._recalls)
                logger.info("%s: retrieval by ITC (%s):\n%s", split_name, weights, recalls)
            self._save(split_name, means, len(rows), {"epoch": epoch, **kwargs})
        found = {
            f"{name}/{metric}": value
            for name, recall in self._recalls.items()
            for metric, value in recall.metrics().items()
        }
        return {"agg_metrics": -loss if math.isfinite(loss) else None, **means, **found}

    def _save(
        self, split: str, losses: Mapping[str, float], images: int, facts: Mapping[str, Any]
    ) -> None:
        recalls = {
            name: {"images": recall.images, "texts": recall.texts, **recall.metrics()}
            for name, recall in self._recalls.items()
        }
        content = {"split": split, "images": images, "losses": losses, "retrieval": recalls}
        result_dir = Path(registry.get_path("result_dir"))
        write_json(result_dir / f"metrics_{split}.json", {**content, **facts})
        if split != self.report_split:
            return
        with report_may_fail():
            path = write_pretraining_report(
                Path(registry.get_path("output_dir")),
                losses,
                self._recalls,
                split=split,
                images=images,
                weights=str(facts.get("weights", f"epoch {facts['epoch']}")),
            )
            logger.info("report: %s", path)


def mean_losses(rows: Sequence[Row]) -> dict[str, float]:
    """Averages ``losses`` of rows, over everything and per dataset."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row["losses"].items():
            values[name].append(value)
            values[f"{row['dataset']}/{name}"].append(value)
    names = sorted(values, key=lambda name: (name != "loss", name))
    return {name: math.fsum(values[name]) / len(values[name]) for name in names}
