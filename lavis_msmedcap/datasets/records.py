"""The one record type that every dataset reader produces."""

from __future__ import annotations

from dataclasses import dataclass

GENERAL = "general"
MEDICAL = "medical"
DOMAINS = (GENERAL, MEDICAL)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class MedCapRecord:
    """One image with its captions, as found on disk.

    Attributes:
        image: Absolute path of the image file.
        captions: Raw captions (at least one); several for COCO and for multi-reference sets.
        image_id: Identifier as a string ("ROCO_00001", "COCO_train2014_000000000009").
        split: One of ``SPLITS``.
        group_id: Article or patient that the image comes from; images of one group never stand in
            two splits that this package makes. None where the source does not tell.
        source: Registered dataset name ("roco").
        domain: ``general`` or ``medical``; decides which branches train on the sample.
    """

    image: str
    captions: tuple[str, ...]
    image_id: str
    split: str
    group_id: str | None
    source: str
    domain: str
