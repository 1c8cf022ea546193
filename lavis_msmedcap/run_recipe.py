"""Fits a stage-1 run to its recipe: datasets that no branch trains on are left out, and said so.

So that one word is enough for a baseline: with ``model.branches.sam=null`` the branch that is left
trains on general images, and the medical datasets of the same file are not even read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lavis_msmedcap.run_relations.values import STAGE_1_TASK, branches_of, splits_of

# a run that loses its validation still trains; one that loses what it evaluates is an error
SPLITS_TO_SPARE = ("valid_splits", "test_splits")
CHOOSING = {"best_metric", "early_stopping"}  # among validations


def fit_to_recipe(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Leaves out the datasets whose domain no branch trains on, if others remain.

    Args:
        config: All sections, checked for types.

    Returns:
        The configuration, and one sentence for everything that was left out.
    """
    run, datasets = config["run"], config["datasets"]
    trained = {domain for _, branch in branches_of(config) for domain in branch.get("train_on", ())}
    useless = {
        name: settings.get("domain")
        for name, settings in datasets.items()
        if settings.get("domain") not in trained
    }
    if run.get("task") != STAGE_1_TASK or not useless or len(useless) == len(datasets):
        return dict(config), []
    kept = {name: settings for name, settings in datasets.items() if name not in useless}
    notes = [
        f"datasets.{name} is left out: it is of domain {domain}, and the branches train on "
        f"{', '.join(sorted(trained))} only"
        for name, domain in useless.items()
    ]
    run = dict(run)
    if isinstance(run.get("train_dataset_ratios"), Mapping):
        ratios = run["train_dataset_ratios"].items()
        run["train_dataset_ratios"] = {k: v for k, v in ratios if k not in useless}
    if run.get("evaluate") is not True:
        notes += _spare_splits(run, datasets, kept)
    return {**config, "datasets": kept, "run": run}, notes


def _spare_splits(
    run: dict[str, Any], before: Mapping[str, Any], kept: Mapping[str, Any]
) -> Iterator[str]:
    """Takes out of ``run`` the splits that only left-out datasets have."""
    had, have = (
        {split for settings in datasets.values() for split in splits_of(settings)}
        for datasets in (before, kept)
    )
    for key in SPLITS_TO_SPARE:
        lost = [split for split in run.get(key) or [] if split in had - have]
        if lost:
            run[key] = [split for split in run[key] if split not in lost]
            yield f"run.{key}: {', '.join(lost)} is left out, because no other dataset has it"
            if key == "valid_splits" and not run[key]:
                run.update(dict.fromkeys(CHOOSING & run.keys()))
