"""``data_summary.json``: what a run's data were, beside its checkpoints."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.distributed import is_main_process
from lavis_msmedcap.common.whole_files import write_whole
from lavis_msmedcap.runners.loaders import TRAIN, with_split
from lavis_msmedcap.runners.long_texts import count_long_texts
from lavis_msmedcap.runners.skipped_images import SkippedImages

logger = logging.getLogger(__name__)


def data_summary(
    datasets: Mapping[str, Mapping[str, Any]],
    skipped: Mapping[str, Mapping[str, Any]],
    too_long: Mapping[str, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """Puts together what is known of the data.

    Args:
        datasets: Dataset name to split name to dataset.
        skipped: What training had to skip, by dataset, see `SkippedImages.facts`.
        too_long: Captions that are longer than the model reads, by dataset.

    Returns:
        By dataset: ``samples`` by split; ``skipped``; ``longer_than_max_txt_len`` where it was
        counted; and where its builder counted (see `lavis_msmedcap.datasets.summary`) ``read``,
        ``kept``, ``dropped``, ``notes``, ``captions``.
    """
    summary = {}
    for name, splits in datasets.items():
        present = {split: data for split, data in splits.items() if data is not None}
        facts: dict[str, Any] = {"samples": {split: len(data) for split, data in present.items()}}
        for data in present.values():
            facts.update(getattr(data, "facts", {}))
        facts["skipped"] = dict(skipped.get(name, {}))
        if too_long and name in too_long:
            facts["longer_than_max_txt_len"] = too_long[name]
        summary[name] = facts
    return summary


class DataBook:
    """Keeps the summary of one run up to date.

    Args:
        datasets: Dataset name to split name to dataset.
        path: Where the summary is written.
    """

    def __init__(self, datasets: Mapping[str, Mapping[str, Any]], path: Path) -> None:
        self._datasets = datasets
        self._path = path
        self._skipped = SkippedImages(with_split(datasets, TRAIN))
        self._too_long: dict[str, int] = {}
        if not path.exists():  # a run that is taken up has its summary, see `restore`
            self._write()

    def take(self, samples: dict[str, Any]) -> None:
        """Takes the notes about skipped images out of a training batch.

        Raises:
            DataError: If too many images of a dataset have been skipped.
        """
        self._skipped.take(samples)

    def skipped(self) -> dict[str, dict[str, Any]]:
        """Returns what all ranks had to skip so far; every rank has to call it."""
        self._skipped.share()
        return self._skipped.facts()

    def restore(self, skipped: Mapping[str, Mapping[str, Any]]) -> None:
        """Goes on with what `skipped` has returned in an earlier process, on every rank."""
        self._skipped.restore(skipped)
        self._write()

    def count_long_texts(self, model: Any) -> None:
        """Counts the training captions that the model does not read to their end."""
        if is_main_process():
            self._too_long = count_long_texts(model, with_split(self._datasets, TRAIN))
            self._write()

    def close_epoch(self) -> None:
        """Learns what all ranks had to skip, and writes it down; every rank has to call it.

        Raises:
            DataError: If too many images of a dataset have been skipped.
        """
        try:
            self._skipped.exchange()
        finally:
            self._write()
        if is_main_process() and self._skipped.summary():
            logger.info("%s", self._skipped.summary())

    def _write(self) -> None:
        if is_main_process():
            summary = data_summary(self._datasets, self._skipped.facts(), self._too_long)
            text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
            write_whole(self._path, [text])
