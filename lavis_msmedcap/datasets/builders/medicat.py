"""The builder ``medicat``."""

from __future__ import annotations

from typing import ClassVar

from lavis.common.registry import registry

from lavis_msmedcap.common.config_check import Key, MapOf, Node, Nullable, Section
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.builders.base import (
    COMMON_KEYS,
    ROOT,
    SHARE,
    SPLITS_KEY,
    MedCapBuilder,
    Records,
    Settings,
    by_split,
    locate,
    packaged_configs,
    wanted_splits,
)
from lavis_msmedcap.datasets.places import is_phantom
from lavis_msmedcap.datasets.readers.medicat import CAPTION_FIELDS, find_jsonl, read_medicat
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.selection import split_by_group
from lavis_msmedcap.datasets.records import SPLITS


@registry.register_builder("medicat")
class MedICaTBuilder(MedCapBuilder):
    """MedICaT (figures of medical articles), split by article with a seed."""

    NAME = "medicat"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_configs(NAME)
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **COMMON_KEYS,
        "splits": SPLITS_KEY,
        "split_fractions": MapOf(SHARE, names=SPLITS, required=True),
        "filters": Section(
            {
                "radiology": Nullable(Key(bool)),
                "scope": Nullable(Key(bool)),
                "predicted_type": Nullable(Key(str)),
            }
        ),
        "caption_fields": Key(list, items=Key(str, choices=CAPTION_FIELDS)),
        "build_info": Section(ROOT, required=True),
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
            caption_fields=settings.get("caption_fields", CAPTION_FIELDS),
            source=self.NAME,
            domain=settings["domain"],
            report=report,
        )
        seed = int(settings.get("split_seed", 0))
        assigned = split_by_group(list(found), settings["split_fractions"], seed, report)
        return by_split(assigned, wanted_splits(settings), report)
