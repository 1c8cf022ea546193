"""The builder ``rocov2``."""

from __future__ import annotations

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
from lavis_msmedcap.datasets.readers.rocov2 import (
    FORMATS,
    find_captions,
    image_folder,
    read_rocov2,
)


@registry.register_builder("rocov2")
class ROCOv2Builder(MedCapBuilder):
    """ROCOv2, with its own splits, as CSV files and image folders or as Parquet.

    It holds figures of ROCO v1, those of ROCO's test split among them: do not train on it what is
    tested on ROCO.
    """

    NAME = "rocov2"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_configs(NAME)
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **COMMON_KEYS,
        "splits": SPLITS_KEY,
        "build_info": Section(
            {**ROOT, "format": Key(str, choices=("auto", *FORMATS))}, required=True
        ),
    }

    @classmethod
    def _missing(cls, settings: Settings) -> list[str]:
        value = settings["build_info"]["root"]
        if is_phantom(value):
            return []
        root, key = locate(value), f"datasets.{cls.NAME}.build_info.root"
        if not root.is_dir():
            return [
                f"{key}: no ROCOv2 at {root}; unpack its archives there, or set --options "
                f"{key}=/your/rocov2 (the folder that holds train_captions.csv, or data/ with "
                "Parquet files)"
            ]
        problems = []
        for split in wanted_splits(settings):
            try:
                (first, *_) = find_captions(root, split, _layout(settings), key)
            except DataError as error:
                problems.append(f"{key}: {error}")
                continue
            if first.suffix == ".csv" and not image_folder(root, split).is_dir():
                problems.append(
                    f"{key}: no images at {image_folder(root, split)}; unpack the image archive "
                    f"of the {split} split"
                )
        return problems

    def _read(self, settings: Settings, report: ReadReport) -> Records:
        return {
            split: list(
                read_rocov2(
                    locate(settings["build_info"]["root"]),
                    split,
                    layout=_layout(settings),
                    source=self.NAME,
                    domain=settings["domain"],
                    report=report,
                )
            )
            for split in wanted_splits(settings)
        }


def _layout(settings: Settings) -> str:
    return str(settings["build_info"].get("format", "auto"))
