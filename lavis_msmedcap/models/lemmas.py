"""Lemmas of answers, as LAVIS' ``apply_lemmatizer`` makes them, with spaCy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from lavis_msmedcap.common.errors import MSMedCapError

PIPELINE = "en_core_web_sm"
CHANGED = ("NOUN", "VERB")


def lemmatize(answers: Sequence[str]) -> list[str]:
    """Replaces nouns and verbs by their lemmas; words are joined by single spaces.

    Raises:
        MSMedCapError: If spaCy or its English pipeline is not installed.
    """
    pipeline = _load_pipeline()
    return [
        " ".join(
            token.lemma_ if token.pos_ in CHANGED else token.text for token in pipeline(answer)
        )
        for answer in answers
    ]


@functools.cache
def _load_pipeline() -> Any:
    try:
        import spacy

        return spacy.load(PIPELINE)
    except (ImportError, OSError) as error:  # spaCy says OSError for a pipeline it lacks
        raise MSMedCapError(
            f"apply_lemmatizer needs spaCy and its pipeline {PIPELINE}: pip install spacy, then "
            f"python -m spacy download {PIPELINE}; or set apply_lemmatizer to false"
        ) from error
