"""``data_summary.json``: what a run's data were, beside its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def data_summary(
    datasets: Mapping[str, Mapping[str, Any]],
    skipped: Mapping[str, Mapping[str, Any]],
    too_long: Mapping[str, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """Puts together what is known of the data.

    Args:
        datasets: Dataset name to split name to dataset.
        skipped: What training had to skip, by dataset, see `SkippedImages.facts`.
        too_long: Captions that are longer than the model reads, by dataset.

    Returns:
        By dataset: ``samples`` by split; ``skipped``; ``longer_than_max_txt_len`` where it was
        counted; and where its builder counted (see `lavis_msmedcap.datasets.summary`) ``read``,
        ``kept``, ``dropped``, ``notes``, ``captions``.
    """
    summary = {}
    for name, splits in datasets.items():
        present = {split: data for split, data in splits.items() if data is not None}
        facts: dict[str, Any] = {"samples": {split: len(data) for split, data in present.items()}}
        for data in present.values():
            facts.update(getattr(data, "facts", {}))
        facts["skipped"] = dict(skipped.get(name, {}))
        if too_long and name in too_long:
            facts["longer_than_max_txt_len"] = too_long[name]
        summary[name] = facts
    return summary


def write_data_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Writes a summary as JSON; a reader never sees half of it.

    Args:
        path: Where to.
        summary: From `data_summary`.
    """
    half = path.with_suffix(".tmp")
    half.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(path)
