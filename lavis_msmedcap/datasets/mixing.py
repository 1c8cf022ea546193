"""The plan of training batches: known in advance, seeded, the same on every rank.

A global batch holds samples of one domain, so that in-batch negatives are hard (a liver CT against
other medical images, not against a street) and a batch can skip branches that do not train on its
domain. Within a domain, datasets are mixed by ratio.

Each dataset is an endless stream: a permutation of its samples, then another. Every epoch takes the
same number of samples from where the last one stopped. So nothing is left out: what does not fill
a batch in one epoch comes first in the next, a ratio of 0.5 sees the other half in the next epoch,
and no sample comes again before all others of its dataset have been used.

Legend: G samples of a global batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.datasets.blocks import Blocks
from lavis_msmedcap.datasets.collate import collate
from lavis_msmedcap.datasets.random_streams import seed_generators
from lavis_msmedcap.datasets.skipping import SKIPPED, BatchIndex

# parts of a seed that keep the random streams of different purposes apart
_PASS, _WITHIN_DOMAIN, _BETWEEN_DOMAINS = 0, 1, 2


@dataclass(frozen=True)
class DatasetSpec:
    """What the plan needs to know of a dataset.

    Attributes:
        name: Registered name.
        length: Number of samples.
        domain: ``general`` or ``medical``.
        ratio: Weight relative to the natural size: 1 takes every sample once per epoch, 0.5 half of
            them, 2 each one twice, 0 none.
        shuffle: Shuffle within a few blocks of samples at a time; None shuffles all of them.
    """

    name: str
    length: int
    domain: str
    ratio: float = 1.0
    shuffle: Blocks | None = None

    @property
    def weight(self) -> float:
        """Samples per epoch that the dataset asks for."""
        return self.length * self.ratio


class BatchPlan:
    """Which samples stand in which batch of which epoch.

    Args:
        datasets: All training datasets.
        batch_size: Samples per rank and batch.
        seed: Seed of every choice.
        samples_per_epoch: Length of an epoch over all datasets and ranks; by default the sum of
            length times ratio.
        rank: This process.
        world_size: Number of processes; each takes its contiguous slice of every global batch.
        drop_last: Round a domain's number of batches down. Rounding up takes what is missing from
            the next pass; batches are full in either case.

    Raises:
        DataError: If a domain has fewer samples than a global batch needs, with the cure.
    """

    def __init__(
        self,
        datasets: Sequence[DatasetSpec],
        batch_size: int,
        seed: int,
        samples_per_epoch: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        self.datasets = list(datasets)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.global_batch = batch_size * world_size
        self._check(samples_per_epoch)
        used = [i for i, spec in enumerate(self.datasets) if spec.weight > 0]
        self.domains = list(dict.fromkeys(self.datasets[i].domain for i in used))
        self._members = [[i for i in used if self.datasets[i].domain == d] for d in self.domains]
        self._batches = self._count_batches(samples_per_epoch, drop_last)
        self._quotas = self._count_samples()

    def __len__(self) -> int:
        """Number of batches per epoch, the same on every rank."""
        return sum(self._batches)

    @property
    def samples_per_epoch(self) -> dict[str, int]:
        """Samples that each dataset gives to an epoch, over all ranks."""
        return {spec.name: self._quotas[i] for i, spec in enumerate(self.datasets)}

    def epoch(self, number: int) -> list[list[tuple[int, int]]]:
        """Returns this rank's batches of an epoch.

        Args:
            number: Epoch, from 0.

        Returns:
            Batches of (index of the dataset, index of the sample in it).
        """
        first = self.rank * self.batch_size
        return [batch[first : first + self.batch_size] for batch in self.global_epoch(number)]

    def global_epoch(self, number: int) -> list[list[tuple[int, int]]]:
        """Returns the batches of an epoch as all ranks together see them.

        Args:
            number: Epoch, from 0.

        Returns:
            Batches of (index of the dataset, index of the sample in it), rank after rank.
        """
        rng = np.random.default_rng([self.seed, _BETWEEN_DOMAINS, number])
        order = np.repeat(np.arange(len(self.domains)), self._batches)
        rng.shuffle(order)
        queues = [iter(self._domain_batches(i, number)) for i in range(len(self.domains))]
        return [next(queues[i]) for i in order]

    def _domain_batches(self, domain: int, epoch: int) -> list[list[tuple[int, int]]]:
        """Returns the global batches of one domain: streams in order, interleaved at random."""
        members = self._members[domain]
        quotas = [self._quotas[i] for i in members]
        rng = np.random.default_rng([self.seed, _WITHIN_DOMAIN, domain, epoch])
        labels = np.repeat(members, quotas)
        rng.shuffle(labels)
        streams = {
            i: iter(self._stream(i, epoch * quota, quota).tolist())
            for i, quota in zip(members, quotas)
        }
        samples = [(i, next(streams[i])) for i in labels.tolist()]
        size = self.global_batch
        return [samples[start : start + size] for start in range(0, len(samples), size)]

    def _stream(self, dataset: int, start: int, count: int) -> npt.NDArray[np.int64]:
        """Returns samples ``start`` to ``start + count`` of a dataset's endless stream."""
        length = self.datasets[dataset].length
        passes = range(start // length, -(-(start + count) // length))
        stream = np.concatenate([self._pass(dataset, number) for number in passes])
        offset = start - passes.start * length
        return stream[offset : offset + count]

    def _pass(self, dataset: int, number: int) -> npt.NDArray[np.int64]:
        """Returns pass ``number`` over a dataset.

        The samples that ended the last pass are moved away from the head of this one, so that no
        batch across the border holds a sample twice (given three batches of data).
        """
        order = self._shuffled(dataset, number)
        if number == 0:
            return order
        border = self.global_batch
        late = np.isin(order[:-border], self._shuffled(dataset, number - 1)[-border:])
        return np.concatenate([order[:-border][~late], order[:-border][late], order[-border:]])

    def _shuffled(self, dataset: int, number: int) -> npt.NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, _PASS, dataset, number])
        spec = self.datasets[dataset]
        return rng.permutation(spec.length) if spec.shuffle is None else spec.shuffle.shuffled(rng)

    def _count_batches(self, samples_per_epoch: int | None, drop_last: bool) -> list[int]:
        """Returns the number of global batches per domain."""
        weights = [sum(self.datasets[i].weight for i in members) for members in self._members]
        if samples_per_epoch is not None:
            return _apportion(samples_per_epoch // self.global_batch, weights)
        # the small number forgives what a ratio like 0.1 loses in binary
        whole = [int(weight / self.global_batch + 1e-9) for weight in weights]
        rest = [weight - n * self.global_batch > 1e-6 for weight, n in zip(weights, whole)]
        return whole if drop_last else [n + more for n, more in zip(whole, rest)]

    def _count_samples(self) -> dict[int, int]:
        """Returns the number of samples that each dataset gives to an epoch."""
        quotas = dict.fromkeys(range(len(self.datasets)), 0)
        for members, batches in zip(self._members, self._batches):
            weights = [self.datasets[i].weight for i in members]
            quotas.update(zip(members, _apportion(batches * self.global_batch, weights)))
        return quotas

    def _check(self, samples_per_epoch: int | None) -> None:
        if self.batch_size < 1 or not 0 <= self.rank < self.world_size:
            raise DataError(
                f"batch_size {self.batch_size}, rank {self.rank} of {self.world_size} do not work; "
                "expected a batch of at least 1 and a rank below the world size"
            )
        for spec in self.datasets:
            if spec.shuffle is not None and sum(spec.shuffle.lengths) != spec.length:
                raise DataError(
                    f"dataset {spec.name} has {spec.length} samples, but its blocks have "
                    f"{sum(spec.shuffle.lengths)}"
                )
            if spec.ratio < 0 or spec.length < 0:
                raise DataError(
                    f"dataset {spec.name} has length {spec.length} and ratio {spec.ratio}; both "
                    "must be at least 0"
                )
        domains = {spec.domain for spec in self.datasets if spec.weight > 0}
        if not domains:
            names = ", ".join(spec.name for spec in self.datasets) or "none"
            raise DataError(f"no training samples: datasets {names} are empty or have ratio 0")
        for domain in sorted(domains):
            self._check_domain(domain, asked=samples_per_epoch is None)
        if samples_per_epoch is not None and samples_per_epoch < len(domains) * self.global_batch:
            raise DataError(
                f"an epoch of {samples_per_epoch} samples is too short: one batch of each of "
                f"{len(domains)} domains takes {len(domains) * self.global_batch}; raise "
                "run.samples_per_epoch or run.iters_per_inner_epoch, whichever is given"
            )

    def _check_domain(self, domain: str, *, asked: bool) -> None:
        members = [s for s in self.datasets if s.domain == domain and s.weight > 0]
        available = sum(spec.length for spec in members)
        planned = sum(spec.weight for spec in members) if asked else float(available)
        if min(available, planned) + 1e-6 < self.global_batch:
            names = ", ".join(f"{s.name} {s.length} x ratio {s.ratio:g}" for s in members)
            raise DataError(
                f"a batch takes {self.global_batch} samples ({self.batch_size} on each of "
                f"{self.world_size} processes), but domain {domain} has only {names}; lower "
                "run.batch_size_train or raise the ratio, or give more data"
            )


class JoinedDataset(Dataset[dict[str, Any]]):
    """Named datasets one after the other under one flat index.

    Args:
        datasets: Datasets by name, in the order of the plan.
        seed: Seeds the random generators before each sample, so that what a processor draws depends
            on the sample and the epoch alone. None leaves them as they are.
        evaluated: Nothing may stand in for an image that cannot be read, not of training data
            either, whose datasets would skip it.
    """

    collater = staticmethod(collate)

    def __init__(
        self, datasets: Mapping[str, Any], seed: int | None = None, *, evaluated: bool = False
    ) -> None:
        self.evaluated = evaluated
        self.names = list(datasets)
        self.datasets = list(datasets.values())
        self.seed = seed
        # in shared memory: loader workers that outlive an epoch must see the next one
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._starts = [0, *accumulate(len(dataset) for dataset in self.datasets)]

    def __len__(self) -> int:
        """Number of samples of all datasets."""
        return self._starts[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns the sample at a flat index.

        Raises:
            BadImageError: If its image cannot be read, in evaluation or as the dataset decides.
        """
        if self.seed is not None:
            seed_generators(self.seed, "sample", int(self._epoch.item()), int(index))
        dataset = int(np.searchsorted(self._starts, index, side="right")) - 1
        start = self._starts[dataset]
        place = index.shifted(-start) if isinstance(index, BatchIndex) else index - start
        sample: dict[str, Any] = self.datasets[dataset][place]
        if self.evaluated and SKIPPED in sample:
            note = sample[SKIPPED][0]
            raise BadImageError(note.image, note.reason)
        return sample

    def flat_index(self, dataset: int, sample: int) -> int:
        """Returns the flat index of a sample of a dataset."""
        return self._starts[dataset] + sample

    def specs(self, ratios: Mapping[str, float] | None = None) -> list[DatasetSpec]:
        """Describes the datasets for a `BatchPlan`.

        Args:
            ratios: Ratios by name that replace the datasets' own ``ratio``.

        Raises:
            DataError: If a name is unknown.
        """
        ratios = {} if ratios is None else ratios
        unknown = set(ratios) - set(self.names)
        if unknown:
            raise DataError(
                f"run.train_dataset_ratios names {', '.join(sorted(unknown))}; the training "
                f"datasets are {', '.join(self.names)}"
            )
        return [
            DatasetSpec(
                name,
                len(data),
                data.domain,
                float(ratios.get(name, data.ratio)),
                getattr(data, "blocks", None),
            )
            for name, data in zip(self.names, self.datasets)
        ]

    def set_epoch(self, epoch: int) -> None:
        """Tells all datasets the epoch."""
        self._epoch.fill_(epoch)
        for dataset in self.datasets:
            dataset.set_epoch(epoch)


class PlannedBatchSampler(Sampler[list[int]]):
    """Gives a DataLoader the batches of a plan.

    Args:
        plan: The plan of this rank.
        dataset: The datasets that the plan is about, in its order.
    """

    def __init__(self, plan: BatchPlan, dataset: JoinedDataset) -> None:
        self.plan = plan
        self.dataset = dataset
        self.start_step = 0
        self.stop_step = len(plan)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_step: int = 0, stop_step: int | None = None) -> None:
        """Chooses the epoch, for the datasets too.

        Args:
            epoch: Epoch, from 0.
            start_step: Batches to leave out, when an interrupted epoch is taken up again.
            stop_step: Batches after which the epoch ends, when the training ends within it; None
                and more than there are mean all.
        """
        self.epoch = epoch
        self.start_step = start_step
        self.stop_step = len(self.plan) if stop_step is None else min(stop_step, len(self.plan))
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        """Number of batches that are left in the epoch."""
        return max(0, self.stop_step - self.start_step)

    def __iter__(self) -> Iterator[list[int]]:
        """Yields lists of flat indices, each of which knows the others of its batch."""
        first, size = self.plan.rank * self.plan.batch_size, self.plan.batch_size
        for batch in self.plan.global_epoch(self.epoch)[self.start_step : self.stop_step]:
            mates: dict[int, list[int]] = {}
            for dataset, sample in batch:
                mates.setdefault(dataset, []).append(self.dataset.flat_index(dataset, sample))
            arrays = {dataset: np.asarray(indices) for dataset, indices in mates.items()}
            yield [
                BatchIndex(self.dataset.flat_index(dataset, sample), arrays[dataset])
                for dataset, sample in batch[first : first + size]
            ]


def _apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Divides a whole number by weights; each part gets at least 1 if there is enough for all."""
    exact = np.asarray(weights, np.float64) / sum(weights) * total
    parts = np.floor(exact + 1e-9).astype(int)
    by_remainder = np.argsort(parts - exact, kind="stable")  # largest remainder first
    parts[by_remainder[: total - int(parts.sum())]] += 1
    while total >= len(parts) and parts.min() == 0:
        parts[parts.argmax()] -= 1
        parts[parts.argmin()] += 1
    return [int(part) for part in parts]
