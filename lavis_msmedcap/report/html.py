"""The report of a run: one HTML file without script or outside resource, for light and dark."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_msmedcap.evaluation.phantom_check import Figure
from lavis_msmedcap.evaluation.score import ScoreSheet
from lavis_msmedcap.report.facts import run_facts
from lavis_msmedcap.report.gallery import gallery
from lavis_msmedcap.report.sections import fact_list, figure_section, score_section
from lavis_msmedcap.report.selection import select_examples
from lavis_msmedcap.report.style import STYLE
from lavis_msmedcap.report.text import escape

REPORT_NAME = "report.html"

# The browser itself refuses anything that is not in the file.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    run_dir: Path,
    predictions: Sequence[Mapping[str, Any]],
    scores: ScoreSheet,
    *,
    split: str,
    title: str,
    max_examples: int = 60,
    figures: Mapping[str, Figure] | None = None,
) -> Path:
    """Writes ``report.html`` into a run directory.

    Args:
        run_dir: Run directory; its ``config.yaml``, where there is one, gives the run facts.
        predictions: As for `score_captions`; ``image`` holds the path of the picture. One that
            cannot be read is replaced by a remark.
        scores: The score sheet of these predictions.
        split: Split that was predicted.
        title: Heading of the page.
        max_examples: Most images to show.
        figures: Figures with targets, for example those of `phantom_figures`.

    Returns:
        Path of the report.
    """
    facts = [("Split", f"{split} · {len(predictions)} images"), *run_facts(run_dir)]
    selection = select_examples(predictions, scores["per_image"], max_examples)
    body = "\n".join(
        [
            f"<header><h1>{escape(title)}</h1>\n{fact_list(facts)}</header>",
            "<main>",
            score_section(scores),
            figure_section(figures or {}),
            gallery(selection, len(predictions)),
            "</main>",
        ]
    )
    return write_page(run_dir / REPORT_NAME, title, body)


def write_page(path: Path, title: str, body: str) -> Path:
    """Writes a page without script or outside resource; a reader sees all of it or nothing.

    Args:
        path: The file; its folder is made.
        title: Title of the page.
        body: HTML inside ``<body>``.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(_page(title, body), encoding="utf-8")
    partial.replace(path)
    return path


def _page(title: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""
