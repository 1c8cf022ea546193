"""Tar files that hold the same bytes whenever they are made from the same members."""

from __future__ import annotations

import hashlib
import tarfile
from typing import BinaryIO

_RECORD = 10240  # tar files are filled up to a multiple of this


class TarWriter:
    """Writes members one after the other; times, owners and modes are always the same.

    Args:
        file: Where to write, from its beginning.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def add(self, name: str, data: bytes) -> int:
        """Adds a member.

        Args:
            name: Below 100 characters.
            data: Its content.

        Returns:
            Where its content begins.
        """
        header = tarfile.TarInfo(name)  # mode 0644, no owner, the beginning of 1970
        header.size = len(data)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def close(self) -> str:
        """Writes the end mark.

        Returns:
            sha256 of the file, in hexadecimal digits.
        """
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.size % _RECORD))
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
