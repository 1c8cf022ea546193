from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lavis.common.registry import registry
from lavis.datasets.builders.caption_builder import COCOCapBuilder
from omegaconf import OmegaConf

from lavis_msmedcap.cli import main
from lavis_msmedcap.data_convert.plan import ShardSettings, plan_shards
from lavis_msmedcap.data_convert.sections import shard_sections
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.run_config import resolve_run_config

OUT = Path("/data/out")


def record(number: int, **changes: str) -> MedCapRecord:
    plain = MedCapRecord(f"/gone/{number}", ("CT.",), f"i{number}", "train", None, "a", "medical")
    return replace(plain, **changes)


def sections(records: list[MedCapRecord], *rest: Any) -> tuple[dict[str, Any], list[str]]:
    lines = list(shard_sections(plan_shards(records, ShardSettings(samples=2)), OUT, *rest))
    content = OmegaConf.to_container(OmegaConf.create("\n".join(lines)))
    assert isinstance(content, dict)
    return content, lines


def test_a_section_names_the_shards_of_every_split() -> None:
    records = [record(n) for n in range(5)] + [record(n, split="test") for n in range(5, 7)]
    content, _ = sections(records[::-1])
    assert content == {
        "datasets": {
            "a_shards": {
                "builder": "webdataset_caption",
                "type": "${oc.select:scale,default}",
                "domain": "medical",
                "splits": ["train", "test"],
                "build_info": {
                    "shards": {
                        "train": "/data/out/a-train-{000000..000002}.tar",
                        "test": "/data/out/a-test-000000.tar",
                    }
                },
            }
        }
    }


def test_on_top_of_a_configuration_old_sections_go() -> None:
    base = Path('/conf/my "own": röntgen.yaml')
    content, _ = sections([record(0)], base, ["b", "a"])
    assert content["base"] == str(base)
    assert list(content["datasets"]) == ["b", "a", "a_shards"]
    assert content["datasets"]["a"] is content["datasets"]["b"] is None


def test_a_data_set_of_two_domains_has_no_section_and_says_so() -> None:
    records = [record(0), record(1, domain="general"), record(2, source="b", domain="general")]
    content, lines = sections(records)
    assert list(content["datasets"]) == ["b_shards"]
    assert content["datasets"]["b_shards"]["domain"] == "general"
    assert "  # a: images of two domains, convert them apart, under two names" in lines


# --- LAVIS' own builders ---------------------------------------------------------------------


@pytest.fixture
def ward() -> Iterator[str]:
    """A data set of somebody's own, registered as LAVIS' documentation shows."""
    registry.register_builder("our_ward")(type("WardBuilder", (COCOCapBuilder,), {}))
    yield "our_ward"
    del registry.mapping["builder_name_mapping"]["our_ward"]


def test_a_mixed_in_lavis_builder_is_named_with_a_cure_that_works(
    ward: str, records: list[MedCapRecord], tmp_path: Path, capsys: Any
) -> None:
    rows = [{"image": r.image, "caption": r.captions[0], "image_id": r.image_id} for r in records]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    views = {"image_size": 32, "sam_image_size": 32}
    place = {"storage": str(tmp_path / "train.json"), "url": ""}
    theirs = {
        "data_type": "images",
        "domain": "medical",
        "build_info": {
            "annotations": {"train": place},
            "images": {"storage": str(tmp_path)},
        },
        "vis_processor": {"train": {"name": "msmedcap_image_train", **views}},
        "text_processor": {"train": {"name": "msmedcap_caption"}},
    }
    ours = {
        "builder": "caption_table",
        "domain": "medical",
        "splits": ["train"],
        "build_info": {"table": {"train": place["storage"]}},
    }
    config = {
        "model": {"arch": "msmedcap", "model_type": "paper"},
        "datasets": {ward: theirs, "scans": ours},
        "run": {
            "task": "medical_captioning",
            "runner": "runner_msmedcap",
            "output_dir": str(tmp_path / "run"),
        },
    }
    run = tmp_path / "run.yaml"
    OmegaConf.save(OmegaConf.create(config), run)
    command = ["data", "convert", str(run), str(tmp_path / "out"), "--to", "webdataset"]
    assert main(command) == 2
    told = capsys.readouterr().err
    cure = ["--options", f"datasets.{ward}=null"]
    assert f"datasets.{ward} is of LAVIS itself" in told
    assert " ".join(cure) in told
    assert not (tmp_path / "out").exists()

    assert main([*command, *cure]) == 0
    told = capsys.readouterr().out
    assert f"scans train: {len(records)} images" in told
    (tmp_path / "next.yaml").write_text(told[told.index("base:") :], encoding="utf-8")
    config, problems = resolve_run_config(str(tmp_path / "next.yaml"), [])
    assert sorted(config.to_dict()["datasets"]) == [
        ward,
        "scans_shards",
    ]  # theirs is read as before
    assert not [problem for problem in problems if "scans_shards" in problem]
