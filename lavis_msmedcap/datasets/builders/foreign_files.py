"""Where the files of a LAVIS dataset are on this machine."""

from __future__ import annotations

from typing import Any

from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder

from lavis_msmedcap.datasets.builders.base import locate


def is_local(builder_cls: Any, section: Any) -> bool:
    """Tells whether LAVIS would download nothing; writes into the section where the files are."""
    plain_lavis = getattr(builder_cls, "build_datasets", None) is BaseDatasetBuilder.build_datasets
    return plain_lavis and _read_in_place(section)


def _read_in_place(section: Any) -> bool:
    """Writes where annotations and images are on this machine, and tells whether all are.

    LAVIS looks for relative paths in its cache only, and copies a local file that stands for an
    address into it, once: after that it reads the copy, however the file changes.
    """
    info = section.get("build_info") or {}
    found = True
    annotations = info.get("annotations") or {}
    for split in [split for split, entry in annotations.items() if entry is None]:
        del annotations[split]  # which LAVIS would look into
    for entry in annotations.values():
        storage = _listed(entry.get("storage"))
        sources = _listed(entry.get("url")) or [""] * len(storage)
        places = [_local(*pair) for pair in zip(sources, storage)]
        found = found and len(places) == len(storage) > 0 and all(places)
        if len(places) == len(storage):
            entry.storage = [place or kept for place, kept in zip(places, storage)]
    images = info.get(section.get("data_type", "images"))
    if images is not None and isinstance(images.get("storage"), str):
        images.storage = str(locate(images.storage))
    return found


def _local(source: str, storage: str) -> str | None:
    if source and "://" not in source and locate(source).is_file():
        return str(locate(source))
    return str(locate(storage)) if locate(storage).is_file() else None


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]
