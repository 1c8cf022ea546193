"""The generic schema checker: every kind of problem, told with the key and the cure."""

from __future__ import annotations

from typing import Any

import pytest

from lavis_msmedcap.common.config_check import (
    Key,
    MapOf,
    Nullable,
    Section,
    check,
    convert,
    describe_unknown,
    known_part,
    nearest,
    show,
)

SCHEMA = {
    "run": Section(
        {
            "max_epoch": Key(int, required=True, minimum=1, help="passes over the data"),
            "init_lr": Key(float, above=0, maximum=1),
            "amp": Key((str, bool), choices=("off", "bf16", False)),
            "splits": Key(list, items=Key(str, choices=("train", "val"))),
            "evaluate": Key(bool),
            "output_dir": Key(str),
            "resume": Nullable(Key(str)),
            "ratios": Nullable(MapOf(Key(float, minimum=0), names=("roco", "coco"))),
        },
        required=True,
    ),
    "model": Section({"prompt": Key(str), "branch": Nullable(Section({"width": Key(int)}))}),
    "extra": Section({"known": Key(int)}, open=True),
}


def problems(**run: Any) -> list[str]:
    return check({"run": {"max_epoch": 1, **run}}, SCHEMA)


def test_a_correct_configuration_has_no_problems() -> None:
    config = {
        "run": {
            "max_epoch": 3,
            "init_lr": 1,
            "amp": False,
            "splits": ["train", "val"],
            "evaluate": True,
            "output_dir": "out",
            "resume": None,
            "ratios": {"roco": 2, "coco": 0.5},
        },
        "model": {"prompt": "", "branch": None},
        "extra": {"known": 1, "whatever": object()},
    }
    assert check(config, SCHEMA) == []


def test_unknown_key_names_the_nearest_one() -> None:
    assert problems(max_epohc=3) == [
        "run.max_epohc is not a known key; did you mean run.max_epoch?"
    ]


def test_unknown_key_without_a_neighbour_lists_all() -> None:
    (problem,) = problems(zzz=3)
    assert problem.startswith("run.zzz is not a known key; known keys of run: amp, evaluate, ")


def test_key_of_another_section_is_found_there() -> None:
    assert problems(prompt="x") == ["run.prompt is not a known key; did you mean model.prompt?"]


def test_unknown_section_at_the_root() -> None:
    assert check({"run": {"max_epoch": 1}, "modle": {}}, SCHEMA) == [
        "modle is not a known key; did you mean model?"
    ]


def test_missing_key_and_section_are_told_with_their_use() -> None:
    assert check({"run": {}}, SCHEMA) == ["run.max_epoch is missing (passes over the data)"]
    assert check({}, SCHEMA) == ["run is missing"]
    assert check({"run": {}}, SCHEMA, required=False) == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("max_epoch", "three", "run.max_epoch is 'three'; expected a whole number"),
        ("max_epoch", 1.5, "run.max_epoch is 1.5; expected a whole number"),
        ("max_epoch", True, "run.max_epoch is true; expected a whole number"),
        ("max_epoch", None, "run.max_epoch is null; expected a whole number"),
        ("max_epoch", 0, "run.max_epoch is 0; expected at least 1"),
        ("init_lr", "fast", "run.init_lr is 'fast'; expected a number"),
        ("init_lr", 0.0, "run.init_lr is 0.0; expected more than 0"),
        ("init_lr", 2, "run.init_lr is 2; expected at most 1"),
        ("init_lr", float("nan"), "run.init_lr is nan; expected a finite number"),
        ("init_lr", [1], "run.init_lr is [1]; expected a number"),
        ("amp", "bf61", "run.amp is 'bf61'; expected one of off, bf16 (did you mean bf16?)"),
        ("amp", True, "run.amp is true; expected one of off, bf16"),
        (
            "splits",
            "train",
            "run.splits is 'train'; expected a list of one of train, val each: write [train]",
        ),
        (
            "splits",
            ["trian"],
            "run.splits[0] is 'trian'; expected one of train, val (did you mean train?)",
        ),
        (
            "evaluate",
            "yes",
            "run.evaluate is 'yes'; expected true or false: write true or false, without quotes",
        ),
        ("output_dir", 2024, "run.output_dir is 2024; expected text: write it in quotes, '2024'"),
        ("output_dir", {"a": "b"}, "run.output_dir is {'a': 'b'}; expected text"),
        ("ratios", [1, 2], "run.ratios is [1, 2]; expected a mapping with keys among roco, coco"),
        ("ratios", {"rocco": 1}, "run.ratios 'rocco' is unknown; did you mean 'roco'?"),
        ("ratios", {"roco": -1}, "run.ratios.roco is -1; expected at least 0"),
    ],
)
def test_wrong_value_is_told_with_what_was_expected(key: str, value: Any, expected: str) -> None:
    assert problems(**{key: value}) == [expected]


def test_a_section_that_is_no_mapping() -> None:
    assert check({"run": 3}, SCHEMA)[0].startswith("run is 3; expected a mapping with keys among ")


def test_everything_is_collected() -> None:
    found = check({"run": {"max_epoch": 0, "evaluate": 1, "bogus": 1}, "model": []}, SCHEMA)
    assert [line.split()[0] for line in found] == [
        "run.max_epoch",
        "run.evaluate",
        "run.bogus",
        "model",
    ]


def test_unknown_keys_can_be_let_through() -> None:
    assert check({"run": {"max_epoch": 0, "bogus": 1}}, SCHEMA, unknown=False) == [
        "run.max_epoch is 0; expected at least 1"
    ]


def test_numbers_written_as_text_are_accepted_and_converted() -> None:
    config = {"run": {"max_epoch": "3", "init_lr": "1e-4", "ratios": {"roco": "2"}}}
    assert check(config, SCHEMA) == []
    converted = convert(config, SCHEMA)["run"]
    assert converted == {"max_epoch": 3, "init_lr": 1e-4, "ratios": {"roco": 2.0}}
    assert [type(v) for v in (converted["max_epoch"], converted["ratios"]["roco"])] == [int, float]


def test_convert_gives_the_declared_number_type_and_leaves_the_rest() -> None:
    config = {
        "run": {"max_epoch": 1e2, "init_lr": 1, "evaluate": True, "amp": "7", "x": "8"},
        "y": 1,
    }
    converted = convert(config, SCHEMA)
    assert converted == config
    assert isinstance(converted["run"]["max_epoch"], int)
    assert isinstance(converted["run"]["init_lr"], float)
    assert converted["run"]["evaluate"] is True
    assert converted["run"]["amp"] == "7"
    assert convert({"run": {"max_epoch": "three"}}, SCHEMA) == {"run": {"max_epoch": "three"}}


def test_the_configuration_itself_is_not_changed() -> None:
    config = {"run": {"max_epoch": "3"}}
    convert(config, SCHEMA)
    assert config == {"run": {"max_epoch": "3"}}


def test_path_is_put_in_front() -> None:
    assert check({"width": "x"}, {"width": Key(int)}, "model.branch") == [
        "model.branch.width is 'x'; expected a whole number"
    ]


def test_describe_unknown_lists_all_names_if_none_is_near() -> None:
    assert (
        describe_unknown("run.task", "zzz", ["b", "a"]) == "run.task 'zzz' is unknown; known: a, b"
    )
    assert describe_unknown("run.task", "zzz", []).endswith("known: none")


def test_nearest_and_show() -> None:
    assert nearest("captioning", ["medical_captioning", "vqa"]) == "medical_captioning"
    assert nearest("zzz", ["a"]) is None
    assert (show(None), show(True), show("a")) == ("null", "true", "'a'")
    assert len(show("x" * 200)) == 80


def test_known_part_leaves_out_what_check_calls_unknown() -> None:
    config = {"run": {"max_epoch": 1, "bogus": 2}, "modle": 1, "extra": {"x": 1}}
    part = known_part(config, Section(SCHEMA))
    assert part == {"run": {"max_epoch": 1}, "extra": {"x": 1}}
    assert check(part, SCHEMA) == []
