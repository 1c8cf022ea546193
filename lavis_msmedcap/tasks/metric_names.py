"""Which results a validation will give, known before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lavis_msmedcap.evaluation.score import score_names
from lavis_msmedcap.models.base import FUSED
from lavis_msmedcap.models.recall import recall_names

CHOSEN_BY_TASK = "agg_metrics"
LOSSES = ("loss_itc", "loss_itm", "loss_lm")


def caption_metrics() -> list[str]:
    """Returns the names of stage 2: scores of captions."""
    return [CHOSEN_BY_TASK, *score_names()]


def pretraining_metrics(
    train_on: Mapping[str, Collection[str]], domains: Mapping[str, str]
) -> list[str]:
    """Returns the names of stage 1: losses and recalls, of all images and of each dataset.

    Args:
        train_on: Branch name to the domains that it looks at.
        domains: Domain by name of the datasets that are validated.
    """
    names = [CHOSEN_BY_TASK, *_names("", train_on, set(domains.values()), recalls=True)]
    for dataset, domain in domains.items():
        names += _names(f"{dataset}/", train_on, {domain}, recalls=len(domains) > 1)
    return names


def _names(
    head: str, train_on: Mapping[str, Collection[str]], domains: Collection[str], *, recalls: bool
) -> list[str]:
    looking = [name for name, wanted in train_on.items() if set(wanted) & set(domains)]
    names = ["loss", *(f"{branch}/{loss}" for branch in looking for loss in LOSSES)]
    if recalls:
        shared = set(domains).intersection(*train_on.values())
        together = [FUSED] if len(train_on) > 1 and shared else []
        names += [f"{branch}/{r}" for branch in (*looking, *together) for r in recall_names()]
    return [f"{head}{name}" for name in names]
