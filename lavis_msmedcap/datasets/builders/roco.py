"""The builder ``roco``."""

from __future__ import annotations

from typing import ClassVar

from lavis.common.registry import registry

from lavis_msmedcap.common.config_check import Key, Node
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


@registry.register_builder("roco")
class ROCOBuilder(MedCapBuilder):
    """ROCO v1 (radiology figures), with its own splits."""

    NAME = "roco"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_configs(NAME)
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **COMMON_KEYS,
        "splits": SPLITS_KEY,
        "kinds": Key(list, items=Key(str, choices=KINDS)),
        "build_info": ROOT,
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
        for split in wanted_splits(settings):
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
            for split in wanted_splits(settings)
        }
