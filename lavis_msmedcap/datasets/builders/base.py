"""What all dataset builders of this package share: checking places, choosing records."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lavis.common.utils import get_cache_path
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import OmegaConf

from lavis_msmedcap.common.config_check import Key, MapOf, Node, Nullable, check
from lavis_msmedcap.common.distributed import is_main_process
from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.datasets import skipping
from lavis_msmedcap.datasets.caption_datasets import (
    MedCapDataset,
    MedCapEvalDataset,
    MedCapTrainDataset,
)
from lavis_msmedcap.datasets.places import find_place, is_phantom, make_phantom
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.selection import (
    drop_missing_images,
    drop_short_captions,
    merge_repeated,
    missing_key,
    take_at_most,
    without_image,
)
from lavis_msmedcap.datasets.records import DOMAINS, SPLITS, MedCapRecord
from lavis_msmedcap.datasets.summary import count_captions, describe_captions, report_facts

Settings = Mapping[str, Any]
Records = dict[str, list[MedCapRecord]]

logger = logging.getLogger(__package__)

SHARE = Key(float, minimum=0, maximum=1)
COMMON_KEYS: dict[str, Node] = {
    "data_type": Key(str, choices=("images",)),
    "type": Key(str),
    "builder": Key(str),
    "domain": Key(str, choices=DOMAINS),
    "ratio": Key(float, minimum=0, maximum=1000),
    "max_samples": Nullable(MapOf(Nullable(Key(int, minimum=1)), names=SPLITS)),
    "split_seed": Key(int, minimum=0),
    "min_words": Key(int, minimum=1),
    "max_missing": SHARE,
    "max_missing_eval": SHARE,
    **skipping.KEYS,
    "vis_processor": Key(dict),
    "text_processor": Key(dict),
}
SPLITS_KEY = Key(list, items=Key(str, choices=SPLITS))
ROOT: dict[str, Node] = {"root": Key(str, required=True, help="folder of the data set")}


def packaged_configs(name: str) -> dict[str, str]:
    """Returns ``DATASET_CONFIG_DICT``: absolute paths pass through LAVIS' joins unchanged."""
    default = str(package_path(f"configs/datasets/{name}/default.yaml"))
    demo = str(package_path(f"configs/datasets/{name}/demo.yaml"))
    return {"default": default, "paper": default, "authors": default, "demo": demo}


class MedCapBuilder(BaseDatasetBuilder):
    """Base of the builders: checks places, chooses records, makes datasets.

    A builder says what files it misses (`_missing`) and reads records by split (`_read`).
    """

    NAME: ClassVar[str]
    CONFIG_KEYS: ClassVar[dict[str, Node]]
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]]
    train_dataset_cls = MedCapTrainDataset
    eval_dataset_cls = MedCapEvalDataset

    @classmethod
    def missing_inputs(cls, config: Any) -> list[str]:
        """Lists files and folders that are not there, each with its cure. Builds nothing.

        Args:
            config: The dataset's merged configuration section.
        """
        return cls._missing(plain(config))

    def build_datasets(self) -> dict[str, MedCapDataset]:
        """Builds all splits; unlike LAVIS' builders, without downloading anything."""
        return self.build()

    def build(self) -> dict[str, MedCapDataset]:
        """Builds the datasets of all configured splits.

        Returns:
            Datasets by split.

        Raises:
            ConfigError: If a key has a value that cannot work.
            DataError: If files are missing or a split is empty.
        """
        settings = self._checked_settings()
        self.build_processors()
        report = ReadReport(self.NAME)
        records = {
            split: self._select(split, found, settings, report)
            for split, found in self._read(settings, report).items()
        }
        datasets = {split: self._dataset(split, records[split], settings) for split in records}
        self._summarize(report, datasets)
        return datasets

    def read_records(self, report: ReadReport, *, keep_missing: bool = True) -> Records:
        """Reads and chooses records as `build` does.

        Args:
            report: Where to count; what is missing counts as dropped.
            keep_missing: Keep those whose image is missing, however many they are.

        Returns:
            Records by split, those without image file last.

        Raises:
            ConfigError: As `build`.
            DataError: As `build`.
        """
        settings = self._checked_settings()
        if keep_missing:
            settings.update(max_missing=1.0, max_missing_eval=1.0)
        records = {}
        for split, found in self._read(settings, report).items():
            there = self._select(split, found, settings, report)
            records[split] = [*there, *without_image(found)] if keep_missing else there
        return records

    def _checked_settings(self) -> dict[str, Any]:
        """Returns the settings of a dataset that can be read; makes the embedded data."""
        settings = plain(self.config)
        problems = check(settings, self.CONFIG_KEYS, f"datasets.{self.NAME}", unknown=False)
        if problems:
            raise ConfigError(problems)
        missing = self._missing(settings)
        if missing:
            raise DataError("\n".join(missing))
        if is_phantom(settings["build_info"]):
            make_phantom(settings["build_info"])
        return settings

    @classmethod
    @abstractmethod
    def _missing(cls, settings: Settings) -> list[str]:
        """Lists missing files and folders."""

    @abstractmethod
    def _read(self, settings: Settings, report: ReadReport) -> Records:
        """Reads the records of all configured splits."""

    def _select(
        self, split: str, records: list[MedCapRecord], settings: Settings, report: ReadReport
    ) -> list[MedCapRecord]:
        """Joins repeated images, drops what cannot be used, then draws at most ``max_samples``."""
        name, default = missing_key(split)
        allowed = float(settings.get(name, default))
        limit = (settings.get("max_samples") or {}).get(split)
        key = f"datasets.{self.NAME}.{name}"
        unique = merge_repeated(records, report)
        told = drop_short_captions(unique, int(settings.get("min_words", 1)), report)
        there = drop_missing_images(told, allowed, key, report)
        chosen = take_at_most(there, limit, int(settings.get("split_seed", 0)), report)
        if not chosen:
            raise DataError(
                f"the {split} split of {self.NAME} is empty ({report.summary()}); leave it out of "
                f"the configuration or check datasets.{self.NAME}"
            )
        return chosen

    def _dataset(
        self, split: str, records: list[MedCapRecord], settings: Settings
    ) -> MedCapDataset:
        mode = "train" if split == "train" else "eval"
        options: dict[str, Any] = {
            "name": self.NAME,
            "domain": settings["domain"],
            "ratio": float(settings.get("ratio", 1.0)),
            "seed": int(settings.get("split_seed", 0)),
        }
        processors = self.vis_processors[mode], self.text_processors[mode]
        if mode == "eval":
            return self.eval_dataset_cls(records, *processors, **options)
        options["on_bad"] = settings.get("on_bad", skipping.SKIP)
        options["max_bad"] = float(settings.get("max_bad", 0.01))
        return self.train_dataset_cls(records, *processors, **options)

    def _summarize(self, report: ReadReport, datasets: Mapping[str, MedCapDataset]) -> None:
        """Logs one line about entries and captions, and gives the datasets the same as numbers."""
        if not is_main_process():  # counting takes seconds, and only one process writes them down
            return
        train = datasets.get("train")
        counts = count_captions(train.records, train.text_processor) if train else {}
        max_words = getattr(train.text_processor, "max_words", None) if train else None
        lines = [report.summary(), describe_captions(counts, max_words)]
        logger.info(" | ".join(filter(None, lines)))
        for dataset in datasets.values():
            dataset.facts = {**report_facts(report), "captions": counts}


def locate(value: str) -> Path:
    """Turns a place in the configuration into a path; LAVIS' cache is where it looks last."""
    return find_place(value, Path(get_cache_path("")))


def wanted_splits(settings: Settings) -> Sequence[str]:
    """Returns the splits that a dataset's settings ask for, all without the key ``splits``."""
    return settings.get("splits", SPLITS)


def by_split(records: Iterable[MedCapRecord], wanted: Iterable[str], report: ReadReport) -> Records:
    """Sorts records by split; those of splits that nobody wants count as dropped.

    Args:
        records: Records of any split, counted as kept.
        wanted: Splits to keep.
        report: Where to count.
    """
    found: Records = {split: [] for split in wanted}
    others: Counter[str] = Counter()
    for record in records:
        if record.split in found:
            found[record.split].append(record)
        else:
            others[record.split] += 1
    for split, count in others.items():
        report.discard(f"in split {split}, not asked for", count, split)
    return found


def plain(config: Any) -> dict[str, Any]:
    """Turns an OmegaConf node into plain dictionaries and lists, interpolations resolved."""
    if OmegaConf.is_config(config):
        config = OmegaConf.to_container(config, resolve=True)
    return dict(config)
