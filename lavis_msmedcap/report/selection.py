"""Which images a report shows: an honest sample first, then the two ends."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RANKED_BY = "CIDEr"
_ENDS = 8


@dataclass(frozen=True)
class Example:
    """One image of a report; ``score`` is its CIDEr, None where it was not measured."""

    prediction: Mapping[str, Any]
    score: float | None


@dataclass(frozen=True)
class Selection:
    """Images to show; one may stand in the sample and at an end.

    Attributes:
        sample: Drawn at random without looking at scores; datasets take turns.
        best: Highest scores of all images, best first.
        worst: Lowest scores of all images, worst first.
    """

    sample: list[Example]
    best: list[Example]
    worst: list[Example]


def select_examples(
    predictions: Sequence[Mapping[str, Any]],
    per_image: Sequence[Mapping[str, Any]],
    max_examples: int,
    seed: int = 0,
) -> Selection:
    """Chooses up to ``max_examples`` images, at most two in seven of them for the two ends.

    Args:
        predictions: All predictions.
        per_image: The ``per_image`` part of a score sheet.
        max_examples: Most images to show.
        seed: Seed of the sample.
    """
    scores = {(entry["dataset"], entry["image_id"]): entry.get(RANKED_BY) for entry in per_image}
    examples = [
        Example(item, scores.get((item["dataset"], item["image_id"]))) for item in predictions
    ]
    ranked = sorted(
        (example for example in examples if example.score is not None),
        key=lambda example: float(example.score or 0.0),
    )
    ends = min(_ENDS, max_examples // 7, len(ranked) // 8)
    sample = _dealt_by_dataset(examples, random.Random(seed))[: max_examples - 2 * ends]
    return Selection(sample, ranked[::-1][:ends], ranked[:ends])


def _dealt_by_dataset(examples: Sequence[Example], generator: random.Random) -> list[Example]:
    """Shuffles within each dataset, then takes one of each in turn."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.prediction["dataset"], []).append(example)
    for group in groups.values():
        generator.shuffle(group)
    turns = max((len(group) for group in groups.values()), default=0)
    return [group[turn] for turn in range(turns) for group in groups.values() if turn < len(group)]
