"""Files that are there as a whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

PART = ".part"  # in the names of files that are being written


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that takes its place when the block ends without an error.

    Until then it lies beside it under another name, which is removed if the block fails. What the
    place held before is replaced in one step.
    """
    part = path.with_name(f"{path.name}{PART}-{os.getpid()}-{threading.get_ident()}")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name without the content
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, chunks: Iterable[str]) -> None:
    """Writes a UTF-8 text file as a whole or not at all."""
    with whole_file(path) as file:
        for chunk in chunks:
            file.write(chunk.encode("utf-8"))
