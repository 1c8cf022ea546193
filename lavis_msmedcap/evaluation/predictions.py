"""Predictions: the plain files between a run and its scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import DataError

Prediction = Mapping[str, Any]

_MAX_PROBLEMS = 5


def find_predictions(path: Path, split: str = "test") -> Path:
    """Finds a predictions file.

    Args:
        path: The file itself, a run directory, or a folder above run directories (to two levels),
            of which the newest predictions are taken.
        split: Which predictions to take from a run directory.

    Raises:
        DataError: If there is none.
    """
    if path.is_file():
        return path
    name = f"result/predictions_{split}.json"
    found = [file for depth in ("", "*/", "*/*/") for file in path.glob(depth + name)]
    if not found:
        raise DataError(
            f"no {name} in {path} or below; give a predictions file, a run directory, or a folder "
            "of run directories in which an evaluation has finished"
        )
    return max(found, key=lambda file: (file.stat().st_mtime, str(file)))


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Reads and checks a predictions file.

    Raises:
        DataError: If the file cannot be read or its content is malformed.
    """
    try:
        predictions = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read predictions {path}: {error}") from error
    if not isinstance(predictions, list):
        raise DataError(f"{path} holds no list of predictions; was another file meant?")
    try:
        check_predictions(predictions)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return predictions


def check_predictions(predictions: Sequence[Prediction]) -> None:
    """Checks the form of predictions.

    Raises:
        DataError: Naming up to five faults, each with its place.
    """
    if not predictions:
        raise DataError("no predictions to score; expected at least one image with a caption")
    problems: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    for index, prediction in enumerate(predictions):
        faults = _faults(prediction)
        problems += [f"prediction {index}: {fault}" for fault in faults]
        if not faults:
            seen[prediction["dataset"], prediction["image_id"]] += 1
    problems += [
        f"image {image_id!r} of dataset {dataset!r} occurs {count} times; score each image once"
        for (dataset, image_id), count in seen.items()
        if count > 1
    ]
    if problems:
        more = len(problems) - _MAX_PROBLEMS
        tail = [f"and {more} more"] if more > 0 else []
        raise DataError("; ".join(problems[:_MAX_PROBLEMS] + tail))


def _faults(prediction: object) -> list[str]:
    if not isinstance(prediction, Mapping):
        return [f"must be an object with named values, found {prediction!r}"]
    faults = [
        f"{key!r} must be a string, found {prediction.get(key)!r}"
        for key in ("image_id", "dataset", "caption")
        if not isinstance(prediction.get(key), str)
    ]
    references = prediction.get("references")
    if (
        not isinstance(references, (list, tuple))
        or not references
        or not all(isinstance(reference, str) for reference in references)
    ):
        faults.append(f"'references' must be a non-empty list of strings, found {references!r}")
    return faults
