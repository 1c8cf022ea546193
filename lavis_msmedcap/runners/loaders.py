"""Loaders of a run: the planned training batches, and evaluation dataset by dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Sampler

from lavis_msmedcap.common.distributed import get_rank, get_world_size
from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.datasets.mixing import (
    BatchPlan,
    DatasetSpec,
    JoinedDataset,
    PlannedBatchSampler,
)
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.runners.worker_errors import PlainErrorLoader

TRAIN = "train"

Datasets = Mapping[str, Mapping[str, Any]]  # dataset name -> split name -> dataset
Key = tuple[str, str]  # (dataset, image_id)


@dataclass(frozen=True)
class EvalData:
    """What one split is evaluated on.

    Attributes:
        loader: Batches of this rank, each of one dataset.
        dataset: The datasets, joined.
        expected: Every (dataset, image_id) that must come out, over all ranks; None if a dataset
            does not tell its image ids without loading the images.
        picks: For each of the joined datasets the samples that are evaluated, over all ranks.
    """

    loader: DataLoader[dict[str, Any]]
    dataset: JoinedDataset
    expected: list[Key] | None
    picks: list[list[int]]


class EvalBatchSampler(Sampler[list[int]]):
    """Evaluation batches that never mix datasets, equally many and equally large on every rank.

    Losses with in-batch negatives gather the batches of all ranks, so ranks must stay in step: an
    uneven dataset is filled up with its first samples, which whoever collects the results has to
    drop. Each rank takes its contiguous part of every joint batch, as in training, so that the
    losses do not depend on how a joint batch is shared. Batches differ by at most one sample,
    because a small last batch would have an easy contrastive loss.

    Args:
        segments: For each dataset the flat indices to evaluate.
        batch_size: Largest batch of a rank.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, segments: Sequence[Sequence[int]], batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self._batches: list[list[int]] = []
        for segment in segments:
            missing = -len(segment) % world_size
            filled = [*segment, *(segment[i % len(segment)] for i in range(missing))]
            own = len(filled) // world_size
            parts = -(-own // batch_size)
            bounds = [own * part // parts for part in range(parts + 1)]
            for a, b in zip(bounds, bounds[1:]):
                start = world_size * a + rank * (b - a)
                self._batches.append(filled[start : start + b - a])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


def train_loader(
    datasets: Datasets, domains: Mapping[str, str], settings: RunSettings, device: torch.device
) -> DataLoader[dict[str, Any]]:
    """Makes the loader of training batches; its ``batch_sampler`` is a `PlannedBatchSampler`.

    Args:
        datasets: All datasets of the run.
        domains: Domain by dataset name.
        settings: Batch size, ratios, seed, epoch length.
        device: Decides whether batches are pinned for the copy to it.

    Raises:
        ConfigError: If ``run.train_dataset_ratios`` names a dataset that is not trained on.
        DataError: If there is too little data for a batch.
    """
    joined = JoinedDataset(with_split(datasets, TRAIN), settings.seed)
    ratios = settings.train_dataset_ratios
    unknown = sorted(set(ratios) - set(joined.names))
    if unknown:
        names = ", ".join(joined.names)
        raise ConfigError(
            [
                f"run.train_dataset_ratios.{name}: there is no such training dataset; trained on "
                f"are {names}"
                for name in unknown
            ]
        )
    specs = [
        DatasetSpec(
            name,
            len(data),
            domains[name],
            ratios.get(name, float(getattr(data, "ratio", 1.0))),
            getattr(data, "blocks", None),
        )
        for name, data in zip(joined.names, joined.datasets)
    ]
    plan = BatchPlan(
        specs,
        settings.batch_size_train,
        settings.seed,
        settings.epoch_samples(get_world_size()),
        get_rank(),
        get_world_size(),
    )
    return _loader(joined, PlannedBatchSampler(plan, joined), settings, device, keep_workers=True)


def describe_plan(loader: DataLoader[dict[str, Any]]) -> str:
    """Says what an epoch of a `train_loader` consists of."""
    plan = cast(PlannedBatchSampler, loader.batch_sampler).plan
    shares = [
        f"{spec.name} ({spec.domain}) {plan.samples_per_epoch[spec.name]} of {spec.length}"
        for spec in plan.datasets
    ]
    return f"an epoch has {len(plan)} batches of {plan.global_batch}: {', '.join(shares)}"


def every_batch_trains_all(model: Any, loader: DataLoader[dict[str, Any]]) -> bool:
    """Tells whether every batch of a `train_loader` gives every trainable parameter a gradient.

    A model says so itself, by ``trains_as_a_whole(domains, batch)``; of one that does not have it,
    as LAVIS' own, nothing is assumed.
    """
    plan = cast(PlannedBatchSampler, loader.batch_sampler).plan
    known = getattr(model, "trains_as_a_whole", None)
    return known is not None and bool(known(plan.domains, plan.global_batch))


def with_split(datasets: Datasets, split: str) -> dict[str, Any]:
    """Returns the datasets that have a split."""
    return {
        name: splits[split] for name, splits in datasets.items() if splits.get(split) is not None
    }


def eval_data(
    datasets: Datasets, split: str, settings: RunSettings, device: torch.device
) -> EvalData:
    """Makes the evaluation of one split over all datasets that have it.

    Args:
        datasets: All datasets of the run.
        split: Name of the split.
        settings: Batch size and ``max_eval_samples``.
        device: Decides whether batches are pinned.

    Raises:
        DataError: If the split is empty in all of them.
    """
    joined = JoinedDataset(with_split(datasets, split), evaluated=True)
    picks = [spread(len(data), settings.max_eval_samples) for data in joined.datasets]
    if not any(picks):
        raise DataError(
            f"split {split} is empty in {', '.join(joined.names)}; check the dataset's folder and "
            "max_samples"
        )
    segments = [
        [joined.flat_index(number, index) for index in pick]
        for number, pick in enumerate(picks)
        if pick
    ]
    sampler = EvalBatchSampler(segments, settings.batch_size_eval, get_rank(), get_world_size())
    loader = _loader(joined, sampler, settings, device)
    return EvalData(loader, joined, _expected(joined, picks), picks)


def spread(count: int, most: int | None) -> list[int]:
    """Returns all indices below ``count``, or ``most`` of them at even distances."""
    if most is None or most >= count:
        return list(range(count))
    return [count * place // most for place in range(most)]


def _expected(joined: JoinedDataset, picks: Sequence[Sequence[int]]) -> list[Key] | None:
    keys: list[Key] = []
    for name, data, pick in zip(joined.names, joined.datasets, picks):
        records = getattr(data, "records", None)
        if records is None:
            return None
        keys += [(name, str(records[index].image_id)) for index in pick]
    twice = sorted(key for key, count in Counter(keys).items() if count > 1)
    if twice:
        raise DataError(
            f"{len(twice)} image ids occur more than once, for example {'/'.join(twice[0])}; an "
            "evaluation needs one entry per image"
        )
    return keys


def check_splits(datasets: Datasets, settings: RunSettings) -> None:
    """Checks that every split of the configuration exists somewhere, before anything is trained.

    Raises:
        ConfigError: Naming the splits that do not.
    """
    wanted = [("valid_splits", split) for split in settings.valid_splits]
    wanted += [("test_splits", split) for split in settings.test_splits]
    if not settings.evaluate:
        wanted.append(("train_splits", TRAIN))
    problems = [
        f"run.{key}: no dataset has a split {split!r}; there are: {_splits_text(datasets)}"
        for key, split in wanted
        if not with_split(datasets, split)
    ]
    if not settings.evaluate and settings.train_splits != (TRAIN,):
        problems.append(
            f"run.train_splits is {list(settings.train_splits)}; only [{TRAIN}] can be trained on, "
            "because the other splits are built for evaluation"
        )
    if problems:
        raise ConfigError(problems)


def _splits_text(datasets: Datasets) -> str:
    return "; ".join(f"{name}: {', '.join(splits)}" for name, splits in datasets.items())


def _loader(
    joined: JoinedDataset,
    sampler: Sampler[list[int]],
    settings: RunSettings,
    device: torch.device,
    keep_workers: bool = False,
) -> DataLoader[dict[str, Any]]:
    return PlainErrorLoader(
        joined,
        batch_sampler=sampler,
        num_workers=settings.num_workers,
        persistent_workers=keep_workers and settings.num_workers > 0,
        collate_fn=joined.collater,
        pin_memory=device.type == "cuda",
        # own generator: opening a loader must not shift the random stream of training
        generator=torch.Generator().manual_seed(settings.seed + get_rank()),
    )
