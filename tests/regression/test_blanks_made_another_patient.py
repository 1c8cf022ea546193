"""A patient whose id had blanks around it in some rows got two numbers in a conversion."""

from __future__ import annotations

from lavis_msmedcap.data_convert.groups import number_groups
from lavis_msmedcap.datasets.records import MedCapRecord


def test_blanks_around_an_id_are_no_part_of_it() -> None:
    records = [
        MedCapRecord(f"/d/{number}", ("CT.",), str(number), "val", group, "x", "medical")
        for number, group in enumerate(["p1", " p1", "p2", "p2\t"])
    ]
    (found,) = number_groups({("x", "val"): records}).values()
    assert [record.group_id for record in found] == ["x-1", "x-1", "x-2", "x-2"]
