"""Datasets of LAVIS' own builders, and of anybody's, beside those of this package.

A run needs more of a sample than LAVIS' datasets give: its domain, an identifier that is text, the
references of an image that is evaluated. What they lack is taken from their annotations.

LAVIS' own caption datasets open images with bare Pillow, to which a 16-bit picture is white and an
EXIF orientation nothing. Where an image processor of this package stands behind them, it reads the
file itself, augments it if that is asked for, and theirs is not asked. Datasets of others open
their images as they please; augmentation, which they would not do, is refused for them.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from lavis.datasets.datasets.caption_datasets import CaptionDataset, CaptionEvalDataset
from lavis.datasets.datasets.coco_caption_datasets import COCOCapEvalDataset, NoCapsEvalDataset
from lavis.datasets.datasets.image_text_pair_datasets import ImageTextPairDataset
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import Dataset

from lavis_msmedcap.common.config_check import check
from lavis_msmedcap.common.errors import BadImageError, ConfigError, DataError
from lavis_msmedcap.datasets.builders.base import MedCapBuilder, plain
from lavis_msmedcap.datasets.builders.foreign_files import is_local
from lavis_msmedcap.datasets.collate import collate
from lavis_msmedcap.datasets.readers.files import usable_captions
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.selection import merge_repeated
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.datasets.skipping import (
    ERROR,
    KEYS,
    SKIP,
    SKIPPED,
    SkippedImage,
    stand_ins,
)
from lavis_msmedcap.imaging.augment import sample_rng
from lavis_msmedcap.imaging.read import strict_decoding

logger = logging.getLogger(__package__)

# what Pillow raises about missing, truncated, damaged and oversized files
_IMAGE_ERRORS = (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)

# what these do is known: open the image of an annotation, process it and its caption
_KNOWN = (
    CaptionDataset,
    CaptionEvalDataset,
    COCOCapEvalDataset,
    ImageTextPairDataset,
    NoCapsEvalDataset,
)


class ForeignDataset(Dataset[dict[str, Any]]):
    """A caption dataset from elsewhere whose samples look like those of `MedCapDataset`.

    Args:
        inner: The dataset: it has a length, and gives ``image`` and, for training, ``text_input``.
        name: Registered dataset name.
        split: "train", "val" or "test".
        domain: ``general`` or ``medical``.
        ratio: Sampling weight relative to the natural size, see `BatchPlan`.
        text_processor: Raw caption to text, for samples without ``text_input``.
        on_bad: What a training image that cannot be read does: "error" raises; "skip" puts another
            one in its place and leaves a note, see `lavis_msmedcap.datasets.skipping`. In
            evaluation it is always an error.
        max_bad: Share of the samples that may be skipped; the runner checks it.
        seed: Decides what takes the place of a skipped image, and how images are augmented.

    Raises:
        ConfigError: If its images are to be augmented in training, and it opens them itself.
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
        on_bad: str = ERROR,
        max_bad: float = 0.01,
        seed: int = 0,
    ) -> None:
        self.inner, self.name, self.split = inner, name, split
        self.domain, self.ratio = domain, ratio
        self._text_processor = text_processor
        self.on_bad, self.max_bad, self.seed = on_bad, max_bad, seed
        # in shared memory: loader workers that outlive an epoch must see the next one
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
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
        processor = getattr(inner, "vis_processor", None)
        known = any(type(inner).__getitem__ is cls.__getitem__ for cls in _KNOWN)
        reads = known and self._annotations is not None and hasattr(processor, "read")
        # None where the dataset opens its images itself
        self.vis_processor = processor if reads else None
        wanted = getattr(processor, "augmentation", None) is not None and split == "train"
        if wanted and not reads:
            raise ConfigError(
                [
                    f"datasets.{name}.vis_processor.train.augment would do nothing, as "
                    f"{type(inner).__name__} opens its images itself, and a flip has to know "
                    "their captions; write augment: null, or read the files with caption_table"
                ]
            )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.inner)

    def set_epoch(self, epoch: int) -> None:
        """Tells the epoch, to running loader workers too, and to a dataset that wants to know."""
        self._epoch.fill_(epoch)
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

    def read_picture(self, image: str) -> Image.Image:
        """Reads an image of `records` as its samples are read.

        Raises:
            BadImageError: If it cannot be read.
        """
        if self.vis_processor is not None:
            picture: Image.Image = self.vis_processor.read(image)
            return picture
        with self._naming(image):
            return Image.open(image).convert("RGB")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a sample with the keys that samples of this package have.

        Raises:
            BadImageError: If the image cannot be read, in evaluation or with ``on_bad`` "error".
            DataError: If the sample has no image tensor or no caption, or none of many images in a
                row can be read.
        """
        try:
            return self._sample(index)
        except BadImageError as error:
            if self.split != "train" or self.on_bad == ERROR:
                raise
            return self._stand_in(index, self._note(error))

    def _sample(self, index: int) -> dict[str, Any]:
        annotation = self._annotations[index] if self._annotations is not None else {}
        path = self._path(annotation)
        with self._naming(path or f"{index} of datasets.{self.name}"):
            if self.vis_processor is None:
                sample = self.inner[int(index)]
            else:
                sample = self._processed(annotation, path, index)
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

    def _processed(self, annotation: Mapping[str, Any], path: str, index: int) -> dict[str, Any]:
        """Makes the sample that a dataset of ``_KNOWN`` makes, from an image that is read here."""
        assert self.vis_processor is not None
        picture = self.vis_processor.read(path)
        caption = annotation.get("caption")
        if not isinstance(caption, str):
            caption = next(iter(_captions(annotation)), None)
        if caption is None:  # told where the text is wanted
            return {"image": self.vis_processor(picture)}
        if self.split == "train" and hasattr(self.vis_processor, "augment"):
            rng = sample_rng(self.seed, int(self._epoch.item()), int(index))
            picture, caption = self.vis_processor.augment(picture, caption, rng)
        sample = {"image": self.vis_processor(picture)}
        if self._text_processor:
            sample["text_input"] = self._text_processor(caption)
        elif caption.strip():
            sample["text_input"] = caption.strip()
        return sample

    def _stand_in(self, index: int, first: SkippedImage) -> dict[str, Any]:
        """Returns the sample that takes the place of one whose image cannot be read."""
        skipped = [first]
        for other in stand_ins(self.seed, int(self._epoch.item()), index, len(self)):
            try:
                return {**self._sample(other), SKIPPED: skipped}
            except BadImageError as error:
                skipped.append(self._note(error))
        raise DataError(
            f"{len(skipped)} image(s) of {self.name} in a row cannot be read, the first is "
            f"{first.image}: {first.reason}. Is the disk that they lie on there, and is "
            f"datasets.{self.name}.build_info.images.storage their folder?"
        )

    def _note(self, error: BadImageError) -> SkippedImage:
        return SkippedImage(self.name, error.path, error.reason)

    @staticmethod
    @contextmanager
    def _naming(image: str) -> Iterator[None]:
        """Decodes strictly whatever LAVIS has set, and turns Pillow's errors into ours."""
        try:
            with strict_decoding():
                yield
        except FileNotFoundError as error:
            raise BadImageError(image, "the file does not exist") from error
        except _IMAGE_ERRORS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadImageError(image, reason) from error

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
        ConfigError: If ``on_bad`` or ``max_bad`` is none, or augmentation cannot be done.
        DataError: If a dataset cannot be used, with the reason.
    """
    if issubclass(builder_cls, MedCapBuilder):
        return dict(builder_cls(section).build_datasets())
    section = OmegaConf.create(plain(section))  # a copy: places are written into it
    on_bad, max_bad = _about_bad_images(name, section)
    local = is_local(builder_cls, section)
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
            on_bad=on_bad,
            max_bad=max_bad,
        )
    counts = ", ".join(f"{split} {len(data):,}" for split, data in wrapped.items())
    logger.info("%s: read by %s (%s)", name, builder_cls.__name__, counts)
    return wrapped


def read_foreign_records(
    name: str, builder_cls: Any, section: Any, report: ReadReport
) -> dict[str, list[MedCapRecord]] | None:
    """Reads the records of a LAVIS builder without loading an image, and downloads nothing.

    Args:
        name: Name of its section.
        builder_cls: The registered class, none of this package.
        section: As for `build_foreign`.
        report: Where to count.

    Returns:
        Records by split, one per image; None where files would have to be downloaded, or where the
        datasets do not tell their images without loading them.

    Raises:
        ConfigError: As `build_foreign`.
        DataError: As `build_foreign`, or if an id stands for two images.
    """
    if not is_local(builder_cls, OmegaConf.create(plain(section))):
        return None
    records: dict[str, list[MedCapRecord]] = {}
    for split, dataset in build_foreign(name, builder_cls, section).items():
        found = dataset.records
        if found is None:
            return None
        captioned = [record for record in found if record.captions]
        report.kept[split] += len(captioned)
        report.dropped["without caption"] += len(found) - len(captioned)
        records[split] = merge_repeated(captioned, report)
    return records


def _about_bad_images(name: str, section: Any) -> tuple[str, float]:
    """Returns ``on_bad`` and ``max_bad``, which mean what they mean to builders of this package."""
    problems = check(plain(section), KEYS, f"datasets.{name}", unknown=False)
    if problems:
        raise ConfigError(problems)
    return section.get("on_bad", SKIP), float(section.get("max_bad", 0.01))


def _captions(annotation: Mapping[str, Any]) -> tuple[str, ...]:
    caption = annotation.get("caption")
    return usable_captions(caption if isinstance(caption, list) else [caption])


def _image_id(annotation: Mapping[str, Any]) -> str:
    """Returns the annotation's own id, else the name of its image without extension."""
    if annotation.get("image_id") is not None:
        return str(annotation["image_id"])
    return PurePosixPath(str(annotation.get("image", ""))).stem
