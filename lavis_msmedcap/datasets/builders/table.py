"""The builder ``caption_table``: own data, and other names for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from lavis.common.registry import registry

from lavis_msmedcap.common.config_check import Key, MapOf, Node, Nullable, Section
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.builders.base import (
    COMMON_KEYS,
    SHARE,
    SPLITS_KEY,
    MedCapBuilder,
    Records,
    Settings,
    by_split,
    locate,
    packaged_configs,
)
from lavis_msmedcap.datasets.places import is_phantom
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.rows import FORMATS, TableOptions
from lavis_msmedcap.datasets.readers.selection import split_by_group
from lavis_msmedcap.datasets.readers.table import read_table, tell_splits
from lavis_msmedcap.datasets.readers.table_files import find_tables
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord

_PLACES = Key((str, list), items=Key(str))
_COLUMN = Nullable(Key(str))


@registry.register_builder("caption_table")
class CaptionTableBuilder(MedCapBuilder):
    """Images and captions of a table: CSV, TSV, JSON lines, a JSON list, Parquet."""

    NAME = "caption_table"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = packaged_configs(NAME)
    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **COMMON_KEYS,
        "splits": Nullable(SPLITS_KEY),
        "split_fractions": MapOf(SHARE, names=SPLITS),
        "build_info": Section(
            {
                "table": Key((str, list, dict), required=True, help="your table"),
                "images": Nullable(Key(str)),
                "columns": Section(
                    {
                        "image": _COLUMN,
                        "caption": Nullable(_PLACES),
                        "image_id": _COLUMN,
                        "split": _COLUMN,
                        "group_id": _COLUMN,
                        "domain": _COLUMN,
                    }
                ),
                "format": Key(str, choices=("auto", *FORMATS)),
                "separator": Nullable(Key(str)),
                "encoding": Nullable(Key(str)),
                "quotes": Nullable(Key(bool)),
            },
            required=True,
        ),
    }

    @classmethod
    def _missing(cls, settings: Settings) -> list[str]:
        info, key = settings["build_info"], f"datasets.{cls.NAME}.build_info"
        problems = []
        if not is_phantom(info["table"]):
            try:
                find_tables(info["table"], locate, f"{key}.table")
            except DataError as error:
                problems.append(str(error))
        images = info.get("images")
        if images and not is_phantom(images) and not locate(images).is_dir():
            problems.append(
                f"{key}.images: no folder at {locate(images)}; set it to the folder that image "
                "names are relative to, or leave it out if that is the folder of the table"
            )
        return problems

    def _read(self, settings: Settings, report: ReadReport) -> Records:
        info = settings["build_info"]
        tables = find_tables(info["table"], locate, f"datasets.{self.NAME}.build_info.table")
        undivided = tables.pop(None, [])
        records = self._records(undivided, settings, report) if undivided else []
        for split, files in tables.items():
            for file in files:
                records += self._table(file, split, settings, report)
        wanted = settings.get("splits") or [s for s in SPLITS if report.kept[s]]
        return by_split(records, wanted or ["train"], report)

    def _records(
        self, tables: list[Path], settings: Settings, report: ReadReport
    ) -> list[MedCapRecord]:
        """Reads tables without a split of their own: by a column, else by the seeded shares."""
        info = settings["build_info"]
        columns, options = info.get("columns"), _options(info)
        if tell_splits(tables, columns, options, self.NAME):
            return [r for path in tables for r in self._table(path, None, settings, report)]
        records = [r for path in tables for r in self._table(path, "train", settings, report)]
        if not any(record.group_id for record in records):
            report.notes["without group_id, so split image by image"] += len(records)
        seed = int(settings.get("split_seed", 0))
        return split_by_group(records, settings["split_fractions"], seed, report, fill=True)

    def _table(
        self, path: Path, split: str | None, settings: Settings, report: ReadReport
    ) -> list[MedCapRecord]:
        """Returns the records of a table that are of the section's domain.

        A batch holds one domain, and a data set belongs to one; a table of both is read by two
        sections.
        """
        info, domain = settings["build_info"], settings["domain"]
        found = list(
            read_table(
                path,
                locate(info["images"]) if info.get("images") else None,
                split=split,
                columns=info.get("columns"),
                options=_options(info),
                source=self.NAME,
                domain=domain,
                report=report,
            )
        )
        for other in (record for record in found if record.domain != domain):
            report.discard(f"of domain {other.domain}, not {domain}", 1, other.split)
        return [record for record in found if record.domain == domain]


def _options(info: Settings) -> TableOptions:
    names: dict[str, Any] = {
        name: info[name]
        for name in ("format", "separator", "encoding", "quotes")
        if info.get(name) is not None
    }
    return TableOptions(**names)
