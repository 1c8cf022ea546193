"""The datasets that builders hand to LAVIS: records in, samples out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lavis.datasets.datasets.base_dataset import BaseDataset
from PIL import Image

from lavis_msmedcap.common.errors import BadImageError, DataError
from lavis_msmedcap.datasets.collate import collate
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.datasets.skipping import ERROR, SKIPPED, SkippedImage, stand_ins
from lavis_msmedcap.imaging.augment import sample_rng
from lavis_msmedcap.imaging.read import read_image

Processor = Callable[[Any], Any]


class MedCapDataset(BaseDataset):
    """What training and evaluation share: one entry per image, read when asked for.

    Args:
        records: Images with their captions.
        vis_processor: Picture to image tensor. If it has a method ``read(path)``, that reads the
            picture instead of `read_image`.
        text_processor: Raw caption to text.
        name: Registered dataset name.
        domain: ``general`` or ``medical``.
        ratio: Sampling weight relative to the natural size, see `BatchPlan`.
        seed: Seed of the choice among several captions.

    Attributes:
        facts: What the builder knows about all splits (see `lavis_msmedcap.datasets.summary`), for
            the run directory.
    """

    collater = staticmethod(collate)

    def __init__(
        self,
        records: Sequence[MedCapRecord],
        vis_processor: Processor,
        text_processor: Processor,
        *,
        name: str,
        domain: str,
        ratio: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(vis_processor, text_processor, vis_root=None, ann_paths=[])
        self.records = list(records)
        self.name = name
        self.domain = domain
        self.ratio = ratio
        self.seed = seed
        self.facts: dict[str, Any] = {}
        # in shared memory: loader workers that outlive an epoch must see the next one
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    @property
    def epoch(self) -> int:
        """The epoch set last, 0 at first."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Tells the epoch, to running loader workers too."""
        self._epoch.fill_(epoch)

    def _sample(self, index: int, caption: str) -> dict[str, Any]:
        """Returns what every sample has.

        Raises:
            BadImageError: If the image is missing or cannot be decoded.
        """
        record = self.records[index]
        picture, caption = self._picture(index, caption)
        return {
            "image": self.vis_processor(picture),
            "text_input": self.text_processor(caption),
            "image_id": record.image_id,
            "instance_id": f"{self.name}-{index}",
            "dataset": self.name,
            "domain": self.domain,
            "image_path": record.image,
        }

    def _picture(self, index: int, caption: str) -> tuple[Image.Image, str]:
        """Reads a picture as the processor wants it, and returns it with its caption."""
        read = getattr(self.vis_processor, "read", read_image)
        return read(self.records[index].image), caption


class MedCapTrainDataset(MedCapDataset):
    """Training samples; an image with several captions shows another one in every epoch.

    Which one depends on seed, index and epoch only, so that a resumed run reads the same texts.

    A ``vis_processor`` with a method ``augment(picture, caption, rng)`` changes the two together
    and returns both, because a mirrored picture needs another caption. ``rng`` is a numpy generator
    that depends on seed, epoch and index only.

    Args:
        records: See `MedCapDataset`, as all others.
        vis_processor: As above.
        text_processor: As above.
        on_bad: What an image that cannot be read does: "error" raises; "skip" puts another image,
            with its own caption, in its place and leaves a note, see
            `lavis_msmedcap.datasets.skipping`. It is none that the batch holds already, if the
            index is a `BatchIndex`, as those of `PlannedBatchSampler` are.
        max_bad: Share of the images that may be skipped; the runner, which sees all notes, checks
            it.
        options: Keyword arguments of `MedCapDataset`.
    """

    def __init__(
        self,
        records: Sequence[MedCapRecord],
        vis_processor: Processor,
        text_processor: Processor,
        *,
        on_bad: str = ERROR,
        max_bad: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(records, vis_processor, text_processor, **options)
        self.on_bad = on_bad
        self.max_bad = max_bad

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one image with one caption.

        Raises:
            BadImageError: If the image cannot be read and ``on_bad`` is "error".
            DataError: If none of many images in a row can be read.
        """
        try:
            return self._sample(index, self.caption(index))
        except BadImageError as error:
            if self.on_bad == ERROR:
                raise
            return self._stand_in(index, self._note(error))

    def _picture(self, index: int, caption: str) -> tuple[Image.Image, str]:
        """Reads and augments; how, depends on seed, index and epoch only."""
        picture, caption = super()._picture(index, caption)
        augment = getattr(self.vis_processor, "augment", None)
        if augment is None:
            return picture, caption
        changed: tuple[Image.Image, str] = augment(
            picture, caption, sample_rng(self.seed, self.epoch, index)
        )
        return changed

    def caption(self, index: int) -> str:
        """Returns the raw caption of an image in this epoch: a seeded start, then in turn."""
        captions = self.records[index].captions
        if len(captions) == 1:
            return captions[0]
        digest = hashlib.blake2b(f"{self.seed},{index}".encode(), digest_size=8).digest()
        return captions[(int.from_bytes(digest, "big") + self.epoch) % len(captions)]

    def _stand_in(self, index: int, first: SkippedImage) -> dict[str, Any]:
        """Returns the sample that takes the place of one whose image cannot be read."""
        skipped = [first]
        for other in stand_ins(self.seed, self.epoch, index, len(self)):
            try:
                sample = self._sample(other, self.caption(other))
            except BadImageError as error:
                skipped.append(self._note(error))
            else:
                return {**sample, SKIPPED: skipped}
        raise DataError(
            f"{len(skipped)} image(s) of {self.name} in a row cannot be read, the first is "
            f"{first.image}: {first.reason}. Is the disk that they lie on there? If it is, list "
            "what is wrong with them: msmedcap data check"
        )

    def _note(self, error: BadImageError) -> SkippedImage:
        return SkippedImage(self.name, error.path, error.reason)


class MedCapEvalDataset(MedCapDataset):
    """Evaluation samples: one per image, with all its references as they were written.

    An image that cannot be read is an error: scores over fewer images are no scores of the set.
    """

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one image with its first caption processed and its raw references.

        ``text_inputs`` are all its captions, processed as the first one is.

        Raises:
            BadImageError: If the image is missing or cannot be decoded.
        """
        captions = self.records[index].captions
        return {
            **self._sample(index, captions[0]),
            "text_inputs": [self.text_processor(caption) for caption in captions],
            "references": list(captions),
        }
