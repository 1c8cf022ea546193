"""A field above the limit of Python's csv module was told to double its quotation marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.rows import TableOptions
from lavis_msmedcap.datasets.readers.table import read_table

SOUND = 'a.png,"One, of the chest."\n\nb.png,Two.\n'


def fault_of(path: Path, options: TableOptions | None = None) -> str:
    with pytest.raises(DataError) as caught:
        list(read_table(path, options=options))
    return str(caught.value)


@pytest.mark.parametrize("closed", [True, False])
def test_the_row_and_the_likely_reason_are_told(tmp_path: Path, closed: bool) -> None:
    path = tmp_path / "mine.csv"
    long = "word " * 30_000
    path.write_text(f'image,caption\n{SOUND}c.png,"{long}{chr(34) if closed else ""}\n')
    fault = fault_of(path)
    assert f"{path}, line 5: a field of the row that begins there is longer than 131,072" in fault
    assert "a quotation mark opens it and none closes it" in fault
    assert "twice" not in fault


def test_a_mark_that_swallows_the_rest_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = "".join(f"{i}.png,{'A scan of the chest. ' * 4}\n" for i in range(3000))
    path.write_text(f'image,caption\n{SOUND}c.png,"Three.\n{rows}')
    assert "line 5: a field" in fault_of(path, TableOptions(quotes=True))


def test_other_faults_are_told_as_before(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f'image,caption\n{SOUND}c.png,"Three" and, more.\n')
    assert "write a quotation mark inside a quoted field twice" in fault_of(path)
