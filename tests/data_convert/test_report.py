from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lavis_msmedcap.data_convert.report import ConvertReport, show_bytes


def report(broken: int) -> ConvertReport:
    made = ConvertReport(kept=3, notes=["a note"])
    part = made.part("roco", "train")
    part.images, part.captions, part.files, part.size = 1234, 5678, 2, 3 * 2**20
    part.how = Counter({"scaled": 34, "copied": 1200})
    part.broken = [(f"i{number}", "cut off") for number in range(broken)]
    made.part("roco", "test").images += 1
    made.part("roco", "test").images += 1
    return made


def test_the_lines_count_by_part_and_reason() -> None:
    assert list(report(0).lines()) == [
        "roco train: 1,234 images with 5,678 captions, 2 files, 3.0 MiB",
        "  1,200 copied",
        "  34 scaled",
        "roco test: 2 images with 0 captions, 0 files, 0 B",
        "a note",
    ]


@pytest.mark.parametrize(("broken", "more"), [(1, None), (5, None), (6, 1), (1500, 1495)])
def test_broken_images_are_shown_up_to_five(broken: int, more: int | None) -> None:
    lines = list(report(broken).lines())
    assert report(broken).broken == broken
    assert f"  {broken:,} left out because they are broken:" in lines
    assert sum(line.endswith(": cut off") for line in lines) == min(broken, 5)
    rest = [line for line in lines if "more, all of them in report.json" in line]
    assert rest == (
        [] if more is None else [f"    … and {more:,} more, all of them in report.json"]
    )


def test_the_file_has_all_of_it_but_what_one_run_did(tmp_path: Path) -> None:
    path = report(7).write(tmp_path)
    first = path.read_bytes()
    content = json.loads(first)
    assert list(content) == ["roco test", "roco train"]
    assert content["roco train"] == {
        "images": 1234,
        "captions": 5678,
        "files": 2,
        "size": 3 * 2**20,
        "how": {"copied": 1200, "scaled": 34},
        "broken": [[f"i{number}", "cut off"] for number in range(7)],
    }
    again = report(7)
    again.kept, again.notes = 0, []
    again.parts = dict(reversed(again.parts.items()))
    again.part("roco", "train").how = Counter({"copied": 1200, "scaled": 34})
    assert again.write(tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**41, "2048.0 GiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert show_bytes(count) == text
