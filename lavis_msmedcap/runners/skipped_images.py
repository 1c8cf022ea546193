"""The images that training could not read: told once, counted over all ranks, up to a ceiling."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lavis_msmedcap.common.distributed import gather_objects, is_main_process
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.skipping import SKIPPED, SkippedImage

logger = logging.getLogger(__name__)

_SHOWN = 3
_DEFAULT_SHARE = 0.01


class SkippedImages:
    """Keeps the notes that come with training batches.

    Each rank knows at once what it met itself; what the others met it learns at the end of an
    epoch, in `exchange`.

    Args:
        datasets: Training datasets by name; ``max_bad`` of a dataset is the share of its images
            that may be skipped.
    """

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        self._sizes = {name: len(data) for name, data in datasets.items()}
        self._shares = {
            name: float(getattr(data, "max_bad", _DEFAULT_SHARE)) for name, data in datasets.items()
        }
        self._reasons: dict[str, dict[str, str]] = {name: {} for name in datasets}
        self._own: Counter[str] = Counter()  # since the last exchange
        self._stand_ins: Counter[str] = Counter()

    def take(self, samples: dict[str, Any]) -> None:
        """Takes the notes out of a batch.

        Raises:
            DataError: If too many images of a dataset have been skipped.
        """
        for note in samples.pop(SKIPPED, ()):
            self._own[note.dataset] += 1
            self._keep(note)
            self._check(note.dataset)

    def exchange(self) -> None:
        """Puts together what all ranks have met; every rank has to call it.

        Raises:
            DataError: On all ranks, if too many images of a dataset have been skipped.
        """
        self.share()
        for name in self._reasons:
            self._check(name)

    def share(self) -> None:
        """Puts together what all ranks have met; every rank has to call it."""
        notes = [
            SkippedImage(name, image, reason)
            for name, images in self._reasons.items()
            for image, reason in images.items()
        ]
        for note in gather_objects(notes):
            self._keep(note)
        for counts in gather_objects([self._own]):
            self._stand_ins.update(counts)
        self._own = Counter()

    def restore(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Goes on with the `facts` of an earlier process."""
        for name, fact in facts.items():
            self._reasons.setdefault(name, {}).update(fact["images"])
            self._stand_ins[name] = int(fact["samples"])

    def facts(self) -> dict[str, dict[str, Any]]:
        """Returns, for each dataset that had any, the images with their reasons.

        ``samples`` counts how often an unreadable image had to be replaced, over all epochs.
        """
        return {
            name: {"images": dict(sorted(images.items())), "samples": self._stand_ins[name]}
            for name, images in self._reasons.items()
            if images
        }

    def summary(self) -> str:
        """Returns the counts on one line; empty if nothing was skipped."""
        counts = [
            f"{name} {len(images):,} of {self._sizes[name]:,}"
            for name, images in self._reasons.items()
            if images
        ]
        return f"images skipped because they cannot be read: {', '.join(counts)}" if counts else ""

    def _keep(self, note: SkippedImage) -> None:
        known = self._reasons.setdefault(note.dataset, {})
        if note.image in known:
            return
        known[note.image] = note.reason
        if is_main_process():
            logger.warning(
                "%s: image skipped, another one takes its place: %s: %s",
                note.dataset,
                note.image,
                note.reason,
            )

    def _check(self, name: str) -> None:
        images, size = self._reasons[name], self._sizes.get(name, 0)
        share = self._shares.get(name, _DEFAULT_SHARE)
        if len(images) <= share * size:
            return
        first = [f"{image} ({reason})" for image, reason in sorted(images.items())[:_SHOWN]]
        more = ", …" if len(images) > _SHOWN else ""
        raise DataError(
            f"{len(images):,} of {size:,} training images of {name} cannot be read, at most "
            f"{share:.1%} may be skipped: {', '.join(first)}{more}. See what is wrong with all of "
            "them (msmedcap data check) and fetch them again or leave them out, or raise "
            f"datasets.{name}.max_bad"
        )
