"""The builder ``roco``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from lavis.common.registry import registry

from lavis_msmedcap.common.config_check import Key, Node, Section
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.builders.base import (
    COMMON_KEYS,
    ROOT,
    SPLITS_KEY,
    MedCapBuilder,
    Records,
    Settings,
    locate,
    packaged_configs,
    wanted_splits,
)
from lavis_msmedcap.datasets.places import is_phantom
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.roco import KINDS, read_roco, split_folder
from lavis_msmedcap.datasets.readers.roco_kaggle import (
    kaggle_csv,
    kaggle_images,
    read_roco_kaggle,
)

TREE, KAGGLE, AUTO = "tree", "kaggle", "auto"


@registry.register_builder("roco")
class ROCOBuilder(MedCapBuilder):
    """ROCO v1, with its own splits, as a tree of its repository or in the copy on Kaggle."""

    NAME = "roco"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_configs(NAME)
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **COMMON_KEYS,
        "splits": SPLITS_KEY,
        "kinds": Key(list, items=Key(str, choices=KINDS)),
        "build_info": Section(
            {**ROOT, "format": Key(str, choices=(AUTO, TREE, KAGGLE))}, required=True
        ),
    }

    @classmethod
    def _missing(cls, settings: Settings) -> list[str]:
        value = settings["build_info"]["root"]
        if is_phantom(value):
            return []
        root, key = locate(value), f"datasets.{cls.NAME}.build_info.root"
        cure = f"set --options {key}=/your/roco (the folder that holds data/ or all_data/)"
        if not root.is_dir():
            return [
                f"{key}: no ROCO v1 tree at {root}; get the roco-dataset repository and run its "
                f"scripts/fetch.py, or {cure}"
            ]
        check = _missing_of_kaggle if _layout(root, settings) == KAGGLE else _missing_of_tree
        return [f"{key}: {problem}" for problem in check(root, settings, key, cure)]

    def _read(self, settings: Settings, report: ReadReport) -> Records:
        root = locate(settings["build_info"]["root"])
        read = read_roco_kaggle if _layout(root, settings) == KAGGLE else read_roco
        return {
            split: list(
                read(
                    root,
                    split,
                    _kinds(settings),
                    source=self.NAME,
                    domain=settings["domain"],
                    report=report,
                )
            )
            for split in wanted_splits(settings)
        }


def _kinds(settings: Settings) -> list[str]:
    return list(settings.get("kinds", ["radiology"]))


def _layout(root: Path, settings: Settings) -> str:
    """Returns the layout that the settings name, else the one that is there."""
    told = settings["build_info"].get("format", AUTO)
    if told != AUTO:
        return str(told)
    tables = (kaggle_csv(root, s, k) for s in wanted_splits(settings) for k in _kinds(settings))
    return KAGGLE if any(tables) else TREE


def _missing_of_tree(root: Path, settings: Settings, key: str, cure: str) -> Iterator[str]:
    for split in wanted_splits(settings):
        try:
            folder = split_folder(root, split, key)
        except DataError as error:
            yield str(error)
            continue
        for kind in _kinds(settings):
            if not (folder / kind / "captions.txt").is_file():
                yield f"no captions at {folder / kind / 'captions.txt'}; {cure}"
            elif not (folder / kind / "images").is_dir():
                yield (
                    f"no images at {folder / kind / 'images'}; run scripts/fetch.py of the "
                    "roco-dataset repository"
                )


def _missing_of_kaggle(root: Path, settings: Settings, key: str, cure: str) -> Iterator[str]:  # noqa: ARG001
    for split in wanted_splits(settings):
        for kind in _kinds(settings):
            table = kaggle_csv(root, split, kind)
            if table is None:
                yield (
                    f"no {kind.replace('-', '')}…data.csv of the {split} split below {root}, as "
                    f"Kaggle's copy has it; {cure}"
                )
            elif not kaggle_images(table, kind).is_dir():
                yield f"no images at {kaggle_images(table, kind)}; unpack the whole copy"
