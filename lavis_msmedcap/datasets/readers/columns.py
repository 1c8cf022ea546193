"""Which column of somebody's table holds what: as told, or guessed from usual names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Union

from lavis_msmedcap.common.config_check import nearest
from lavis_msmedcap.common.errors import DataError

ColumnMap = Mapping[str, Union[str, Sequence[str], None]]

# Usual names, the likeliest first, those that say more before those that may mean anything; as
# `_plain` writes them. An "id" says which image it is where no other column does (ImageCLEF,
# ROCOv2); beside one it may number captions or patients as well.
USUAL: dict[str, tuple[str, ...]] = {
    "image": (
        *("image", "image_path", "img_path", "image_file", "image_filename", "image_name", "img"),
        *("file_name", "filename", "file_path", "filepath", "file", "path", "dicom", "dicom_path"),
        *("dcm", "dicom_file", "name", "image_id", "id"),
    ),
    "caption": (
        *("caption", "captions", "text", "report", "description", "findings", "impression"),
        *("sentence", "sentences", "label_text", "title"),
    ),
    "image_id": ("image_id", "imageid", "img_id"),
    "split": ("split", "set", "subset", "partition"),
    "group_id": (
        *("group_id", "patient_id", "patientid", "patient", "subject_id", "subject"),
        *("article", "article_id", "pmcid", "pmc_id", "pmc", "pdf_hash", "study_id", "group"),
    ),
    "domain": ("domain",),
    "source": (),  # never guessed: whoever reads a table says what data set it is
}
NEEDED = ("image", "caption")


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        image: Path or name of the image, or the image itself.
        captions: Columns with captions, at least one.
        image_id: Identifier; None takes the image as it is written.
        split: train, val or test; None if the table does not tell.
        group_id: Patient or article; None if the table does not tell.
        domain: general or medical; None if the table does not tell.
        source: Data set that a row comes from; None if all are of one.
    """

    image: str
    captions: tuple[str, ...]
    image_id: str | None = None
    split: str | None = None
    group_id: str | None = None
    domain: str | None = None
    source: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that is read, each once."""
        others = (self.image_id, self.split, self.group_id, self.domain, self.source)
        names = (self.image, *self.captions, *others)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def guesses(self, given: ColumnMap) -> str:
        """Says which columns were taken for what, unless they are called so or were given.

        Args:
            given: As for `choose_columns`.

        Returns:
            As in "image from 'Scan Path', group_id from 'PatientID'"; perhaps empty.
        """
        chosen = {
            "image": self.image,
            "caption": self.captions[0],
            "image_id": self.image_id,
            "split": self.split,
            "group_id": self.group_id,
            "domain": self.domain,
        }
        return ", ".join(
            f"{field} from {name!r}"
            for field, name in chosen.items()
            if name is not None and given.get(field) is None and _plain(name) != field
        )


def choose_columns(found: Sequence[str], given: ColumnMap, table: str, key: str) -> Columns:
    """Finds the columns of a table.

    Args:
        found: Columns that it has.
        given: Names that the user gave by what they hold; None says that there is no such column.
        table: The table, for messages.
        key: Configuration key of ``given``.

    Raises:
        DataError: If a given column is not there, or one that is needed is neither given nor
            guessed; lists the columns that were found.
    """
    by_plain: dict[str, str] = {}
    for name in found:
        by_plain.setdefault(_plain(name), name)
    chosen: dict[str, tuple[str, ...]] = {}
    for field, usual in USUAL.items():
        if field in given and (given[field] is not None or field not in NEEDED):
            names = _given(given[field])
            for name in names:
                if name not in found:
                    near = nearest(name, found)
                    hint = f"; did you mean {near!r}?" if near else ""
                    raise DataError(
                        f"{table} has no column {name!r} ({key}.{field}){hint} It has: "
                        f"{', '.join(found)}"
                    )
        else:
            taken = {name for names in chosen.values() for name in names}
            guesses = (by_plain[name] for name in usual if name in by_plain)
            names = tuple(name for name in guesses if name not in taken)[:1]
        if field in NEEDED and not names:
            raise DataError(
                f"{table} has no column that is known to hold the {field}; it has: "
                f"{', '.join(found)}. Set {key}.{field} to one of them (the first row of a text "
                "table must name the columns)"
            )
        chosen[field] = names
    one = {field: (names[0] if names else None) for field, names in chosen.items()}
    return Columns(
        image=chosen["image"][0],
        captions=chosen["caption"],
        image_id=one["image_id"],
        split=one["split"],
        group_id=one["group_id"],
        domain=one["domain"],
        source=one["source"],
    )


def _given(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _plain(name: str) -> str:
    """Writes "Image Path", "image-path" and "ImagePath" alike."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s\-.]+", "_", words).lower()
