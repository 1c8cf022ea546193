"""Samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.skipping import SKIPPED


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks tensors and puts everything else in lists.

    LAVIS' own collation drops keys that not every sample has, and transposes lists of references;
    here the first is an error and the second does not happen.

    Args:
        samples: Samples with the same keys; a sample that stands in for an unreadable one also has
            ``skipped``, a list of `SkippedImage`.

    Returns:
        Tensors with a leading batch axis, lists of strings, lists of reference lists; ``skipped``,
        all such notes in one list, only where there are any.

    Raises:
        DataError: If samples differ in their keys or in the shape of a tensor.
    """
    keys = [key for key in samples[0] if key != SKIPPED]
    for sample in samples:
        different = (set(keys) ^ sample.keys()) - {SKIPPED}
        if different:
            raise DataError(
                f"samples {samples[0].get('image_path')} and {sample.get('image_path')} of one "
                f"batch differ in {sorted(different)}"
            )
    batch = {key: _gather(key, [sample[key] for sample in samples], samples) for key in keys}
    notes = [note for sample in samples for note in sample.get(SKIPPED, ())]
    return {**batch, SKIPPED: notes} if notes else batch


def _gather(key: str, values: list[Any], samples: Sequence[dict[str, Any]]) -> Any:
    if not isinstance(values[0], Tensor):
        return values
    for value, sample in zip(values, samples):
        if value.shape != values[0].shape:
            raise DataError(
                f"{key} has shape {tuple(values[0].shape)} for {samples[0].get('image_path')} but "
                f"{tuple(value.shape)} for {sample.get('image_path')}; use the same vis_processor "
                "sizes for all datasets"
            )
    return default_collate(values)
