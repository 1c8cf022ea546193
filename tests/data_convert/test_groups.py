from __future__ import annotations

from dataclasses import replace

import pytest

from lavis_msmedcap.data_convert.groups import number_groups
from lavis_msmedcap.datasets.records import MedCapRecord


def part(source: str, split: str, *groups: str | None) -> list[MedCapRecord]:
    return [
        MedCapRecord(f"/d/{n}", ("CT.",), f"{split}{n}", split, group, source, "medical")
        for n, group in enumerate(groups)
    ]


def groups(parts: dict[tuple[str, str], list[MedCapRecord]]) -> dict[str, list[str | None]]:
    return {
        f"{source} {split}": [record.group_id for record in records]
        for (source, split), records in number_groups(parts).items()
    }


def test_a_patient_has_one_number_in_all_splits_of_a_source() -> None:
    parts = {
        ("a", "train"): part("a", "train", "MRN-7", None, "MRN-9", "MRN-7"),
        ("a", "test"): part("a", "test", "MRN-9", "MRN-8"),
        ("b", "train"): part("b", "train", "MRN-7"),
    }
    assert groups(parts) == {
        "a train": ["a-3", None, "a-1", "a-3"],  # parts count by name: test first
        "a test": ["a-1", "a-2"],
        "b train": ["b-1"],
    }
    assert groups(dict(reversed(parts.items()))) == groups(parts)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("PMC4240561", "PMC4240561"),
        (" PMC4240561 ", "PMC4240561"),
        ("PMC-00017", "x-1"),  # a hospital's
        ("PMC123", "x-1"),  # too small for an article's
        ("https://doi.org/10.1000/ABC.1", "10.1000/abc.1"),
        ("a" * 40, "x-1"),  # perhaps the hash of a patient's number
        ("123", "x-1"),
        ("Doe^Jane", "x-1"),
    ],
)
def test_public_ids_stay_in_one_spelling(group: str, expected: str) -> None:
    assert groups({("x", "val"): part("x", "val", group)}) == {"x val": [expected]}


def test_public_ids_take_no_number() -> None:
    found = groups({("x", "val"): part("x", "val", "PMC4240561", "p", "PMC4240562", "q")})
    assert found == {"x val": ["PMC4240561", "x-1", "PMC4240562", "x-2"]}


def test_articles_of_medicat_stay() -> None:
    article = "a" * 40
    assert groups({("medicat", "val"): part("medicat", "val", article)}) == {
        "medicat val": [article]
    }


def test_no_group_stays_none() -> None:
    assert groups({("x", "val"): part("x", "val", "")}) == {"x val": [None]}


def test_nothing_else_changes() -> None:
    records = part("x", "val", "p", None)
    (found,) = number_groups({("x", "val"): records}).values()
    assert found[0] == replace(records[0], group_id="x-1")
    assert found[1] is records[1]
    assert records[0].group_id == "p"
