"""Datasets of LAVIS' own builders, and of anybody's, beside those of this package.

A run needs more of a sample than LAVIS' datasets give: its domain, an identifier that is text, the
references of an image that is evaluated. What they lack is taken from their annotations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import OmegaConf
from torch.utils.data import Dataset

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.datasets.builders.base import MedCapBuilder, locate, plain
from lavis_msmedcap.datasets.collate import collate
from lavis_msmedcap.datasets.readers.files import usable_captions
from lavis_msmedcap.datasets.records import MedCapRecord

logger = logging.getLogger(__package__)


class ForeignDataset(Dataset[dict[str, Any]]):
    """A caption dataset from elsewhere whose samples look like those of `MedCapDataset`.

    Args:
        inner: The dataset: it has a length, and gives ``image`` and, for training, ``text_input``.
        name: Registered dataset name.
        split: "train", "val" or "test".
        domain: ``general`` or ``medical``.
        ratio: Sampling weight relative to the natural size, see `BatchPlan`.
        text_processor: Raw caption to text, for samples without ``text_input``.

    Raises:
        DataError: If it has no length, or annotations without captions.
    """

    collater = staticmethod(collate)

    def __init__(
        self,
        inner: Any,
        *,
        name: str,
        split: str,
        domain: str,
        ratio: float = 1.0,
        text_processor: Callable[[Any], Any] | None = None,
    ) -> None:
        self.inner, self.name, self.split = inner, name, split
        self.domain, self.ratio = domain, ratio
        self._text_processor = text_processor
        if not hasattr(inner, "__len__"):
            raise DataError(
                f"datasets.{name} is a stream without a length, so no epoch of it can be "
                "planned; save it as files and read them with caption_table"
            )
        self._annotations = getattr(inner, "annotation", None)
        if self._annotations is None or len(self._annotations) != len(inner):
            self._annotations = None
        elif self._annotations and "caption" not in self._annotations[0]:
            raise DataError(
                f"datasets.{name} has no captions; its annotations have "
                f"{', '.join(map(str, self._annotations[0]))}"
            )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.inner)

    def set_epoch(self, epoch: int) -> None:
        """Tells the epoch to a dataset that wants to know it."""
        if hasattr(self.inner, "set_epoch"):
            self.inner.set_epoch(epoch)

    @property
    def records(self) -> list[MedCapRecord] | None:
        """The samples as records, without loading images; None without annotations."""
        if self._annotations is None or any("image" not in a for a in self._annotations):
            return None
        return [
            MedCapRecord(
                image=self._path(annotation),
                captions=_captions(annotation),
                image_id=_image_id(annotation),
                split=self.split,
                group_id=None,
                source=self.name,
                domain=self.domain,
            )
            for annotation in self._annotations
        ]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a sample with the keys that samples of this package have.

        Raises:
            BadImageError: If the image cannot be read.
            DataError: If the sample has no image tensor, or no caption.
        """
        annotation = self._annotations[index] if self._annotations is not None else {}
        path = self._path(annotation)
        try:
            sample = self.inner[index]
        except OSError as error:  # Pillow's own errors are of these
            raise BadImageError(path or f"{index} of datasets.{self.name}", str(error)) from error
        captions = _captions(annotation) if annotation else ()
        common = {
            "image": self._image(sample),
            "text_input": self._text(sample, captions, index),
            "image_id": _image_id(annotation) if annotation else self._own_id(sample, index),
            "instance_id": f"{self.name}-{index}",
            "dataset": self.name,
            "domain": self.domain,
            "image_path": path,
        }
        if self.split == "train":
            return common
        references = captions or tuple(sample.get("references", ()))
        if not references:
            raise DataError(
                f"sample {index} of datasets.{self.name} ({self.split}) has no reference caption"
            )
        return {**common, "references": list(references)}

    def _image(self, sample: Mapping[str, Any]) -> torch.Tensor:
        image = sample.get("image")
        if not isinstance(image, torch.Tensor):
            part = "train" if self.split == "train" else "eval"
            raise DataError(
                f"datasets.{self.name} gives {type(image).__name__} for an image, expected a "
                f"tensor; set datasets.{self.name}.vis_processor.{part}.name=msmedcap_image_{part}"
            )
        return image

    def _text(self, sample: Mapping[str, Any], captions: tuple[str, ...], index: int) -> str:
        text = sample.get("text_input")
        if isinstance(text, str):
            return text
        if not captions:
            raise DataError(f"sample {index} of datasets.{self.name} has no caption")
        return str(self._text_processor(captions[0])) if self._text_processor else captions[0]

    def _path(self, annotation: Mapping[str, Any]) -> str:
        name = annotation.get("image", "")
        return str(Path(getattr(self.inner, "vis_root", None) or "", name)) if name else ""

    @staticmethod
    def _own_id(sample: Mapping[str, Any], index: int) -> str:
        return str(sample.get("image_id", index))


def build_foreign(name: str, builder_cls: Any, section: Any) -> dict[str, Any]:
    """Builds the datasets of any builder for a run of this package.

    Those of a builder of this package are returned as they are. For a LAVIS builder, annotation
    files that are on this machine are read where they lie; what is not is downloaded by LAVIS.

    Args:
        name: Name of its section.
        builder_cls: The registered class.
        section: Its section, with ``domain`` and perhaps ``ratio``.

    Returns:
        Datasets by split.

    Raises:
        DataError: If a dataset cannot be used, with the reason.
    """
    if issubclass(builder_cls, MedCapBuilder):
        return dict(builder_cls(section).build_datasets())
    section = OmegaConf.create(plain(section))  # a copy: places are written into it
    plain_lavis = getattr(builder_cls, "build_datasets", None) is BaseDatasetBuilder.build_datasets
    local = plain_lavis and _read_in_place(section)
    builder = builder_cls(section)
    datasets = builder.build() if local else builder.build_datasets()
    wrapped: dict[str, Any] = {}
    for split, dataset in datasets.items():
        part = "train" if split == "train" else "eval"
        wrapped[split] = ForeignDataset(
            dataset,
            name=name,
            split=split,
            domain=section.get("domain"),
            ratio=float(section.get("ratio", 1.0)),
            text_processor=builder.text_processors.get(part),
        )
    counts = ", ".join(f"{split} {len(data):,}" for split, data in wrapped.items())
    logger.info("%s: read by %s (%s)", name, builder_cls.__name__, counts)
    return wrapped


def _read_in_place(section: Any) -> bool:
    """Writes where annotations and images are on this machine, and tells whether all are.

    LAVIS looks for relative paths in its cache only, and copies a local file that stands for an
    address into it, once: after that it reads the copy, however the file changes.
    """
    info = section.get("build_info") or {}
    found = True
    annotations = info.get("annotations") or {}
    for split in [split for split, entry in annotations.items() if entry is None]:
        del annotations[split]  # which LAVIS would look into
    for entry in annotations.values():
        storage = _listed(entry.get("storage"))
        sources = _listed(entry.get("url")) or [""] * len(storage)
        places = [_local(*pair) for pair in zip(sources, storage)]
        found = found and len(places) == len(storage) > 0 and all(places)
        if len(places) == len(storage):
            entry.storage = [place or kept for place, kept in zip(places, storage)]
    images = info.get(section.get("data_type", "images"))
    if images is not None and isinstance(images.get("storage"), str):
        images.storage = str(locate(images.storage))
    return found


def _local(source: str, storage: str) -> str | None:
    if source and "://" not in source and locate(source).is_file():
        return str(locate(source))
    return str(locate(storage)) if locate(storage).is_file() else None


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]


def _captions(annotation: Mapping[str, Any]) -> tuple[str, ...]:
    caption = annotation.get("caption")
    return usable_captions(caption if isinstance(caption, list) else [caption])


def _image_id(annotation: Mapping[str, Any]) -> str:
    """Returns the annotation's own id, else the name of its image without extension."""
    if annotation.get("image_id") is not None:
        return str(annotation["image_id"])
    return PurePosixPath(str(annotation.get("image", ""))).stem
