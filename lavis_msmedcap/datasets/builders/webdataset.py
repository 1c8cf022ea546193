"""The builder ``webdataset_caption``: images and captions in tar shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_msmedcap.common.config_check import Key, MapOf, Node, Nullable, Section
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.datasets.blocks import blocks_of
from lavis_msmedcap.datasets.builders.base import (
    COMMON_KEYS,
    SPLITS_KEY,
    MedCapBuilder,
    Records,
    Settings,
    by_split,
    locate,
    packaged_configs,
    wanted_splits,
)
from lavis_msmedcap.datasets.caption_datasets import MedCapDataset
from lavis_msmedcap.datasets.demo_shards import ensure_demo_shards
from lavis_msmedcap.datasets.places import is_phantom
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.shard_places import find_shards
from lavis_msmedcap.datasets.readers.shards import read_shards
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord

FULL, SHARDS = "full", "shards"
_PLACES = Nullable(Key((str, list), help="tar files, a folder, a pattern, or {000000..000099}"))


@registry.register_builder("webdataset_caption")
class WebDatasetCaptionBuilder(MedCapBuilder):
    """Images in shards: ours, or anybody's in the WebDataset convention."""

    config: Any
    NAME = "webdataset_caption"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_configs(NAME)
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **COMMON_KEYS,
        "splits": SPLITS_KEY,
        "shuffle": Key(str, choices=(FULL, SHARDS)),
        "shuffle_window": Key(int, minimum=1),
        "build_info": Section(
            {"root": _PLACES, "shards": Nullable(MapOf(_PLACES, names=SPLITS))}, required=True
        ),
    }

    def _checked_settings(self) -> dict[str, Any]:
        if _named_by_split(self.config.build_info):
            # else the embedded data, which a packaged root may name, would be made for nothing
            self.config = OmegaConf.merge(self.config, {"build_info": {"root": None}})
        return super()._checked_settings()

    @classmethod
    def _missing(cls, settings: Settings) -> list[str]:
        places = cls._places(settings)
        problems = [] if places else [f"datasets.{cls.NAME}.build_info names no shards; set root"]
        for key, place in places:
            if not is_phantom(place):
                try:
                    find_shards(str(locate(place)), key)
                except DataError as error:
                    problems.append(str(error))
        return problems

    def _read(self, settings: Settings, report: ReadReport) -> Records:
        if is_phantom(settings["build_info"]):
            ensure_demo_shards()
        found = (
            record
            for split, shards in self._shards(settings).items()
            for record in self._records(shards, split, settings, report)
        )
        return by_split(found, wanted_splits(settings), report)

    def _dataset(
        self, split: str, records: list[MedCapRecord], settings: Settings
    ) -> MedCapDataset:
        dataset = super()._dataset(split, records, settings)
        if settings.get("shuffle", FULL) == SHARDS:
            window = int(settings.get("shuffle_window", 8))
            dataset.blocks = blocks_of((record.image for record in records), window)
        return dataset

    def _records(
        self, shards: list[Path], split: str | None, settings: Settings, report: ReadReport
    ) -> Iterator[MedCapRecord]:
        """Yields the records of the shards of a split; of all their splits, if it is None."""
        records = read_shards(
            shards,
            split,
            cache=cache_root() / "shard_indexes",
            source=self.NAME,
            domain=settings["domain"],
            report=report,
        )
        for record in records:
            if split in (None, record.split):
                yield record
            else:
                report.discard(f"of split {record.split} in shards for {split}", 1, record.split)

    @classmethod
    def _shards(cls, settings: Settings) -> dict[str | None, list[Path]]:
        """Returns the shards by split; under None those whose samples say it themselves.

        Raises:
            DataError: If a shard is named twice, so that its images would count twice.
        """
        shards: dict[str | None, list[Path]] = {}
        keys: dict[Path, str] = {}
        for key, place in cls._places(settings):
            split = key.rpartition(".")[2]
            for shard in find_shards(str(locate(place)), key):
                if shard in keys:
                    raise DataError(f"{shard} is named by {keys[shard]} and again by {key}")
                keys[shard] = key
                shards.setdefault(split if split in SPLITS else None, []).append(shard)
        return shards

    @classmethod
    def _places(cls, settings: Settings) -> list[tuple[str, str]]:
        """Returns (key, place) of everything that is named; ``shards`` counts instead of root."""
        info = settings["build_info"]
        path = f"datasets.{cls.NAME}.build_info"
        by_split = _named_by_split(info)
        named: dict[str, Any] = {f"{path}.root": info.get("root")}
        if by_split:
            named = {
                f"{path}.shards.{split}": by_split.get(split) for split in wanted_splits(settings)
            }
        return [
            (key, place)
            for key, places in named.items()
            for place in ([places] if isinstance(places, str) else places or [])
        ]


def _named_by_split(info: Settings) -> dict[str, Any]:
    """Returns what ``shards`` names, by split; empty if it names nothing."""
    return {split: places for split, places in (info.get("shards") or {}).items() if places}
