"""What all readers share: text files as they really come, safe names, folder listings."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.records import SPLITS

_PLAIN_NAME = re.compile(r"[\w-][^/\\:\0\ud800-\udfff]*")  # one component, neither "." nor ".."

# how copies of data sets call a split in names of files and folders, and in columns
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp"),
    *(".dcm", ".dicom", ".nii", ".nii.gz"),
)
_PART = re.compile(r"-\d+-of-\d+$")  # as files of one table are numbered
_LETTERS = re.compile(r"[a-z]+")  # captions_train2014 has two words
_SURROGATE = re.compile("[\ud800-\udfff]")
_HALVES = "captions with half a character (a lone surrogate), replaced by U+FFFD"
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class FolderIndex:
    """Answers which files exist by listing each folder once, instead of asking file by file.

    A hundred thousand single checks take minutes on a network drive; a listing takes seconds.
    """

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def names(self, folder: str | os.PathLike[str]) -> frozenset[str]:
        """Returns the names in a folder, none if there is no such folder."""
        key = os.fspath(folder)
        if key not in self._names:
            try:
                with os.scandir(key) as entries:
                    self._names[key] = frozenset(entry.name for entry in entries)
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise DataError(f"cannot list the folder {key}: {error.strerror}") from error
                self._names[key] = frozenset()
        return self._names[key]

    def has(self, path: str | os.PathLike[str]) -> bool:
        """Tells whether a file exists."""
        folder, name = os.path.split(os.fspath(path))
        return name in self.names(folder)

    def first(self, candidates: Iterable[Path]) -> Path | None:
        """Returns the first path that exists, or None."""
        return next((path for path in candidates if self.has(path)), None)


def require(path: Path, what: str, key: str) -> Path:
    """Returns ``path`` if it exists.

    Args:
        path: File or folder.
        what: What should be there, as in "the ROCO captions".
        key: Configuration key that sets the place.

    Raises:
        DataError: If it does not exist.
    """
    if not path.exists():
        raise DataError(f"{what} not found: expected {path}; set {key} to where your copy is")
    return path


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, line) of a UTF-8 file, with or without byte order mark, LF or CRLF.

    Only a line feed ends a line. The other characters that Python takes for line ends occur inside
    captions.

    Raises:
        DataError: If the file is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}; convert it or fetch it again") from error


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) of a file with one JSON object per line; blank lines are none.

    Raises:
        DataError: If a line is no JSON object.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON: {error}; is the file complete?") from error
        if not isinstance(entry, dict):
            raise DataError(f"{where} holds no JSON object")
        yield number, entry


def read_json(path: Path) -> Any:
    """Reads a JSON file with or without byte order mark.

    Raises:
        DataError: If it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; is the file complete?") from error


def safe_name(name: str, source: str) -> str:
    """Returns a relative file name that annotations gave, if it stays below its folder.

    Args:
        name: As written in the annotations; may contain folders.
        source: File and line that it came from, for the message.

    Raises:
        DataError: If the name is empty, absolute or leads out of its folder, or no file can have
            it.
    """
    if _PLAIN_NAME.fullmatch(name):
        return name  # as nearly all are; paths are slow to make, and there are many names
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    require_encodable(name, source)
    escapes = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    if escapes or not posix.name or "\0" in name:
        raise DataError(
            f"{source}: image file name {name!r} is refused; expected one inside the image folder"
        )
    return name


def require_encodable(name: str, source: str) -> None:
    """Refuses a name that no file can have: one with half a character in it, as JSON allows.

    Args:
        name: As written in the annotations.
        source: File and line that it came from, for the message.

    Raises:
        DataError: If it has such a character.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise DataError(
            f"{source}: image file name {name!r} is refused; no file can be called so, as it holds "
            "half a character (a lone surrogate)"
        ) from error


def whole_text(text: str) -> str:
    """Returns a text with U+FFFD for half characters, which JSON allows and no file can hold."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def usable_captions(
    captions: Iterable[Any], notes: MutableMapping[str, int] | None = None
) -> tuple[str, ...]:
    """Returns the captions that are text and not blank, stripped, each once, in order.

    Args:
        captions: Of one image.
        notes: Where to count captions with half characters, which `whole_text` replaces.
    """
    usable: dict[str, None] = {}
    for text in captions:
        if isinstance(text, str) and text.strip():
            whole = whole_text(text.strip())
            usable[whole] = None
            if notes is not None and whole != text.strip():
                notes[_HALVES] = notes.get(_HALVES, 0) + 1
    return tuple(usable)


def split_of(word: str) -> str | None:
    """Returns the split that a word means, None if it means none."""
    plain = word.strip().lower()
    return next((split for split in SPLITS if plain in SPLIT_WORDS[split]), None)


def image_suffix(name: str) -> str:
    """Returns the extension of an image in small letters, "" for the name of anything else."""
    lower = name.lower()
    return next((end for end in reversed(IMAGE_SUFFIXES) if lower.endswith(end)), "")


def split_word(name: str) -> str | None:
    """Returns the split that a file name tells, as ``captions_val2014.json`` does.

    Returns:
        None if no word of it means a split, or words of it mean several.
    """
    told = set(filter(None, map(split_of, _LETTERS.findall(name.lower()))))
    return told.pop() if len(told) == 1 else None


def name_without_split(stem: str) -> str:
    """Returns what a file name, without its suffix, says besides the split, in small letters.

    Of ``ward_a_train`` it is "ward_a", of ``train-00000-of-00027`` and ``test-00000-of-00003`` "".
    """
    plain = _PART.sub("", stem.lower())
    rest = _LETTERS.sub(lambda word: "" if split_of(word.group()) else word.group(), plain)
    return re.sub(r"[\W_]+", "_", rest).strip("_")


def split_in_name(name: str) -> str:
    """Returns the split that a file name tells, or "train"."""
    return split_word(name) or "train"
