"""Reader of the MedICaT release: one JSON object per line, figures in one flat folder.

::

    release/s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl
    release/figures/{pdf_hash}_{fig_uri}
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import (
    json_lines,
    require,
    safe_name,
    usable_captions,
)
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import MEDICAL, MedCapRecord

_PATTERN = "s2_full_figures*.jsonl"
# the publisher's caption first; the one parsed from the PDF where there is none
CAPTION_FIELDS = ("s2_caption", "s2orc_caption")


def read_medicat(
    root_or_jsonl: str | os.PathLike[str],
    *,
    radiology: bool | None = None,
    scope: bool | None = None,
    predicted_type: str | None = None,
    caption_fields: Sequence[str] = CAPTION_FIELDS,
    source: str = "medicat",
    domain: str = MEDICAL,
    report: ReadReport | None = None,
) -> Iterator[MedCapRecord]:
    """Yields one record per figure, in the order of the file.

    MedICaT has no split for captioning: every record says "train" until `split_by_group` assigns
    one. ``group_id`` is the article (``pdf_hash``).

    Args:
        root_or_jsonl: The jsonl file, or a folder that holds it or holds ``release/``.
        radiology: Keep only figures whose ``radiology`` field has this value; None for all.
        scope: The same for the field ``scope`` (microscopes and endoscopes).
        predicted_type: The same for the field ``predicted_type`` ("Medical images").
        caption_fields: Where to look for the caption; the first that is not blank is taken.
        source: Registered dataset name.
        domain: Domain of the records.
        report: Where to count.

    Raises:
        DataError: If the file is missing or broken, or an image name is unsafe.
    """
    report = ReadReport(source) if report is None else report
    path = find_jsonl(Path(root_or_jsonl), f"datasets.{source}.build_info.root")
    figures = path.parent / "figures"
    filters = {"radiology": radiology, "scope": scope, "predicted_type": predicted_type}
    wanted = {name: value for name, value in filters.items() if value is not None}
    seen: set[str] = set()
    for number, entry in json_lines(path):
        where = f"{path}, line {number}"
        name = safe_name(_file_name(entry, where), where)
        fields = {
            field: usable_captions([entry.get(field)], report.notes) for field in caption_fields
        }
        field, captions = next(((f, c) for f, c in fields.items() if c), ("", ()))
        reason = _reason_to_drop(entry, wanted, captions)
        if reason is None and name in seen:
            reason = "repeated figure"
        if reason is not None:
            report.dropped[reason] += 1
            continue
        if field != caption_fields[0]:
            report.notes[f"captions from {field}"] += 1
        seen.add(name)
        report.kept["train"] += 1
        yield MedCapRecord(
            image=f"{figures}{os.sep}{name}",
            captions=captions,
            image_id=PurePosixPath(name).stem,
            split="train",
            group_id=str(entry["pdf_hash"]),
            source=source,
            domain=domain,
        )


def find_jsonl(root: Path, key: str) -> Path:
    """Finds the release file.

    Args:
        root: The file itself, or a folder that holds it or holds ``release/``.
        key: Configuration key that sets the root, for the message.

    Raises:
        DataError: If there is none, or more than one.
    """
    require(root, "the MedICaT release", key)
    found = release_files(root)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"{found[0].parent} holds several release files ({names}); name the one to read "
            f"instead of the folder (in a configuration as {key})"
        )
    if found:
        return found[0]
    raise DataError(
        f"the MedICaT release not found: expected release/{_PATTERN} in {root}; set {key} to the "
        "folder that holds release/ or to the jsonl file"
    )


def release_files(root: Path) -> list[Path]:
    """Returns what may be the release file: the file itself, or those of a folder of its names."""
    if root.is_file():
        return [root]
    return sorted((root / "release").glob(_PATTERN)) or sorted(root.glob(_PATTERN))


def _file_name(entry: dict[str, Any], where: str) -> str:
    pdf_hash, uri = entry.get("pdf_hash"), entry.get("fig_uri")
    if not pdf_hash or not uri:
        raise DataError(
            f"{where} lacks pdf_hash or fig_uri (it has {', '.join(map(str, entry))}); expected "
            f"{_PATTERN} of the MedICaT release, not one of the files beside it"
        )
    return f"{pdf_hash}_{uri}"


def _reason_to_drop(
    entry: Mapping[str, Any], wanted: Mapping[str, bool | str], captions: tuple[str, ...]
) -> str | None:
    for name, value in wanted.items():
        # a mark that is null or not there counts as false
        found = bool(entry.get(name)) if isinstance(value, bool) else entry.get(name)
        if found != value:
            return f"filtered by {name}"
    return None if captions else "without caption"
