"""A check as one HTML file: findings, pairs that leak, duplicates, and a sample to look at."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.check import DataCheck
from lavis_msmedcap.data_check.findings import NOTE, PROBLEM, Finding
from lavis_msmedcap.data_check.leaks import CAPTION, article_id
from lavis_msmedcap.data_check.text import (
    UNSEEN,
    caption_rows,
    dataset_rows,
    pick_examples,
    reading_notes,
    share,
)
from lavis_msmedcap.datasets.caption_text import squeeze
from lavis_msmedcap.datasets.readers.identity import groups_of
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.report.gallery import picture
from lavis_msmedcap.report.html import write_page
from lavis_msmedcap.report.sections import fact_list
from lavis_msmedcap.report.text import escape

SAMPLE = 48  # images
_GROUPS = 12
_OF_A_GROUP = 4
_LISTED = 20
_PRIVATE = (
    "The images in this page are copies inside the file itself: nothing is loaded from elsewhere, "
    "and nothing left this machine. Whoever gets the file gets the images."
)


def write_check(path: Path, check: DataCheck) -> Path:
    """Writes the page.

    Args:
        path: The file.
        check: What was found.

    Returns:
        The path.

    Raises:
        DataError: If the file cannot be written.
    """
    problems = sum(finding.severity == PROBLEM for finding in check.findings)
    facts = [
        ("Checked", check.title),
        ("Images", f"{len(check.records):,}"),
        ("Problems", str(problems) if problems else "none"),
    ]
    body = "\n".join(
        [
            f"<header><h1>Data check</h1>\n{fact_list(facts)}",
            f'<p class="small">{_PRIVATE}</p></header>',
            "<main>",
            _section("data", "Data sets", _datasets(check)),
            _findings(check),
            _section("lengths", "Captions", _table(caption_rows(check.captions.stats), names=2)),
            _leaks(check),
            _duplicates(check),
            _unreadable(check),
            _sample(check),
            "</main>",
        ]
    )
    try:
        return write_page(path, "Data check", body)
    except OSError as error:
        raise DataError(f"--html: {path} cannot be written: {error}") from error


def _datasets(check: DataCheck) -> str:
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in reading_notes(check))
    listing = f'<ul class="notes">{notes}</ul>' if notes else ""
    return _table(dataset_rows(check.records), names=2) + listing


def _findings(check: DataCheck) -> str:
    tiles = [finding for finding in check.findings if finding.severity != NOTE]
    rows = [["finding", "images", "share", "where"]]
    rows += [
        [finding.text, f"{finding.count:,}", share(finding), _places(finding)]
        for finding in check.findings
        if finding.severity == NOTE
    ]
    parts = [f'<div class="tiles">\n{_tiles(tiles)}\n</div>'] if tiles else ["<p>No problems.</p>"]
    if len(rows) > 1:
        parts.append(_table(rows))
    if check.duplicates.unseen:
        parts.append(f'<p class="small">{check.duplicates.unseen:,} {UNSEEN}.</p>')
    return _section("findings", "Findings", "\n".join(parts))


def _tiles(findings: Iterable[Finding]) -> str:
    return "\n".join(
        f'<div class="tile {"missed" if finding.severity == PROBLEM else ""}">'
        f'<span class="label">{escape(finding.severity)}</span>'
        f'<span class="value">{finding.count:,}</span>'
        f'<span class="target">of {finding.of:,} ({share(finding)}): {escape(finding.text)}</span>'
        f'<span class="detail">{escape(_places(finding))}</span>'
        f'<span class="detail">{escape(finding.cure)}</span></div>'
        for finding in findings
    )


def _places(finding: Finding) -> str:
    return "; ".join(f"{where}: {count:,}" for where, count in finding.by.items())


def _leaks(check: DataCheck) -> str:
    """Shows the first pair of each kind of leak side by side."""
    cards: list[str] = []
    for finding in check.findings:
        if finding.kind.startswith("leak: ") and not finding.kind.startswith(f"leak: {CAPTION}"):
            shown = pick_examples(finding, check)
            cards += [_card(index, check, finding.text) for index in shown]
    return _section("leaks", "Leaks, an example of each", _grid(cards)) if cards else ""


def _duplicates(check: DataCheck) -> str:
    kinds = (
        ("same file", check.duplicates.file),
        ("same pixels", check.duplicates.pixels),
        ("looks the same", check.duplicates.near),
    )
    cards = [
        _card(index, check, f"{kind}, group {number} ({len(group)} images)")
        for kind, groups in kinds
        for number, group in enumerate(groups[:_GROUPS], 1)
        for index in group[:_OF_A_GROUP]
    ]
    if not cards:
        return ""
    counts = ", ".join(f"{kind}: {len(groups):,} groups" for kind, groups in kinds)
    lead = f'<p class="small">{counts}; the first {_GROUPS} of each are shown.</p>'
    return _section("duplicates", "Duplicate images", lead + _grid(cards))


def _unreadable(check: DataCheck) -> str:
    bad = [index for index, fact in enumerate(check.facts) if fact.problem]
    if not bad:
        return ""
    lines = [f"<li>{escape(_reason(index, check))}</li>" for index in bad[:_LISTED]]
    if len(bad) > _LISTED:
        lines.append(f"<li>and {len(bad) - _LISTED:,} more, see the JSON output (--json)</li>")
    listing = "\n".join(lines)
    return _section("unreadable", "Images that cannot be read", f'<ul class="notes">{listing}</ul>')


def _sample(check: DataCheck) -> str:
    sound = [index for index, fact in enumerate(check.facts) if not fact.problem]
    chosen = random.Random(0).sample(sound, min(SAMPLE, len(sound)))
    head = f"{len(chosen)} of {len(check.records):,} images, drawn at random"
    return _section("sample", head, _grid([_card(index, check) for index in sorted(chosen)]))


def _card(index: int, check: DataCheck, label: str = "") -> str:
    record, fact = check.records[index], check.facts[index]
    identity = _identity(record)
    size = f"{fact.width} x {fact.height}" if not fact.problem else fact.problem
    return "\n".join(
        [
            '<article class="card">',
            picture(record.image, identity),
            f'<p class="meta"><span>{escape(identity)}</span><span>{size}</span></p>',
            f'<p class="label">{escape(label)}</p>' if label else "",
            *(f'<p class="reference" dir="auto">{escape(text)}</p>' for text in record.captions),
            "</article>",
        ]
    )


def _identity(record: MedCapRecord) -> str:
    """Names a record and its article. Pages are passed on: who the patient is, is not in them."""
    articles = filter(None, (article_id(group, record) for group in groups_of(record)))
    return " · ".join([record.source, record.split, record.image_id, *articles])


def _reason(index: int, check: DataCheck) -> str:
    record = check.records[index]
    return squeeze(f"{_identity(record)}: {record.image}: {check.facts[index].reason}")


def _grid(cards: Sequence[str]) -> str:
    joined = "\n".join(cards)
    return f'<div class="grid">\n{joined}\n</div>'


def _section(name: str, heading: str, content: str) -> str:
    return (
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(heading)}</h2>\n'
        f"{content}\n</section>"
    )


def _table(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Writes rows of cells; the first one is the head, the first cells of each are names."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "\n".join(
        "<tr>"
        + "".join(f'<th scope="row">{escape(cell)}</th>' for cell in row[:names])
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[names:])
        + "</tr>"
        for row in rows[1:]
    )
    return (
        '<div class="scroll" role="region" aria-label="Table" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )
