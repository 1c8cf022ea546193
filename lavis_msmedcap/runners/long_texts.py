"""Training captions that have more tokens than the model reads; their ends are not learned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


def count_long_texts(model: Any, datasets: Mapping[str, Any]) -> dict[str, int]:
    """Counts and logs the captions of each dataset that are longer than ``model.max_txt_len``.

    Args:
        model: A model with ``max_txt_len`` and ``text_length`` (see `TextLength`); for another one
            nothing is counted.
        datasets: Training datasets by name; those without ``records`` and ``text_processor`` are
            left out.

    Returns:
        Number of captions by dataset.
    """
    limit, make_length = getattr(model, "max_txt_len", None), getattr(model, "text_length", None)
    if limit is None or make_length is None:
        return {}
    length, counts = make_length(), {}
    for name, data in datasets.items():
        prepare = getattr(data, "text_processor", None)
        captions = [c for record in getattr(data, "records", ()) for c in _captions(record)]
        if prepare is None or not captions:
            continue
        texts = (prepare(caption) for caption in captions)
        counts[name] = sum(length.at_most(text) > limit < length(text) for text in texts)
        if counts[name]:
            logger.info(
                "%s: %s of %s training captions (%.1f%%) are longer than model.max_txt_len, %d "
                "tokens; their ends are not learned",
                name,
                f"{counts[name]:,}",
                f"{len(captions):,}",
                100 * counts[name] / len(captions),
                limit,
            )
    return counts


def _captions(record: Any) -> tuple[str, ...]:
    return tuple(getattr(record, "captions", ()))
