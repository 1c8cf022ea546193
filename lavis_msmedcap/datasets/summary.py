"""What became of a dataset's entries and captions, as numbers for the log and the run directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import MedCapRecord

CUT = "cut"


def report_facts(report: ReadReport) -> dict[str, Any]:
    """Returns a reading report as plain values."""
    return {
        "read": report.n_read,
        "kept": _positive(report.kept),
        "dropped": _positive(report.dropped),
        "notes": _positive(report.notes),
    }


def count_captions(
    records: Iterable[MedCapRecord], processor: Callable[[str], str]
) -> dict[str, int]:
    """Counts what a text processor changes in all captions.

    Loader workers are processes of their own, whose counts nobody sees; and they would count a
    caption in every epoch. So this is done once, before training.

    Args:
        records: Records of one split.
        processor: A processor with ``prepare(caption, counts)``; another one is not counted.

    Returns:
        Captions by what changed them; "captions" is the number of all. Empty for a processor that
        does not count.
    """
    prepare = getattr(processor, "prepare", None)
    if prepare is None:
        return {}
    counts: Counter[str] = Counter(captions=0)
    for record in records:
        counts["captions"] += len(record.captions)
        for caption in record.captions:
            prepare(caption, counts)
    return dict(counts)


def describe_captions(counts: dict[str, int], max_words: int | None = None) -> str:
    """Returns the counts of `count_captions` in words; empty if no caption was changed.

    Args:
        counts: From `count_captions`.
        max_words: Where captions are cut.
    """
    total = counts.get("captions", 0)
    steps = Counter({k: v for k, v in counts.items() if k not in ("captions", CUT) and v})
    parts = []
    if steps:
        parts.append("changed by " + ", ".join(f"{k} {v:,}" for k, v in steps.most_common()))
    if counts.get(CUT):
        where = f" at {max_words} words" if max_words else ""
        parts.append(f"cut{where} {counts[CUT]:,} ({counts[CUT] / total:.1%})")
    return f"of {total:,} training captions {'; '.join(parts)}" if parts else ""


def _positive(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in counts.most_common() if count}
