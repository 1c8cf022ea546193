"""Tables of all kinds."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from fuzzing.damage import damaged_json
from fuzzing.target import Target
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.table import read_table


def table_targets() -> Iterator[Target]:
    """Yields one table in each format."""
    rows = [
        {"image": "a.png", "caption": "CT, axial; 0.37 cm.", "patient": "7", "split": "train"},
        {"image": "b/c.dcm", "caption": 'MRI of the "knee"\nin two lines', "patient": "8"},
        {"image": "b/d.png", "caption": "R\u00f6ntgen", "patient": "8", "split": "valid"},
    ]
    files = {
        "jsonl": "".join(json.dumps(row) + "\r\n" for row in rows).encode(),
        "json": json.dumps(rows).encode(),
    }
    with contextlib.suppress(ImportError):  # pyarrow is an extra
        files["parquet"] = _parquet(rows)
    for kind, separator, encoding in (("csv", ",", "utf-8"), ("tsv", "\t", "utf-16")):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
        files[kind] = text.getvalue().encode(encoding)
    # as Excel writes it where it is asked for the Macintosh's text, with columns left blank
    files["txt"] = b'sep=;\rimage;caption;;\ra.png;CT, axial;;\r"b";"MRI\nof the knee";;\r;;;\r'
    for kind, content in files.items():
        damage = damaged_json if kind.startswith("json") else None
        yield Target(f"table_{kind}", {f"t.{kind}": content}, _read_table, damage)


def _read_table(root: Path) -> None:
    (table,) = (path for path in root.iterdir() if path.stem == "t")
    for split in ("train", None):
        with contextlib.suppress(DataError):
            list(read_table(table, split=split))
    list(read_table(table))


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()
