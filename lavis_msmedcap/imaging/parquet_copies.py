"""Large row groups of parquet files, copied once to where single rows can be read.

Parquet decompresses a row group as a whole. Where a file has few and large ones, every process of
a loader would hold gigabytes to read one picture. The copy, an uncompressed Arrow file in the cache
folder, is mapped into memory: a picture costs its own bytes, and all processes share them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.common.whole_files import whole_file

logger = logging.getLogger(__name__)

LARGE = 64 * 2**20  # bytes, decompressed
_ROWS = 64  # of a batch: what is in memory while a copy is made
_BUFFER = 2**20  # bytes that are read at a time


class ColumnKey(NamedTuple):
    """A column of a row group.

    Attributes:
        path: The parquet file.
        changed: When it was changed last, in nanoseconds: written anew, it is another file.
        group: Row group, counted from 0.
        column: Name.
    """

    path: str
    changed: int
    group: int
    column: str


class MappedColumn:
    """A column of an Arrow file, of which rows are read as they are asked for.

    Args:
        path: The file, of one column.
    """

    nbytes = 0  # of memory that belongs to this process

    def __init__(self, path: Path) -> None:
        import pyarrow

        self._map = pyarrow.memory_map(str(path))
        self._chunks = pyarrow.ipc.open_file(self._map).read_all().column(0).chunks
        self._ends = list(accumulate(map(len, self._chunks)))

    def __getitem__(self, row: int) -> Any:
        """Returns a row, counted from 0, as a scalar of pyarrow."""
        number = bisect_right(self._ends, row)
        return self._chunks[number][row - self._ends[number] + len(self._chunks[number])]


def copied_column(file: Any, key: ColumnKey) -> MappedColumn | None:
    """Returns a column by way of a copy, which is made if there is none.

    Args:
        file: The opened ``pyarrow.parquet.ParquetFile``.
        key: Which column of which group.

    Returns:
        None if the group is small enough to be loaded, or the copy cannot be kept.
    """
    size = _decompressed_size(file, key)
    if size <= LARGE:
        return None
    folder = cache_root() / "parquet_groups"
    stem = hashlib.sha256(key.path.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    column = hashlib.sha256(key.column.encode()).hexdigest()[:8]
    target = folder / f"{stem}-{key.changed}-{key.group}-{column}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{stem}.lock"):  # loader workers come for it at the same time
            if not target.exists():
                _remove_outdated(folder, stem, key.changed)
                _copy(key, size, target)
        return MappedColumn(target)
    except OSError as error:
        logger.warning(
            "%s has a row group of %.0f MB, of which no copy can be kept in %s (%s): every process "
            "loads all of it. `msmedcap data convert` writes shards that need no copy",
            key.path,
            size / 1e6,
            folder,
            error,
        )
        return None


def _decompressed_size(file: Any, key: ColumnKey) -> int:
    group = file.metadata.row_group(key.group)
    leaves = [group.column(index) for index in range(group.num_columns)]
    inside = f"{key.column}."  # the fields of a struct
    return sum(
        leaf.total_uncompressed_size
        for leaf in leaves
        if f"{leaf.path_in_schema}.".startswith(inside)
    )


def _remove_outdated(folder: Path, stem: str, changed: int) -> None:
    for path in folder.glob(f"{stem}-*.arrow"):
        if not path.name.startswith(f"{stem}-{changed}-"):
            with contextlib.suppress(OSError):
                path.unlink()


def _copy(key: ColumnKey, size: int, target: Path) -> None:
    """Copies a column batch by batch, so that the group is never in memory as a whole."""
    import pyarrow
    from pyarrow import parquet

    logger.warning(
        "%s has a row group of %.0f MB; a copy whose pictures can be read one by one is kept in "
        "%s. `msmedcap data convert` writes shards that need no copy",
        key.path,
        size / 1e6,
        target.parent,
    )
    with parquet.ParquetFile(key.path, buffer_size=_BUFFER) as source, whole_file(target) as file:
        batches = source.iter_batches(_ROWS, [key.group], [key.column], use_threads=False)
        schema = pyarrow.schema([source.schema_arrow.field(key.column)])
        with pyarrow.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(pyarrow.RecordBatch.from_arrays(batch.columns, schema=schema))
