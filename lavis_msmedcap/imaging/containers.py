"""Pictures that lie inside a file of many: a range of bytes of a tar file, a cell of a table."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from typing import Any

from lavis_msmedcap.imaging.parquet_copies import ColumnKey, copied_column

_RANGE = re.compile(r"(\d+)\+(\d+)")
_CELL = re.compile(r"(\d+)@(.+)", re.DOTALL)
_CACHE_BYTES = 256 * 2**20


def read_byte_range(path: str, value: str) -> bytes:
    """Reads a member of a tar file, or of any other uncompressed file.

    Args:
        path: The file.
        value: Where the member begins and how long it is: ``512+3456``.

    Raises:
        ValueError: If the range is malformed, empty, or beyond the end of the file.
    """
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError(f"'bytes={value}' is no range; expected bytes=OFFSET+SIZE")
    offset, size = int(match[1]), int(match[2])
    with open(path, "rb") as file:  # noqa: PTH123 - the hot path of a loader
        length = os.fstat(file.fileno()).st_size
        if size == 0 or offset + size > length:
            raise ValueError(
                f"the range {offset}+{size} is empty or beyond the file's {length} bytes; index "
                "the file again, it may have been written anew or be cut short"
            )
        content = os.pread(file.fileno(), size, offset)
    if len(content) != size:
        raise ValueError(f"only {len(content)} of {size} bytes could be read")
    return content


def read_cell(path: str, value: str) -> bytes:
    """Reads a picture from a parquet file.

    A cell holds the encoded picture, or a struct with the field "bytes", as the datasets library
    writes it. Row groups are kept in memory, the last used 256 MB of each process; those above
    64 MB are copied once to the cache folder, see `lavis_msmedcap.imaging.parquet_copies`.

    Args:
        path: The parquet file.
        value: Row, counted from 0, and column: ``17@image``.

    Raises:
        ValueError: If there is no such cell, it is empty, or pyarrow is not installed.
    """
    match = _CELL.fullmatch(value)
    if match is None:
        raise ValueError(f"'row={value}' is no cell; expected row=NUMBER@COLUMN")
    cell = _row_groups.cell(path, int(match[1]), match[2])
    if isinstance(cell, dict):
        inside = cell.get("bytes")
        if inside is None and cell.get("path"):
            raise ValueError(
                "the cell names a file instead of holding the picture; write the table again with "
                "the pictures embedded"
            )
        cell = inside
    if cell is None:
        raise ValueError("the cell is empty")
    if not isinstance(cell, bytes):
        raise ValueError(f"the cell holds a {type(cell).__name__}; expected the bytes of an image")
    return cell


class _RowGroups:
    """Columns of row groups of parquet files, the last used ones kept.

    A row cannot be read alone: its group is decompressed as a whole, so that neighbours come free.
    That does not do for files of one large group, as many programs write them.
    """

    def __init__(self) -> None:
        self._forget()
        # a lock held by another thread at the time of a fork would stay held in the child
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._columns: OrderedDict[ColumnKey, Any] = OrderedDict()

    def cell(self, path: str, row: int, column: str) -> Any:
        """Returns a cell as a Python value."""
        with self._lock:
            changed = os.stat(path).st_mtime_ns  # noqa: PTH116
            file = self._file(path, changed)
            names = file.schema_arrow.names
            if column not in names:
                raise ValueError(f"no column {column!r}; the file has {', '.join(names)}")
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if row < first + count:
                    values = self._column(file, ColumnKey(path, changed, group, column))
                    return values[row - first].as_py()
                first += count
            raise ValueError(f"no row {row}; the file has {first}, counted from 0")

    def _file(self, path: str, changed: int) -> Any:
        if (path, changed) not in self._files:
            try:
                from pyarrow import parquet
            except ImportError as error:
                raise ValueError(
                    f'parquet files need pyarrow; pip install "lavis-msmedcap[parquet]" ({error})'
                ) from error
            # opened, a file takes a descriptor and its footer
            while len(self._files) >= 16:
                self._files.popitem(last=False)[1].close()
            self._files[path, changed] = parquet.ParquetFile(path)
        self._files.move_to_end((path, changed))
        return self._files[path, changed]

    def _column(self, file: Any, key: ColumnKey) -> Any:
        if key not in self._columns:
            self._columns[key] = copied_column(file, key) or _loaded_column(file, key)
            while len(self._columns) > 1 and self._size() > _CACHE_BYTES:
                self._columns.popitem(last=False)
        self._columns.move_to_end(key)
        return self._columns[key]

    def _size(self) -> int:
        return sum(column.nbytes for column in self._columns.values())


def _loaded_column(file: Any, key: ColumnKey) -> Any:
    # one thread: pools of threads do not survive the fork of a loader's workers
    table = file.read_row_group(key.group, columns=[key.column], use_threads=False)
    return table.column(key.column)


_row_groups = _RowGroups()
