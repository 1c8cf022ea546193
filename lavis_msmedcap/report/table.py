"""A score sheet as a text table for the console."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_msmedcap.evaluation.score import GroupScores, ScoreSheet

POOLED = "all"


def format_scores(scores: ScoreSheet) -> str:
    """Writes a score sheet as aligned plain text: one row per dataset, notes and signature below.

    Args:
        scores: What `score_captions` returns.

    Returns:
        Lines of text without a line break at the end.
    """
    groups = named_groups(scores)
    names = score_names(scores)
    head = ["", "images", *names, "distinct", "empty", "words"]
    rows = [
        [
            name,
            str(group["n"]),
            *(_number(group["scores"].get(score)) for score in names),
            f"{group['text']['distinct_rate']:.0%}",
            f"{group['text']['empty_rate']:.1%}",
            f"{group['text']['mean_words']:.1f}",
        ]
        for name, group in groups
    ]
    lines = align([head, *rows])
    return "\n".join([*lines, *notes(scores), scores["signature"]])


def named_groups(scores: ScoreSheet) -> list[tuple[str, GroupScores]]:
    """Returns the groups of a sheet by name, the pooled one first unless there is only one."""
    groups = list(scores["per_dataset"].items())
    return groups if len(groups) == 1 else [(POOLED, scores["pooled"]), *groups]


def score_names(scores: ScoreSheet) -> list[str]:
    """Returns the names of all scores of a sheet, in the order of the pooled ones."""
    names = dict.fromkeys(scores["pooled"]["scores"])
    for group in scores["per_dataset"].values():
        names.update(dict.fromkeys(group["scores"]))
    return list(names)


def notes(scores: ScoreSheet) -> list[str]:
    """Returns one line per metric that did not run or that needs a remark."""
    lines: list[str] = []
    for name, group in named_groups(scores):
        for metric, status in group["status"].items():
            if status["state"] != "ok":
                lines.append(f"{metric} {status['state']} ({name}): {status['reason']}")
            elif status["reason"]:
                lines.append(f"{metric} ({name}): {status['reason']}")
    return list(dict.fromkeys(lines))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def align(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Pads columns with spaces: names to the left, numbers to the right.

    Args:
        rows: Cells, equally many in each row.
        left: How many columns, from the first on, are names.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    ]
