"""A check as text for the console and as plain values for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lavis_msmedcap.data_check.captions import CUT_TOKENS, CUT_WORDS, PERCENTILES, CaptionStats
from lavis_msmedcap.data_check.check import DataCheck
from lavis_msmedcap.data_check.findings import NOTE, PROBLEM, WARNING, Finding
from lavis_msmedcap.data_check.leaks import CAPTION, Leak, caption_key
from lavis_msmedcap.datasets.caption_text import squeeze
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord
from lavis_msmedcap.report.table import align

JSON_VERSION = 1

_HEADS = {
    PROBLEM: "problems that hurt a training or its figures",
    WARNING: "warnings",
    NOTE: "notes",
}
_LEAK, _OF_CAPTION = "leak: ", "caption: "
_EXAMPLES = 3
_PLACES = 4
_CAPTION_CHARACTERS = 70


def describe(check: DataCheck) -> str:
    """Writes a check as lines of text, worst first."""
    lines = [check.title, "", *dataset_table(check)]
    notes = reading_notes(check)
    if notes:
        lines += ["", "how the files were read:", *(f"  {note}" for note in notes)]
    for severity, head in _HEADS.items():
        found = [finding for finding in check.findings if finding.severity == severity]
        if found:
            lines += ["", f"{head}:"]
            lines += [line for finding in found for line in _finding_lines(finding, check)]
    lines += ["", "captions:", *caption_table(check.captions.stats)]
    if check.duplicates.unseen:
        lines += ["", f"{check.duplicates.unseen:,} {UNSEEN}"]
    problems = sum(finding.severity == PROBLEM for finding in check.findings)
    verdict = f"{problems} problem{'s' if problems != 1 else ''}" if problems else "no problems"
    return "\n".join([*lines, "", verdict]) + "\n"


UNSEEN = (
    "images are too plain for a comparison by what they show; they were compared by bytes and "
    "pixels"
)


def dataset_table(check: DataCheck) -> list[str]:
    """Returns one line per data set and split."""
    return align([list(map(str, row)) for row in dataset_rows(check.records)], left=2)


def dataset_rows(records: Sequence[MedCapRecord]) -> list[list[str]]:
    """Counts images, captions and groups by data set and split; the first row is the head."""
    parts: dict[tuple[str, int], list[MedCapRecord]] = {}
    for record in records:
        parts.setdefault((record.source, SPLITS.index(record.split)), []).append(record)
    rows = [["data set", "split", "images", "captions", "articles or patients"]]
    for (source, split), own in sorted(parts.items()):
        captions = sum(len(record.captions) for record in own)
        groups = len({record.group_id for record in own} - {None})
        counts = [f"{count:,}" for count in (len(own), captions)]
        rows.append([source, SPLITS[split], *counts, f"{groups:,}" if groups else "unknown"])
    return rows


def reading_notes(check: DataCheck) -> list[str]:
    """Says what readers made of the files where that is not plain, as guessed columns."""
    return [
        f"{report.name}: {note} ({count:,})"
        for report in check.reports
        for note, count in sorted(report.all_notes().items())
    ]


def caption_table(stats: Sequence[CaptionStats]) -> list[str]:
    """Returns the lengths of captions, one line per data set and unit."""
    return align(caption_rows(stats), left=2)


def caption_rows(stats: Sequence[CaptionStats]) -> list[list[str]]:
    """Returns lengths as rows of cells; the first row is the head."""
    heads = ["longest" if p == 100 else "median" if p == 50 else f"{p} %" for p in PERCENTILES]
    rows = [["data set", "unit", *heads, "cut by the run"]]
    for entry in stats:
        words = [str(value) for value in entry.words]
        rows.append([entry.source, "words", *words, _share(entry.above.get(CUT_WORDS))])
        if entry.tokens is not None:
            name = f"tokens of {entry.tokens_of}"
            if entry.counted < entry.captions:
                name += f" ({entry.counted:,} captions at random)"
            tokens = [str(value) for value in entry.tokens]
            limit = f" (max_txt_len {entry.limit})" if entry.limit else ""
            cut = f"{_share(entry.above.get(CUT_TOKENS))}{limit}"
            rows.append([entry.source, name, *tokens, cut])
    return rows


def example(index: int, check: DataCheck) -> str:
    """Names a record: its id, split, article, image, and what the reader said about the image."""
    record, fact = check.records[index], check.facts[index]
    article = f", {record.group_id}" if record.group_id else ""
    reason = f": {fact.reason}" if fact.problem else ""
    head = f"{record.source} {record.split} {record.image_id}{article}"
    return squeeze(f"{head}: {record.image}{reason}")


def _finding_lines(finding: Finding, check: DataCheck) -> Iterator[str]:
    yield f"  {finding.count:,} of {finding.of:,} ({share(finding)}) {finding.text}"
    if len(finding.by) > 1 or finding.indices:
        places = [f"{where}: {count:,}" for where, count in finding.by.items()]
        more = f"; and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
        into = "" if finding.kind.startswith(_LEAK) else "in "
        yield f"      {into}{'; '.join(places[:_PLACES])}{more}"
    shown = _EXAMPLES if finding.severity != NOTE else 1
    for index in pick_examples(finding, check)[:shown]:
        yield f"      {_example_of(finding, index, check)}"
    if finding.cure:
        yield f"      → {finding.cure}"


def pick_examples(finding: Finding, check: DataCheck) -> list[int]:
    """Returns the records to show of a finding: of a leak, one of each split."""
    leak = first_leak(finding, check)
    if leak is None:
        return list(finding.indices)
    _, splits = _kind_and_splits(finding)
    return [next(i for i in leak.indices if check.records[i].split == s) for s in splits]


def first_leak(finding: Finding, check: DataCheck) -> Leak | None:
    """Returns the first leak that a finding tells of, None for a finding of another kind."""
    if not finding.kind.startswith(_LEAK):
        return None
    kind, splits = _kind_and_splits(finding)
    return next(
        leak
        for leak in check.leaks.of_kind(kind)
        if set(splits) <= {check.records[index].split for index in leak.indices}
    )


def _kind_and_splits(finding: Finding) -> tuple[str, list[str]]:
    kind, pair = finding.kind.removeprefix(_LEAK).split(" ")
    return kind, pair.split("/")


def share(finding: Finding) -> str:
    """Writes the share that a finding concerns."""
    return _share(finding.count / finding.of if finding.of else None)


def _share(value: float | None) -> str:
    if value is None:
        return "-"
    return "less than 0.1 %" if 0 < value < 0.001 else f"{100 * value:.1f} %"


def _example_of(finding: Finding, index: int, check: DataCheck) -> str:
    """Names a record by its image, or by the caption that is at fault."""
    record, leak = check.records[index], first_leak(finding, check)
    if leak is not None and leak.kind == CAPTION:
        texts = [text for text in record.captions if caption_key(text) == leak.key]
    elif finding.kind.startswith(_OF_CAPTION):
        kind = finding.kind.removeprefix(_OF_CAPTION)
        own = [t for t in record.captions if kind in check.captions.kinds_of(record, t)]
        texts = own or list(record.captions)
    else:
        return example(index, check)
    text = squeeze(texts[0])
    shown = text if len(text) <= _CAPTION_CHARACTERS else f"{text[:_CAPTION_CHARACTERS]}…"
    return f'{record.source} {record.split} {record.image_id}: "{shown}"'


# --- for programs --------------------------------------------------------------------------------


def to_plain(check: DataCheck) -> dict[str, Any]:
    """Returns a check as dictionaries and lists, ready for JSON; images by their path."""
    records = check.records
    return {
        "format": "msmedcap data check",
        "version": JSON_VERSION,
        "checked": check.title,
        "clean": check.clean,
        "datasets": [_plain_report(report, records) for report in check.reports],
        "findings": [_plain_finding(finding, records) for finding in check.findings],
        "unreadable": [
            {**_name(record), "problem": fact.problem, "reason": fact.reason}
            for record, fact in zip(records, check.facts)
            if fact.problem
        ],
        "leaks": [
            {
                "kind": leak.kind,
                "key": leak.key,
                "records": [_name(records[i]) for i in leak.indices],
            }
            for leak in check.leaks.leaks
        ],
        "duplicates": {
            kind: [[_name(records[i]) for i in group] for group in groups]
            for kind, groups in (
                ("file", check.duplicates.file),
                ("pixels", check.duplicates.pixels),
                ("near", check.duplicates.near),
            )
        },
        "not_compared_by_what_they_show": check.duplicates.unseen,
        "captions": [
            {**vars(entry), "kinds": dict(entry.kinds), "percentiles": list(PERCENTILES)}
            for entry in check.captions.stats
        ],
    }


def _plain_finding(finding: Finding, records: Sequence[MedCapRecord]) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "text": finding.text,
        "count": finding.count,
        "of": finding.of,
        "by": finding.by,
        "cure": finding.cure,
        "records": [_name(records[index]) for index in finding.indices],
    }


def _plain_report(report: ReadReport, records: Sequence[MedCapRecord]) -> dict[str, Any]:
    splits = Counter(record.split for record in records if record.source == report.name)
    return {
        "name": report.name,
        "read": report.n_read,
        "checked": dict(splits),
        "left_out": report.left_out(),
        "notes": report.all_notes(),
    }


def _name(record: MedCapRecord) -> dict[str, str]:
    return {
        "image": record.image,
        "image_id": record.image_id,
        "dataset": record.source,
        "split": record.split,
    }
