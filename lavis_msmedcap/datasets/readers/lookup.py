"""From an image's name in somebody's table to the file that it means."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath, PureWindowsPath

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.files import (
    FolderIndex,
    image_suffix,
    require_encodable,
    safe_name,
    split_of,
)
from lavis_msmedcap.imaging.places import split_place

_SHOWN = 3


class ImageFinder:
    """Finds images below a folder, each folder listed once.

    Args:
        folder: What relative names are relative to.
        table: Folder of the table, if the user named another folder for the images. A name with
            ``..``, which leads out of it, is followed if it leads into the named one.
        key: Configuration key that names the folder of the images, for messages.
    """

    def __init__(self, folder: Path, table: Path | None = None, key: str = "images") -> None:
        self._folder = str(folder.absolute())
        self._table = None if table is None else str(table.absolute())
        self._key = key
        self._index = FolderIndex()
        self._stems: dict[str, dict[str, list[str]]] = {}
        self._of_split: dict[str, list[str]] = {}

    def find(self, name: str, where: str, splits: Iterable[str | None] = ()) -> str:
        """Returns the absolute path of an image, or that at which it was expected.

        A name without extension finds the one image that has one, and the extension's case does
        not matter: ``ROCOv2_2023_train_000001`` finds ``ROCOv2_2023_train_000001.jpg``.

        Args:
            name: As written in the table: absolute, or relative to the folder; perhaps with a
                part of the file behind it, see `lavis_msmedcap.imaging.places`.
            where: File and line that it came from, for messages.
            splits: An image that is not in the folder is looked for below the folder's own folders
                that are called like these splits (``valid/`` for "val"), in this order.

        Raises:
            DataError: If the name is an address, leads out of the folder, fits several files, or
                no file can have it.
        """
        require_encodable(name, where)
        place = split_place(name)
        path = self._path(place.file, where)
        whole = str(place._replace(file=path))
        if place.kind and "/" not in place.value and self._index.has(whole):
            return whole  # a file that is really called so
        found = self._on_disk(path, where)
        if not self._index.has(found):
            found = self._in_folder_of_split(path, splits, where) or found
        return str(place._replace(file=found))

    def _path(self, name: str, where: str) -> str:
        if "://" in name:
            raise DataError(
                f"{where}: image {name} is an address; images are read from this machine only: "
                "download them and write their paths"
            )
        if "/" not in name and "\\" not in name:
            return f"{self._folder}{os.sep}{safe_name(name, where)}"
        if PurePath(name).is_absolute():
            return os.path.normpath(name)
        if ".." in PureWindowsPath(name).parts:
            return self._upwards(name, where)
        path = f"{self._folder}{os.sep}{os.path.normpath(safe_name(name, where))}"
        if "\\" in name and os.sep == "/" and not self._index.has(path):
            # a table written on Windows; a file name on Linux may also hold a backslash
            return path.replace("\\", "/")
        return path

    def _on_disk(self, path: str, where: str) -> str:
        """Returns the path of the file that is meant, or the given one if there is none."""
        if not self._index.has(path):
            path = self._in_other_form(path)
        if not self._index.has(path):
            folder, last = os.path.split(path)
            path = f"{folder}{os.sep}{self._by_stem(folder, last, where)}"
        return path

    def _in_folder_of_split(
        self, path: str, splits: Iterable[str | None], where: str
    ) -> str | None:
        """Returns where an image of the folder is in one of a split, None if in none."""
        base = f"{self._folder.rstrip(os.sep)}{os.sep}"
        if not path.startswith(base):
            return None
        for split in filter(None, splits):
            if split not in self._of_split:
                named = sorted(n for n in self._index.names(self._folder) if split_of(n) == split)
                self._of_split[split] = [f"{base}{name}{os.sep}" for name in named]
            there = (self._on_disk(f + path[len(base) :], where) for f in self._of_split[split])
            found = [file for file in there if self._index.has(file)]
            if len(found) > 1:
                raise DataError(
                    f"{where}: image {path[len(base) :]} may be {', '.join(found)}; write the "
                    "folder before its name"
                )
            if found:
                return found[0]
        return None

    def _in_other_form(self, path: str) -> str:
        """Returns how a path is written on disk: macOS takes letters and their accents apart."""
        if path.isascii():
            return path
        base = f"{self._folder}{os.sep}" if path.startswith(f"{self._folder}{os.sep}") else ""
        forms = (unicodedata.normalize(form, path[len(base) :]) for form in ("NFC", "NFD"))
        return next((base + form for form in forms if self._index.has(base + form)), path)

    def _upwards(self, name: str, where: str) -> str:
        """Follows a name with ``..`` if it leads where images may be."""
        written = name.replace("\\", os.sep)
        for base in filter(None, (self._folder, self._table)):
            path = os.path.normpath(f"{base}{os.sep}{written}")
            if path.startswith(f"{self._folder.rstrip(os.sep)}{os.sep}"):
                return path
        raise DataError(
            f"{where}: image {name} leads out of {base}, to {path}; if it is meant, set "
            f"{self._key} to {os.path.split(path)[0]} (msmedcap data check: --images)"
        )

    def _by_stem(self, folder: str, name: str, where: str) -> str:
        """Returns the name of the file that is meant, or the name itself if there is none."""
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            for entry in self._index.names(folder):
                if image_suffix(entry):
                    stems.setdefault(_plain(_stem(entry)), []).append(entry)
            self._stems[folder] = stems
        found = self._stems[folder].get(_plain(name), [])
        if not found and image_suffix(name):
            alike = self._stems[folder].get(_plain(_stem(name)), [])
            found = [entry for entry in alike if _plain(entry).lower() == _plain(name).lower()]
        if len(found) > 1:
            raise DataError(
                f"{where}: image {name} may be {', '.join(sorted(found)[:_SHOWN])} in {folder}; "
                "write its extension"
            )
        return found[0] if found else name


def _stem(name: str) -> str:
    """Returns a file name without the extension of an image."""
    return name[: len(name) - len(image_suffix(name))]


def _plain(name: str) -> str:
    """Returns a name in the one form in which letters and their accents are together."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
