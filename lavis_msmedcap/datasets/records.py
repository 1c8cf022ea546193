"""The one record type that every dataset reader produces."""

from __future__ import annotations

from dataclasses import dataclass, fields

GENERAL = "general"
MEDICAL = "medical"
DOMAINS = (GENERAL, MEDICAL)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class MedCapRecord:
    """One image with its captions, as found on disk.

    Attributes:
        image: Absolute path of the image file, or of a part of a file that holds many, see
            `lavis_msmedcap.imaging.places`.
        captions: Raw captions (at least one); several for COCO and for multi-reference sets.
        image_id: Identifier as a string ("ROCO_00001", "COCO_train2014_000000000009").
        split: One of ``SPLITS``.
        group_id: Article or patient that the image comes from; images of one group never stand in
            two splits that this package makes. None where the source does not tell; "p1 && p2"
            where rows of one image name several.
        source: Registered dataset name ("roco").
        domain: ``general`` or ``medical``; decides which branches train on the sample.
    """

    # a third of the memory of a record with a dictionary; dataclass(slots=True) is not in 3.9
    __slots__ = ("captions", "domain", "group_id", "image", "image_id", "source", "split")

    image: str
    captions: tuple[str, ...]
    image_id: str
    split: str
    group_id: str | None
    source: str
    domain: str

    def __reduce__(self) -> tuple[type[MedCapRecord], tuple[object, ...]]:
        """Tells pickle how to copy a frozen record, for loader workers that are not forked."""
        return MedCapRecord, tuple(getattr(self, field.name) for field in fields(self))
