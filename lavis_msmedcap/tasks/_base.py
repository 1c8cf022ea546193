"""What both tasks share: building with clear errors, evaluation on any device, gathering."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from lavis.common.registry import registry
from lavis.tasks.base_task import BaseTask
from torch import nn

from lavis_msmedcap.common.distributed import gather_objects
from lavis_msmedcap.common.errors import ConfigError, DataError, MSMedCapError
from lavis_msmedcap.common.whole_files import write_whole
from lavis_msmedcap.datasets.builders.foreign import build_foreign

logger = logging.getLogger(__name__)

Row = dict[str, Any]
Key = tuple[str, str]  # (dataset, image_id)


class MSMedCapTask(BaseTask):
    """Base of the tasks; `train_step` returns the model's whole output, not only its loss.

    Attributes:
        compares_within_batches: Whether what validation measures depends on the size of a batch.
    """

    compares_within_batches: ClassVar[bool] = False

    def build_model(self, cfg: Any) -> nn.Module:
        """Builds the model that ``model.arch`` names.

        Raises:
            ConfigError: If no such model is registered.
        """
        arch = cfg.model_cfg.arch
        model_cls = registry.get_model_class(arch)
        if model_cls is None:
            known = sorted(registry.list_models())
            raise ConfigError([f"model.arch {arch!r} is not registered; known: {', '.join(known)}"])
        return model_cls.from_config(cfg.model_cfg)

    def build_datasets(self, cfg: Any) -> dict[str, dict[str, Any]]:
        """Builds all datasets of the configuration.

        Returns:
            Dataset name to split name to dataset.

        Raises:
            ConfigError: If there is none, or a name is not registered.
        """
        sections = cfg.datasets_cfg
        if not sections:
            raise ConfigError(["datasets is empty; name at least one, for example roco"])
        datasets: dict[str, dict[str, Any]] = {}
        for name in sections:
            builder_cls = registry.get_builder_class(name)
            if builder_cls is None:
                known = sorted(registry.list_datasets())
                raise ConfigError(
                    [f"datasets.{name} is not a registered dataset; known: {', '.join(known)}"]
                )
            datasets[name] = build_foreign(name, builder_cls, sections[name])
        return datasets

    def train_step(self, model: nn.Module, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the model on a batch.

        Returns:
            ``loss``, and where the model gives them ``logs`` and ``per_sample``.
        """
        return model(samples)

    def metric_names(self, model: nn.Module, domains: Mapping[str, str]) -> list[str] | None:  # noqa: ARG002
        """Returns the names that validation results may have; None where nobody knows.

        Args:
            model: The model, not yet trained.
            domains: Domain by name of the datasets that are validated.
        """
        return None

    def train_epoch(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002
        """Refuses LAVIS' own loop, which would not take the output of `train_step`.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            [f"task {type(self).__name__} trains with run.runner: runner_msmedcap only"]
        )

    train_iters = train_epoch

    def before_evaluation(self, model: nn.Module, dataset: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Tells a LAVIS model that evaluation begins; a plain module has nothing to be told."""
        hook = getattr(model, "before_evaluation", None)
        if hook is not None:
            hook(dataset=dataset, task_type=type(self))

    @torch.no_grad()
    def evaluation(
        self,
        model: nn.Module,
        data_loader: Iterable[Mapping[str, Any]],
        cuda_enabled: bool | None = None,  # noqa: ARG002 - LAVIS' signature; the model knows
    ) -> list[Row]:
        """Runs `valid_step` on every batch of this process.

        Args:
            model: Model without a DDP wrapper, in eval mode.
            data_loader: Batches of this process.
            cuda_enabled: Not used; batches go to the model's device.

        Returns:
            One row per image.
        """
        device = next(model.parameters()).device
        rows: list[Row] = []
        for samples in data_loader:
            moved = {
                key: value.to(device, non_blocking=True) if torch.is_tensor(value) else value
                for key, value in samples.items()
            }
            rows.extend(self.valid_step(model, moved))
        return rows


def row_key(row: Mapping[str, Any]) -> Key:
    """Returns what identifies an image over all datasets."""
    return str(row["dataset"]), str(row["image_id"])


def gather_rows(rows: Sequence[Row], expected: Sequence[Key] | None, split: str) -> list[Row]:
    """Collects the rows of all ranks, each image once, in the order of the datasets.

    Ranks see equally many batches, so some images are evaluated twice; the first one is kept.

    Args:
        rows: Rows of this rank.
        expected: Every image that must be there; None skips the check.
        split: Named in the error.

    Raises:
        DataError: If images are missing, or some are there that nobody asked for.
    """
    unique: dict[Key, Row] = {}
    for row in gather_objects(list(rows)):
        unique.setdefault(row_key(row), row)
    if expected is None:
        return list(unique.values())
    missing = [key for key in expected if key not in unique]
    extra = set(unique) - set(expected)
    if missing or extra:
        raise DataError(
            f"evaluation of {split} saw {len(unique)} images, expected {len(set(expected))}; "
            f"missing: {_some(missing)}; not expected: {_some(sorted(extra))}"
        )
    return [unique[key] for key in dict.fromkeys(expected)]


@contextlib.contextmanager
def report_may_fail() -> Iterator[None]:
    """Logs an error of the block: results are on disk, a report must not make the run a failure."""
    try:
        yield
    except (OSError, MSMedCapError):
        logger.exception("the report could not be written")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that a crash leaves either the old file or the new one."""
    write_whole(path, [json.dumps(content, indent=2, ensure_ascii=False), "\n"])


def _some(keys: Sequence[Key]) -> str:
    if not keys:
        return "none"
    shown = ", ".join("/".join(key) for key in keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"
