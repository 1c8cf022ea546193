"""Does a model trained on the phantoms look at the image? Four figures with targets.

Run as ``python -m lavis_msmedcap.evaluation.phantom_check RUN``, where RUN is a predictions file, a
run directory or a folder of runs; the exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypedDict

from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.evaluation.baselines import best_constant_caption, dealt_to_others
from lavis_msmedcap.evaluation.predictions import Prediction, find_predictions, read_predictions
from lavis_msmedcap.evaluation.score import score_captions
from lavis_msmedcap.phantom.facets import Facets, parse_facets

CONSTANT_TARGET: Final = 4.0
DEALT_TARGET: Final = 3.0
SIDE_TARGET: Final = 0.80
MODALITY_TARGET: Final = 0.95

# Below this a baseline counts as this: a ratio to nothing would say nothing.
_SMALLEST_CIDER = 1e-3
_CIDER = ("CIDEr",)


class Figure(TypedDict):
    """One figure: ``value`` is None, and the target missed, where nothing could be measured."""

    label: str
    value: float | None
    target: float
    passed: bool
    detail: str


def phantom_figures(predictions: Sequence[Prediction], *, seed: int = 0) -> dict[str, Figure]:
    """Measures predictions on phantoms.

    Args:
        predictions: As for `score_captions`, on images of the phantom data.
        seed: Chooses how captions are dealt to other images.

    Returns:
        ``cider_over_constant`` (against the best caption that all images could share),
        ``cider_over_dealt`` (against the model's captions dealt to other images), ``side_accuracy``
        and ``modality_accuracy`` (over the images whose reference names one).

    Raises:
        DataError: If the predictions are malformed or fewer than two.
    """
    dealt = dealt_to_others(predictions, seed, metrics=_CIDER)["group"]["scores"]["CIDEr"]
    constant = best_constant_caption(
        [prediction["references"] for prediction in predictions], metrics=_CIDER
    )
    shared = constant["group"]["scores"]["CIDEr"]
    model = score_captions(predictions, metrics=_CIDER)["pooled"]["scores"]["CIDEr"]
    return {
        "cider_over_constant": _ratio(
            "CIDEr / best constant caption",
            model,
            shared,
            CONSTANT_TARGET,
            f'every image: "{constant["caption"]}"',
        ),
        "cider_over_dealt": _ratio(
            "CIDEr / captions dealt to others",
            model,
            dealt,
            DEALT_TARGET,
            f"seed {seed}",
        ),
        "side_accuracy": _accuracy(
            "Lesion side named correctly", predictions, lambda facets: facets.side, SIDE_TARGET
        ),
        "modality_accuracy": _accuracy(
            "Modality named correctly",
            predictions,
            lambda facets: facets.modality,
            MODALITY_TARGET,
        ),
    }


def format_figures(figures: Mapping[str, Figure]) -> str:
    """Writes figures as one line each, with target and verdict."""
    width = max(len(figure["label"]) for figure in figures.values())
    lines = []
    for figure in figures.values():
        value = "n/a" if figure["value"] is None else f"{figure['value']:.2f}"
        verdict = "PASS" if figure["passed"] else "FAIL"
        line = (
            f"{figure['label']:<{width}}  {value:>6}  target >= {figure['target']:.2f}  {verdict}"
        )
        lines.append(f"{line}  ({figure['detail']})")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the four figures; returns the exit status (0 passed, 1 missed, 2 cannot measure)."""
    parser = argparse.ArgumentParser(
        prog="python -m lavis_msmedcap.evaluation.phantom_check",
        description="Four figures that show whether a model looks at the phantom images.",
    )
    parser.add_argument("path", type=Path, help="predictions file, run directory or folder of runs")
    parser.add_argument(
        "--split", default="test", help="which predictions of a run (default: test)"
    )
    options = parser.parse_args(arguments)
    try:
        path = find_predictions(options.path, options.split)
        figures = phantom_figures(read_predictions(path))
    except MSMedCapError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{path}\n{format_figures(figures)}\n")
    return 0 if all(figure["passed"] for figure in figures.values()) else 1


def _ratio(label: str, model: float, baseline: float, target: float, note: str) -> Figure:
    value = model / max(baseline, _SMALLEST_CIDER)
    return {
        "label": label,
        "value": value,
        "target": target,
        "passed": value >= target,
        "detail": f"{model:.2f} against {baseline:.2f}; {note}",
    }


def _accuracy(
    label: str,
    predictions: Sequence[Prediction],
    facet: Callable[[Facets], str | None],
    target: float,
) -> Figure:
    named = right = 0
    for prediction in predictions:
        expected = {facet(parse_facets(text)) for text in prediction["references"]} - {None}
        if expected:
            named += 1
            right += facet(parse_facets(prediction["caption"])) in expected
    value = right / named if named else None
    return {
        "label": label,
        "value": value,
        "target": target,
        "passed": value is not None and value >= target,
        "detail": f"{right} of {named} images" if named else "no reference names one",
    }


if __name__ == "__main__":
    sys.exit(main())
