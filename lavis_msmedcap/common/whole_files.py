"""Files that are there as a whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from lavis_msmedcap.common.errors import StorageError

PART = ".part"  # in the names of files that are being written
# what a disk says that takes nothing more, whichever file is written
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
# how libraries written in Rust tell the error number, for example safetensors
_TOLD = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Yields the name of a file to write, which takes its place when the block ends well.

    It lies beside that place, and is removed if the block fails. What the place held before is
    replaced in one step.

    Raises:
        StorageError: If the disk is full or cannot be written to.
    """
    part = path.with_name(f"{path.name}{PART}-{os.getpid()}-{threading.get_ident()}")
    try:
        with disk_errors(path, part):
            yield part
            _sync(part)  # else a power cut may leave the name without the content
            part.replace(path)
        with contextlib.suppress(OSError):  # the name too; not every file system can
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # on a disk that has become read-only
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that takes its place when the block ends well, see `whole_path`.

    Raises:
        StorageError: If the disk is full or cannot be written to.
    """
    with whole_path(path) as part, part.open("wb") as file:
        yield file


def write_whole(path: Path, chunks: Iterable[str]) -> None:
    """Writes a UTF-8 text file as a whole or not at all.

    Raises:
        StorageError: If the disk is full or cannot be written to.
    """
    with whole_file(path) as file:
        for chunk in chunks:
            file.write(chunk.encode("utf-8"))


def append_whole(path: Path, text: str) -> None:
    """Adds text to the end of a UTF-8 file as a whole or not at all; a missing file is made.

    Raises:
        StorageError: If the disk is full or cannot be written to.
    """
    rest = memoryview(text.encode("utf-8"))
    with disk_errors(path), path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while rest:  # a disk that fills up takes a part without an error
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise


def remove_parts(folder: Path) -> None:
    """Removes what killed processes had begun to write in a folder; nobody may be writing there."""
    for part in folder.glob(f"*{PART}-*"):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: Path, *other_names: Path) -> Iterator[None]:
    """Tells what the disk refuses in a ``with`` block that writes a file.

    Args:
        path: The file.
        other_names: Names that it has while it is being written.

    Raises:
        StorageError: If the disk is full or the file may not be written. Other errors pass.
    """
    own = {str(path), *map(str, other_names)}
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        number = disk_error_of(error)
        if number is None and isinstance(error, OSError) and str(error.filename) in own:
            number = error.errno
        if number is None:
            raise
        raise StorageError(path, number) from error


def disk_error_of(error: Exception) -> int | None:
    """Returns the error number if an exception says that a disk takes nothing more."""
    if isinstance(error, OSError):
        number = error.errno
    else:
        told = _TOLD.search(str(error))
        number = int(told[1]) if told else None
    return number if number in DISK_ERRORS else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
