"""The upper part of a report: run facts, scores, figures with targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lavis_msmedcap.evaluation.phantom_check import Figure
from lavis_msmedcap.evaluation.score import GroupScores, ScoreSheet
from lavis_msmedcap.report.table import named_groups, notes, score_names
from lavis_msmedcap.report.text import escape

_HEADLINES = ("CIDEr", "BLEU-4", "ROUGE_L", "METEOR")


def fact_list(facts: Sequence[tuple[str, str]]) -> str:
    """Writes labels and values as a definition list."""
    items = "\n".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in facts
    )
    return f'<dl class="facts">\n{items}\n</dl>'


def score_section(scores: ScoreSheet) -> str:
    """Writes the headline scores, the whole table and its notes."""
    pooled = scores["pooled"]["scores"]
    tiles = "\n".join(
        f'<div class="tile"><span class="label">{name}</span>'
        f'<span class="value">{pooled[name]:.3f}</span></div>'
        for name in _HEADLINES
        if name in pooled
    )
    remarks = "\n".join(f"<li>{escape(line)}</li>" for line in notes(scores))
    return "\n".join(
        [
            '<section aria-labelledby="scores">',
            '<h2 id="scores">Scores</h2>',
            f'<div class="tiles">\n{tiles}\n</div>' if tiles else "",
            _score_table(scores),
            f'<ul class="notes">\n{remarks}\n</ul>' if remarks else "",
            '<p class="small">Best possible: 10 for CIDEr, 1 for the others. '
            f"<code>{escape(scores['signature'])}</code></p>",
            "</section>",
        ]
    )


def figure_section(figures: Mapping[str, Figure]) -> str:
    """Writes figures with their targets, or nothing if there are none."""
    if not figures:
        return ""
    tiles = "\n".join(_figure_tile(figure) for figure in figures.values())
    return (
        '<section aria-labelledby="figures">\n'
        '<h2 id="figures">Does it look at the image?</h2>\n'
        f'<div class="tiles">\n{tiles}\n</div>\n</section>'
    )


def _figure_tile(figure: Figure) -> str:
    value = "n/a" if figure["value"] is None else f"{figure['value']:.2f}"
    state = "reached" if figure["passed"] else "missed"
    return (
        f'<div class="tile {state}"><span class="label">{escape(figure["label"])}</span>'
        f'<span class="value">{value}</span>'
        f'<span class="target">target ≥ {figure["target"]:.2f}: <b>{state}</b></span>'
        f'<span class="detail">{escape(figure["detail"])}</span></div>'
    )


def _score_table(scores: ScoreSheet) -> str:
    names = score_names(scores)
    columns = ["Images", *names, "Distinct", "Empty", "Words", "Words in references"]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    rows = "\n".join(_score_row(name, group, names) for name, group in named_groups(scores))
    return (
        '<div class="scroll" role="region" aria-label="Table of scores" tabindex="0"><table>\n'
        f'<thead><tr><th scope="col">Dataset</th>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _score_row(name: str, group: GroupScores, names: Sequence[str]) -> str:
    text = group["text"]
    cells = [
        str(group["n"]),
        *(_number(group["scores"].get(score)) for score in names),
        f"{text['distinct_rate']:.0%}",
        f"{text['empty_rate']:.1%}",
        f"{text['mean_words']:.1f}",
        f"{text['mean_reference_words']:.1f}",
    ]
    data = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{data}</tr>'


def _number(value: float | None) -> str:
    return '<abbr title="not measured">–</abbr>' if value is None else f"{value:.3f}"  # noqa: RUF001
