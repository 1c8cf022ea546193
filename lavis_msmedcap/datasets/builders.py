"""The dataset builders ``coco2014_caption``, ``roco`` and ``medicat``.

Files are read where they lie: nothing is downloaded or copied. How a configuration names a place
says `lavis_msmedcap.datasets.places`. Real and embedded data go through the same readers.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from lavis.common.registry import registry
from lavis.common.utils import get_cache_path
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import OmegaConf

from lavis_msmedcap.common.config_check import Key, MapOf, Node, Nullable, Section, check
from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.datasets.caption_datasets import (
    MedCapDataset,
    MedCapEvalDataset,
    MedCapTrainDataset,
)
from lavis_msmedcap.datasets.places import find_place, is_phantom, make_phantom
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.medicat import find_jsonl, read_medicat
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.roco import KINDS, read_roco, split_folder
from lavis_msmedcap.datasets.readers.selection import (
    drop_missing_images,
    split_by_group,
    take_at_most,
)
from lavis_msmedcap.datasets.records import DOMAINS, SPLITS, MedCapRecord

Settings = Mapping[str, Any]
Records = dict[str, list[MedCapRecord]]

logger = logging.getLogger(__name__)

_SHARE = Key(float, minimum=0, maximum=1)
_COMMON_KEYS: dict[str, Node] = {
    "data_type": Key(str, choices=("images",)),
    "type": Key(str),
    "domain": Key(str, choices=DOMAINS),
    "ratio": Key(float, minimum=0, maximum=1000),
    "max_samples": Nullable(MapOf(Nullable(Key(int, minimum=1)), names=SPLITS)),
    "split_seed": Key(int, minimum=0),
    "max_missing": _SHARE,
    "max_missing_eval": _SHARE,
    "vis_processor": Key(dict),
    "text_processor": Key(dict),
}
_SPLITS_KEY = Key(list, items=Key(str, choices=SPLITS))
_ROOT = Section({"root": Key(str, required=True, help="folder of the data set")})


def _configs(name: str) -> dict[str, str]:
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
        return cls._missing(_plain(config))

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
        settings = _plain(self.config)
        path = f"datasets.{self.NAME}"
        problems = check(settings, self.CONFIG_KEYS, path, unknown=False)
        if problems:
            raise ConfigError(problems)
        missing = self._missing(settings)
        if missing:
            raise DataError("\n".join(missing))
        if is_phantom(settings["build_info"]):
            make_phantom()
        self.build_processors()
        report = ReadReport(self.NAME)
        records = {
            split: self._select(split, found, settings, report)
            for split, found in self._read(settings, report).items()
        }
        logger.info(report.summary())
        return {split: self._dataset(split, records[split], settings) for split in records}

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
        """Drops records without image file, then draws at most ``max_samples``."""
        name, default = ("max_missing", 0.05) if split == "train" else ("max_missing_eval", 0.0)
        allowed = float(settings.get(name, default))
        limit = (settings.get("max_samples") or {}).get(split)
        key = f"datasets.{self.NAME}.{name}"
        there = drop_missing_images(records, allowed, key, report)
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
        dataset_cls = self.train_dataset_cls if mode == "train" else self.eval_dataset_cls
        return dataset_cls(
            records,
            self.vis_processors[mode],
            self.text_processors[mode],
            name=self.NAME,
            domain=settings["domain"],
            ratio=float(settings.get("ratio", 1.0)),
            seed=int(settings.get("split_seed", 0)),
        )


@registry.register_builder("coco2014_caption")
class COCO2014CaptionBuilder(MedCapBuilder):
    """COCO captions (general images); the paper trains on train2014 and tests on none of it."""

    NAME = "coco2014_caption"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = _configs(NAME)
    _STORAGE = Section({"storage": Key((str, list), required=True)})
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **_COMMON_KEYS,
        "build_info": Section(
            {
                "annotations": MapOf(Nullable(_STORAGE), names=SPLITS, required=True),
                "images": Section({"storage": Key(str, required=True)}, required=True),
            },
            required=True,
        ),
    }

    @classmethod
    def _missing(cls, settings: Settings) -> list[str]:
        info = settings["build_info"]
        wanted = [
            (f"annotations.{split}.storage", file, "COCO captions file")
            for split, files in _annotation_files(info).items()
            for file in files
        ]
        wanted.append(("images.storage", info["images"]["storage"], "COCO image folder"))
        return [
            f"datasets.{cls.NAME}.build_info.{key}: no {what} at {locate(value)}; unpack COCO 2014 "
            f"there (captions_train2014.json and train2014/), or set "
            f"--options datasets.{cls.NAME}.build_info.{key}=/your/place"
            for key, value, what in wanted
            if not is_phantom(value) and not locate(value).exists()
        ]

    def _read(self, settings: Settings, report: ReadReport) -> Records:
        info = settings["build_info"]
        images = locate(info["images"]["storage"])
        return {
            split: [
                record
                for file in files
                for record in read_coco(
                    locate(file),
                    images,
                    split,
                    source=self.NAME,
                    domain=settings["domain"],
                    report=report,
                )
            ]
            for split, files in _annotation_files(info).items()
        }


@registry.register_builder("roco")
class ROCOBuilder(MedCapBuilder):
    """ROCO v1 (radiology figures), with its own splits."""

    NAME = "roco"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = _configs(NAME)
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **_COMMON_KEYS,
        "splits": _SPLITS_KEY,
        "kinds": Key(list, items=Key(str, choices=KINDS)),
        "build_info": _ROOT,
    }

    @classmethod
    def _missing(cls, settings: Settings) -> list[str]:
        value = settings["build_info"]["root"]
        if is_phantom(value):
            return []
        root, key = locate(value), f"datasets.{cls.NAME}.build_info.root"
        cure = f"set --options {key}=/your/roco (the folder that holds data/)"
        if not root.is_dir():
            return [
                f"{key}: no ROCO v1 tree at {root}; get the roco-dataset repository and run its "
                f"scripts/fetch.py, or {cure}"
            ]
        problems = []
        for split in _splits(settings):
            try:
                folder = split_folder(root, split, key)
            except DataError as error:
                problems.append(f"{key}: {error}")
                continue
            for kind in settings.get("kinds", ["radiology"]):
                if not (folder / kind / "captions.txt").is_file():
                    problems.append(
                        f"{key}: no captions at {folder / kind / 'captions.txt'}; {cure}"
                    )
                elif not (folder / kind / "images").is_dir():
                    problems.append(
                        f"{key}: no images at {folder / kind / 'images'}; run scripts/fetch.py of "
                        "the roco-dataset repository"
                    )
        return problems

    def _read(self, settings: Settings, report: ReadReport) -> Records:
        root = locate(settings["build_info"]["root"])
        kinds = settings.get("kinds", ["radiology"])
        return {
            split: list(
                read_roco(
                    root,
                    split,
                    kinds,
                    source=self.NAME,
                    domain=settings["domain"],
                    report=report,
                )
            )
            for split in _splits(settings)
        }


@registry.register_builder("medicat")
class MedICaTBuilder(MedCapBuilder):
    """MedICaT (figures of medical articles), split by article with a seed."""

    NAME = "medicat"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = _configs(NAME)
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **_COMMON_KEYS,
        "splits": _SPLITS_KEY,
        "split_fractions": MapOf(_SHARE, names=SPLITS, required=True),
        "filters": MapOf(Nullable(Key(bool)), names=("radiology", "scope")),
        "build_info": _ROOT,
    }

    @classmethod
    def _missing(cls, settings: Settings) -> list[str]:
        value = settings["build_info"]["root"]
        if is_phantom(value):
            return []
        key = f"datasets.{cls.NAME}.build_info.root"
        try:
            figures = find_jsonl(locate(value), key).parent / "figures"
        except DataError as error:
            return [f"{key}: {error} (unpack medicat_release.tar.gz there)"]
        if figures.is_dir():
            return []
        return [f"{key}: no figures at {figures}; unpack all of medicat_release.tar.gz"]

    def _read(self, settings: Settings, report: ReadReport) -> Records:
        found = read_medicat(
            locate(settings["build_info"]["root"]),
            **settings.get("filters", {}),
            source=self.NAME,
            domain=settings["domain"],
            report=report,
        )
        seed = int(settings.get("split_seed", 0))
        assigned = split_by_group(list(found), settings["split_fractions"], seed, report)
        wanted = _splits(settings)
        for split in SPLITS:
            if split not in wanted:
                report.discard(f"in split {split}, not asked for", report.kept[split], split)
        return {split: [r for r in assigned if r.split == split] for split in wanted}


def locate(value: str) -> Path:
    """Turns a place in the configuration into a path; LAVIS' cache is where it looks last."""
    return find_place(value, Path(get_cache_path("")))


def _annotation_files(info: Settings) -> dict[str, list[str]]:
    """Returns the annotation files by split; a split without any is left out."""
    files: dict[str, list[str]] = {}
    for split, entry in info["annotations"].items():
        storage = entry["storage"] if entry else []
        files[split] = [storage] if isinstance(storage, str) else list(storage)
    return {split: names for split, names in files.items() if names}


def _splits(settings: Settings) -> Iterable[str]:
    return settings.get("splits", SPLITS)


def _plain(config: Any) -> dict[str, Any]:
    """Turns an OmegaConf node into plain dictionaries and lists, interpolations resolved."""
    if OmegaConf.is_config(config):
        config = OmegaConf.to_container(config, resolve=True)
    return dict(config)
