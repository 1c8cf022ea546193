"""Own data through the registered builder, as a configuration names them."""

from __future__ import annotations

import csv
import logging

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.datasets import builders
from lavis_msmedcap.datasets.builders import CaptionTableBuilder, register_name
from lavis_msmedcap.run_config import resolve_run_config
from lavis_msmedcap.run_relations.values import splits_of


@pytest.fixture(autouse=True)
def names_are_forgotten():
    names = registry.mapping["builder_name_mapping"]
    before = dict(names)
    yield
    names.clear()
    names.update(before)


def _config(**overrides):
    path = CaptionTableBuilder.default_config_path("demo")
    return OmegaConf.merge(OmegaConf.load(path).datasets.caption_table, overrides)


def _build(**overrides):
    return CaptionTableBuilder(_config(**overrides)).build_datasets()


def _sizes(datasets):
    return {split: len(data) for split, data in datasets.items()}


@pytest.fixture
def folder(tmp_path, make):
    """Twelve images of six patients in a folder, and their table beside it."""
    rows = [["image", "caption", "patient"]]
    for number in range(12):
        make.save(tmp_path / "scans" / f"{number}.png", seed=number)
        rows.append([f"{number}.png", f"Scan {number} of the chest.", f"P{number // 2}"])
    _write(tmp_path / "my.csv", rows)
    return tmp_path


def _write(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def _rows(folder):
    with (folder / "my.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_one_block_is_enough(folder, caplog):
    with caplog.at_level(logging.INFO, logger=builders.__name__):
        datasets = _build(
            build_info={"table": str(folder / "my.csv"), "images": str(folder / "scans")}
        )
    assert set(datasets) == {"train", "val", "test"}
    assert sum(_sizes(datasets).values()) == 12
    of_patient = {}
    for split, data in datasets.items():
        for record in data.records:
            assert of_patient.setdefault(record.group_id, split) == split
    sample = datasets["val"][0]
    assert sample["references"][0].startswith("Scan ")
    assert (sample["dataset"], sample["domain"]) == ("caption_table", "medical")
    (line,) = [r.getMessage() for r in caplog.records if r.name == builders.__name__]
    assert line.startswith("caption_table: read 12, kept 12 (")


def test_another_seed_and_other_shares(folder):
    info = {"table": str(folder / "my.csv"), "images": str(folder / "scans")}
    first, again, other = (
        {r.image_id for r in _build(build_info=info, split_seed=seed)["train"].records}
        for seed in (0, 0, 3)
    )
    assert first == again != other
    halves = OmegaConf.create({"train": 0.5, "val": 0.0, "test": 0.5})
    assert set(_build(build_info=info, split_fractions=halves)) == {"train", "test"}


def test_splits_of_a_column_and_of_several_tables(folder):
    head, *rows = _rows(folder)
    marked = [[*row, "train" if i < 9 else "test"] for i, row in enumerate(rows)]
    one = _write(folder / "marked.csv", [[*head, "split"], *marked])
    info = {"table": one, "images": str(folder / "scans")}
    assert _sizes(_build(build_info=info)) == {"train": 9, "test": 3}
    with pytest.raises(DataError, match="the val split of caption_table is empty"):
        _build(build_info=info, splits=["train", "val"])
    parts = {
        "train": _write(folder / "a.csv", [head, *rows[:6]]),
        "val": [
            _write(folder / "b.csv", [head, *rows[6:8]]),
            _write(folder / "c.csv", [head, rows[8]]),
        ],
    }
    tables = {"table": parts, "images": str(folder / "scans")}
    assert _sizes(_build(build_info=tables)) == {"train": 6, "val": 3}
    assert _sizes(_build(build_info=tables, splits=["val"])) == {"val": 3}
    assert splits_of({"build_info": tables}) == ("train", "val")


def test_a_table_of_both_domains_is_read_by_two_sections(folder):
    head, *rows = _rows(folder)
    mixed = [[*row, "general" if i % 3 == 0 else "medical"] for i, row in enumerate(rows)]
    table = _write(folder / "mixed.csv", [[*head, "domain"], *mixed])
    info = {"table": {"train": table}, "images": str(folder / "scans")}
    read = {domain: _build(build_info=info, domain=domain) for domain in ("medical", "general")}
    assert {domain: _sizes(data) for domain, data in read.items()} == {
        "medical": {"train": 8},
        "general": {"train": 4},
    }
    assert {r.domain for r in read["general"]["train"].records} == {"general"}
    assert read["medical"]["train"].facts["dropped"] == {"of domain general, not medical": 4}


def test_a_folder_of_tables_is_split_by_their_names(folder):
    head, *rows = _rows(folder)
    tables = folder / "tables"
    tables.mkdir()
    for name, part in (("train-0", rows[:4]), ("train-1", rows[4:6]), ("valid", rows[6:])):
        _write(tables / f"{name}.csv", [head, *part])
    info = {"table": str(tables), "images": str(folder / "scans")}
    assert _sizes(_build(build_info=info)) == {"train": 6, "val": 6}
    _write(tables / "rest.csv", [head, rows[0]])
    with pytest.raises(
        DataError, match=r"rest\.csv belongs to no split, other tables beside it do"
    ):
        _build(build_info=info)


def test_images_beside_the_table_need_no_folder(folder):
    head, *rows = _rows(folder)
    table = _write(folder / "scans" / "t.csv", [head, *rows])
    assert sum(_sizes(_build(build_info={"table": table})).values()) == 12


def test_what_is_missing_is_told_before_anything_is_read(folder):
    problems = CaptionTableBuilder.missing_inputs(
        _config(build_info={"table": "nowhere.csv", "images": str(folder / "nowhere")})
    )
    assert len(problems) == 2
    assert "datasets.caption_table.build_info.table: no table at" in problems[0]
    assert "datasets.caption_table.build_info.images: no folder at" in problems[1]
    (problem,) = CaptionTableBuilder.missing_inputs(
        _config(build_info={"table": str(folder / "scans")})
    )
    assert "no table in" in problem


def test_unknown_keys_are_errors(folder):
    with pytest.raises(ConfigError, match=r"format is 'xls'; expected one of auto, csv"):
        _build(build_info={"table": str(folder / "my.csv"), "format": "xls"})


# --- several in one run --------------------------------------------------------------------------


RUN = """
scale: demo
model: {arch: msmedcap, model_type: demo, load_finetuned: false, stage1: null}
datasets:
  caption_table: {build_info: {table: my.csv, images: scans}}
  ward_b: {builder: caption_table, ratio: 0.5, build_info: {table: {train: my.csv}, images: scans}}
run: {task: medical_captioning, runner: runner_msmedcap, output_dir: out, valid_splits: [val]}
"""


def test_a_second_table_has_a_name_of_its_own(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "run.yaml").write_text(RUN)
    config, problems = resolve_run_config("run.yaml")
    assert problems == []
    # the scale of the run decides which packaged defaults are taken
    assert {s.type for s in config.datasets_cfg.values()} == {"demo"}
    assert config.datasets_cfg.ward_b.vis_processor.train.image_size == 64
    builder = registry.get_builder_class("ward_b")
    datasets = builder(config.datasets_cfg.ward_b).build_datasets()
    assert _sizes(datasets) == {"train": 12}
    sample = datasets["train"][0]
    assert (sample["dataset"], sample["instance_id"]) == ("ward_b", "ward_b-0")
    assert datasets["train"].records[0].source == "ward_b"
    assert (
        "datasets.ward_b.build_info.table"
        in builder.missing_inputs(
            OmegaConf.merge(config.datasets_cfg.ward_b, {"build_info": {"table": "gone.csv"}})
        )[0]
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "builder: caption_table",
            "builder: capton_table",
            "expected one of caption_table, coco2014",
        ),
        ("ward_b:", "vg_caption:", "vg_caption is a data set of its own; take another name"),
        ("builder: caption_table, ", "", "Or is it a table of your own"),
        ("images: scans}}\n  ward", "image: scans}}\n  ward", "did you mean"),
        (
            "my.csv, images",
            "my.csv, columns: {captoin: x}, images",
            "columns.captoin is not a known",
        ),
    ],
)
def test_mistakes_in_the_block_are_told(folder, monkeypatch, old, new, message):
    monkeypatch.chdir(folder)
    assert old in RUN
    (folder / "run.yaml").write_text(RUN.replace(old, new))
    _, problems = resolve_run_config("run.yaml")
    assert any(message in problem for problem in problems), problems


def test_names_are_registered_once():
    assert register_name("ward_c") is register_name("ward_c")
    assert register_name("caption_table") is CaptionTableBuilder
    assert register_name("roco_b", "roco").NAME == "roco_b"
    with pytest.raises(ConfigError, match="take another name"):
        register_name("roco_b", "medicat")
