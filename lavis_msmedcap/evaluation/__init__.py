"""Scores of captions against references."""

from __future__ import annotations

from lavis_msmedcap.evaluation.baselines import best_constant_caption, dealt_to_others
from lavis_msmedcap.evaluation.score import (
    DEFAULT_METRICS,
    METRICS,
    GroupScores,
    ScoreSheet,
    score_captions,
)

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "GroupScores",
    "ScoreSheet",
    "best_constant_caption",
    "dealt_to_others",
    "score_captions",
]
