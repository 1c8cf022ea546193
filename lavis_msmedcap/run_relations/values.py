"""Reading a configuration whose single values may still be of a wrong type."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lavis_msmedcap.datasets.records import SPLITS
from lavis_msmedcap.runners.loaders import TRAIN

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

STAGE_1_TASK, STAGE_2_TASK = "mixed_semantic_pretrain", "medical_captioning"


def names(value: Any) -> list[str]:
    """Returns the texts of a list; of anything else nothing."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def mapping(value: Any) -> Mapping[str, Any]:
    """Returns a mapping as it is, an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def is_number(value: Any) -> TypeGuard[float]:
    """Tells whether a value is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: Any) -> TypeGuard[int]:
    """Tells whether a value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def trains(config: Mapping[str, Any]) -> bool:
    """Tells whether the run trains at all."""
    return config["run"].get("evaluate") is not True


def evaluated_splits(run: Mapping[str, Any]) -> list[str]:
    """Returns the splits that a run evaluates, in validation or at the end."""
    return [*names(run.get("valid_splits")), *names(run.get("test_splits"))]


def world_size() -> int:
    """Returns how many processes torchrun started, 1 without it."""
    processes = os.environ.get("WORLD_SIZE", "1")
    return int(processes) if processes.isdigit() else 1


def branches_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the branches that are not null."""
    for name, branch in mapping(config["model"].get("branches")).items():
        if isinstance(branch, Mapping):
            yield str(name), branch


def splits_of(settings: Any) -> tuple[str, ...]:
    """Returns the splits that a dataset's settings ask for.

    A list; else those with annotations, or with tables of their own; else it may have any.
    """
    listed = mapping(settings).get("splits")
    if isinstance(listed, list):
        return tuple(names(listed))
    info = mapping(mapping(settings).get("build_info"))
    for by_split in (info.get("annotations"), info.get("table")):
        if isinstance(by_split, Mapping):
            return tuple(split for split in SPLITS if by_split.get(split))
    return SPLITS


def unread(config: Mapping[str, Any], own: Collection[str]) -> list[str]:
    """Returns the datasets of this package that have no split at all, which is told of them."""
    return [
        name
        for name, settings in config["datasets"].items()
        if f"datasets.{name}" in own and not splits_of(settings)
    ]


def training_ratios(config: Mapping[str, Any]) -> dict[str, float]:
    """Returns the ratio of each dataset that has a train split.

    ``run.train_dataset_ratios`` wins over the dataset's own ``ratio``, which is 1 by default.
    """
    over = mapping(config["run"].get("train_dataset_ratios"))
    ratios = {}
    for name, settings in config["datasets"].items():
        if TRAIN in splits_of(settings):
            ratio = over.get(name, mapping(settings).get("ratio", 1.0))
            ratios[name] = float(ratio) if is_number(ratio) else 1.0  # a wrong type is told
    return ratios
