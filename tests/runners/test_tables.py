from __future__ import annotations

import csv
from pathlib import Path

from lavis_msmedcap.runners.tables import CsvTable


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_columns_keep_the_file_rectangular(tmp_path: Path):
    table = CsvTable(tmp_path / "m.csv", ["step", "loss"])
    table.append({"step": 1, "loss": 2.0, "sam/loss_itc": 0.5})
    table.append({"step": 2, "loss": 1.5, "clip/loss_itc": 0.25})
    table.append({"step": 3, "loss": None, "sam/loss_itc": float("inf")})
    assert (tmp_path / "m.csv").read_text().splitlines() == [
        "step,loss,clip/loss_itc,sam/loss_itc",
        "1,2,,0.5",
        "2,1.5,0.25,",
        "3,,,inf",
    ]


def test_header_does_not_depend_on_the_order_of_discovery(tmp_path: Path):
    first, second = (CsvTable(tmp_path / f"{n}.csv", ["step"]) for n in "ab")
    for table, order in ((first, "xyz"), (second, "zxy")):
        for step, name in enumerate(order):
            table.append({"step": step, name: 1.0})
    assert rows(tmp_path / "a.csv")[0].keys() == rows(tmp_path / "b.csv")[0].keys()
    assert not list(tmp_path.glob(".*"))


def test_values_survive_with_eight_digits(tmp_path: Path):
    table = CsvTable(tmp_path / "m.csv", ["lr"])
    table.append({"lr": 1.23456789e-5})
    assert float(rows(tmp_path / "m.csv")[0]["lr"]) == 1.2345679e-5
