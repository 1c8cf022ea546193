"""What stage 1 has learned: losses and retrieval recall, for the console and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lavis_msmedcap.models.recall import RECALL_RANKS, Recall
from lavis_msmedcap.report.facts import run_facts
from lavis_msmedcap.report.html import REPORT_NAME, write_page
from lavis_msmedcap.report.sections import fact_list
from lavis_msmedcap.report.table import align
from lavis_msmedcap.report.text import escape

_DIRECTIONS = ("image to text", "text to image")
_NOTE = (
    "Share of the images with a caption of theirs among the best 1, 5, 10 captions, and the other "
    "way round, by ITC similarity over all images of the split."
)


def format_recalls(recalls: Mapping[str, Recall]) -> str:
    """Writes recalls as an aligned table, one row per branch."""
    head = ["", "images", "texts", *_columns("i2t", "t2i"), "mean"]
    return "\n".join(align([head, *([name, *_cells(r)] for name, r in recalls.items())]))


def write_pretraining_report(
    run_dir: Path,
    losses: Mapping[str, float],
    recalls: Mapping[str, Recall],
    *,
    split: str,
    images: int,
    weights: str,
) -> Path:
    """Writes ``report.html`` of a stage-1 run into its directory.

    Args:
        run_dir: Run directory; its ``config.yaml`` gives the run facts.
        losses: Mean losses by name.
        recalls: Recall by branch.
        split: Split that was evaluated.
        images: Its images.
        weights: Where the weights came from.

    Returns:
        Path of the report.
    """
    facts = [("Split", f"{split} · {images} images"), ("Weights", weights)]
    title = f"Pre-training on the {split} split"
    loss_rows = [[name, f"{value:.4f}"] for name, value in losses.items()]
    head = ["Images", "Captions", *_columns(*_DIRECTIONS), "Mean"]
    parts = [
        f"<header><h1>{escape(title)}</h1>\n{fact_list([*facts, *run_facts(run_dir)])}</header>",
        "<main>",
        _section("Retrieval", head, [[n, *_cells(r)] for n, r in recalls.items()], _NOTE),
        _section("Losses", ["Mean over images"], loss_rows),
        "</main>",
    ]
    return write_page(run_dir / REPORT_NAME, title, "\n".join(parts))


def _columns(*directions: str) -> list[str]:
    return [f"{direction} R@{k}" for direction in directions for k in RECALL_RANKS]


def _cells(recall: Recall) -> list[str]:
    shares = [f"{value:.3f}" for value in recall.metrics().values()]
    return [str(recall.images), str(recall.texts), *shares]


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    if not rows:
        return ""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
        for name, *cells in rows
    )
    label = title.lower()
    return (
        f'<section aria-labelledby="{label}">\n<h2 id="{label}">{title}</h2>\n'
        f'<div class="scroll" role="region" aria-label="Table of {label}" tabindex="0"><table>\n'
        f'<thead><tr><th scope="col">Name</th>{columns}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody>\n</table></div>\n"
        + (f'<p class="small">{escape(note)}</p>\n' if note else "")
        + "</section>"
    )
