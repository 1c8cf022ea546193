"""The builder ``coco2014_caption``."""

from __future__ import annotations

from typing import ClassVar

from lavis.common.registry import registry

from lavis_msmedcap.common.config_check import Key, MapOf, Node, Nullable, Section
from lavis_msmedcap.datasets.builders.base import (
    COMMON_KEYS,
    MedCapBuilder,
    Records,
    Settings,
    locate,
    packaged_configs,
)
from lavis_msmedcap.datasets.places import is_phantom
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import SPLITS


@registry.register_builder("coco2014_caption")
class COCO2014CaptionBuilder(MedCapBuilder):
    """COCO captions (general images); the paper trains on train2014 and tests on none of it."""

    NAME = "coco2014_caption"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_configs(NAME)
    _STORAGE = Section({"storage": Key((str, list), required=True)})
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **COMMON_KEYS,
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
        files = _annotation_files(info)
        splits_of: dict[str, list[str]] = {}
        for split, names in files.items():
            for name in names:
                splits_of.setdefault(name, []).append(split)
        found: Records = {split: [] for split in files}
        for name, splits in splits_of.items():
            for record in read_coco(
                locate(name),
                images,
                splits,
                source=self.NAME,
                domain=settings["domain"],
                report=report,
            ):
                found[record.split].append(record)
        return found


def _annotation_files(info: Settings) -> dict[str, list[str]]:
    """Returns the annotation files by split; a split without any is left out."""
    files: dict[str, list[str]] = {}
    for split, entry in info["annotations"].items():
        storage = entry["storage"] if entry else []
        files[split] = [storage] if isinstance(storage, str) else list(storage)
    return {split: names for split, names in files.items() if names}
