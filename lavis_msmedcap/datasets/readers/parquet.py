"""Parquet tables, read in batches and only in the columns that are asked for.

Data sets on the Hugging Face hub come so: a column ``image`` that holds whole files, and captions
beside it. Here the files are never read; a record names its cell, ``train.parquet::row=17@image``,
and `lavis_msmedcap.imaging.read` fetches it when the image is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.imaging.places import ImagePlace

TEXT, FILES, OTHER = "text", "files", "other"

_BATCH = 4096  # rows


def parquet_columns(path: Path) -> dict[str, str]:
    """Returns the kind of each column: ``TEXT``, ``FILES`` (the bytes of files) or ``OTHER``.

    Raises:
        DataError: If pyarrow is missing or the file is no Parquet file.
    """
    return {field.name: _kind(field.type) for field in _open(path).schema_arrow}


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields (row, counted from 0; cells) of some columns, a batch of rows in memory at a time.

    Of a column of files only the name is read, which is None where the file does not tell.

    Args:
        path: Parquet file.
        columns: Some of its columns.

    Raises:
        DataError: If pyarrow is missing or the file cannot be read.
    """
    file = _open(path)
    fields = {field.name: field.type for field in file.schema_arrow}
    named = [name for name in columns if _kind(fields[name]) == FILES and _has_path(fields[name])]
    bare = [name for name in columns if _kind(fields[name]) == FILES and name not in named]
    leaves = [f"{name}.path" if name in named else name for name in columns if name not in bare]
    row = 0
    try:
        # without a column there would be no rows to count either
        batches = file.iter_batches(batch_size=_BATCH, columns=leaves) if leaves else ()
        for batch in batches:
            for cells in batch.to_pylist():
                for name in named:
                    cells[name] = (cells[name] or {}).get("path")
                yield row, {**cells, **dict.fromkeys(bare)}
                row += 1
        if not leaves:
            yield from ((i, dict.fromkeys(bare)) for i in range(file.metadata.num_rows))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}, row {row} or later: {error}; fetch the file again") from error


def cell_place(path: Path, row: int, column: str) -> str:
    """Returns the name of the image in a cell, see `lavis_msmedcap.imaging.places`."""
    return str(ImagePlace(str(path), "row", f"{row}@{column}"))


def _open(path: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            f'{path} is a Parquet file, which needs pyarrow: pip install "lavis-msmedcap[parquet]" '
            f"({error})"
        ) from error
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these
        raise DataError(f"{path} cannot be read as Parquet: {error}; fetch it again") from error


def _kind(dtype: Any) -> str:
    import pyarrow.types as types

    if types.is_dictionary(dtype):
        dtype = dtype.value_type
    if types.is_string(dtype) or types.is_large_string(dtype):
        return TEXT
    if types.is_binary(dtype) or types.is_large_binary(dtype):
        return FILES
    if types.is_struct(dtype) and any(dtype.field(i).name == "bytes" for i in range(_size(dtype))):
        return FILES
    return OTHER


def _has_path(dtype: Any) -> bool:
    import pyarrow.types as types

    return types.is_struct(dtype) and any(
        dtype.field(i).name == "path" for i in range(_size(dtype))
    )


def _size(dtype: Any) -> int:
    return int(dtype.num_fields)
