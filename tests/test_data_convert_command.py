from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.cli import main
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.readers.report import ReadReport


@pytest.fixture
def roco(tmp_path: Path) -> Path:
    """A ROCO tree with a 16-bit file and captions that a careless writer would spoil."""
    number = 0
    for split, count in (("train", 7), ("validation", 2), ("test", 3)):
        folder = tmp_path / "roco" / "data" / split / "radiology"
        (folder / "images").mkdir(parents=True)
        lines = []
        for _ in range(count):
            number += 1
            pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            path = folder / "images" / f"ROCO_{number:05d}.jpg"
            Image.fromarray(pixels).save(path)
            lines.append(f"ROCO_{number:05d}\t Axial CT\u2028of {number}: 0.37 cm.\n")
        (folder / "captions.txt").write_text("".join(lines), encoding="utf-8")
    ramp = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40)
    Image.fromarray(ramp).save(folder / "images" / "deep.png")
    (folder / "images" / f"ROCO_{number:05d}.jpg").unlink()
    (folder / "images" / "deep.png").rename(folder / "images" / f"ROCO_{number:05d}.png")
    return tmp_path / "roco"


@pytest.fixture
def config(tmp_path: Path, roco: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
model: {{arch: msmedcap, model_type: paper}}
datasets:
  roco: {{build_info: {{root: {roco}}}, max_samples: {{train: 5, val: null, test: null}}}}
run: {{task: medical_captioning, runner: runner_msmedcap, output_dir: {tmp_path}/run}}
""",
        encoding="utf-8",
    )
    return path


def records_of(name: str, **settings: Any) -> dict[str, list[Any]]:
    cls = registry.get_builder_class(name)
    section = OmegaConf.load(cls.default_config_path("default")).datasets[name]
    datasets = cls(OmegaConf.merge(section, settings)).build_datasets()
    return {split: data.records for split, data in datasets.items()}


def test_a_folder_to_shards_and_back(roco: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "shards"
    command = ["data", "convert", str(roco), str(out), "--to", "webdataset"]
    assert main([*command, "--samples-per-shard", "4", "--workers", "2"]) == 0
    told = capsys.readouterr().out
    assert "roco train: 7 images with 7 captions, 2 files" in told
    assert "1 stored as PNG: PNG of 16 bits" in told
    assert "read back 11 samples" in told
    assert f'train: "{out}/roco-train-{{000000..000001}}.tar"' in told
    before = records_of("roco", build_info={"root": str(roco)})
    after = records_of("webdataset_caption", build_info={"root": str(out)})
    for split in ("train", "val", "test"):
        found = {record.image_id: record.captions for record in after[split]}
        assert found == {record.image_id: record.captions for record in before[split]}
    # the shards are a data set as well, and recognised as one
    assert main(["data", "check", str(out)]) == 0
    assert "12" in capsys.readouterr().out
    again = tmp_path / "again"
    assert main(["data", "convert", str(out), str(again), "--to", "lavis-json",
                 "--images", "copy"]) == 0  # fmt: skip
    assert len(json.loads((again / "roco_train.json").read_text())) == 7


def test_a_configuration_counts_with_its_caps_and_without_its_weights(
    config: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "shards"
    command = ["data", "convert", str(config), str(out), "--to", "webdataset"]
    assert main(command) == 0
    assert "roco train: 5 images" in capsys.readouterr().out
    assert main(command) == 0
    assert "3 shards were finished before and kept" in capsys.readouterr().out
    assert main([*command, "--options", "datasets.roco.max_samples.train=4"]) == 2
    assert "name another folder, or give --overwrite" in capsys.readouterr().err


def test_lavis_json_is_used_as_it_says(roco: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "lavis"
    command = ["data", "convert", str(roco), str(out), "--to", "lavis-json"]
    assert main(command) == 2
    assert "1 PNG of 16 bits. Give --images copy" in capsys.readouterr().err
    assert main([*command, "--images", "copy", "--overwrite"]) == 0
    told = capsys.readouterr().out
    block = OmegaConf.create(told[told.index("  domain:") :])
    found = records_of("coco2014_caption", **block)
    before = records_of("roco", build_info={"root": str(roco)})
    for split, records in before.items():
        assert [r.captions for r in found[split]] == [r.captions for r in records]
        assert [r.image_id for r in found[split]] == [r.image_id for r in records]
        assert {r.domain for r in found[split]} == {"medical"}
    for place, splits in ((out, before), (out / "roco_train.json", ["train"])):
        read = read_place(place, ReadReport("roco"))[1]
        assert {r.split for r in read} == set(splits)
        assert all(Path(r.image).is_file() for r in read)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "nowhere does not exist"),
        (["{tmp}/empty"], "looks like no known format"),
        (["{tmp}/roco", "--format", "rocco"], "--format rocco is unknown; did you mean roco?"),
        (["{tmp}/roco", "--name", "../x"], "source '../x' is refused"),
        (["{tmp}/roco", "--options", "run.max_epoch=1"], "none is given"),
        (["{tmp}/run.yaml", "--name", "x"], "--name is for a folder"),
        (["{tmp}/run.yaml", "--options", "datasets.roco.kidns=[radiology]"], "kidns"),
        (["{tmp}/run.yaml", "--options", "datasets.roco.build_info.root=/gone"], "no ROCO v1 tree"),
    ],
)
def test_what_is_wrong_is_told(
    config: Path, tmp_path: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    place, *more = (argument.format(tmp=tmp_path) for argument in arguments)
    out = str(tmp_path / "out")
    assert main(["data", "convert", place, out, "--to", "webdataset", *more]) == 2
    assert message in capsys.readouterr().err
    assert not Path(out).exists()


def test_help_helps(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "convert", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "copied byte for byte" in text
    assert "the SAM branch sees the same pixels as before" in text
    assert "goes on where it stopped" in text


@pytest.mark.parametrize(
    "option", ["--samples-per-shard", "--shard-mib", "--max-side", "--workers"]
)
def test_numbers_have_to_be_above_zero(option: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["data", "convert", "x", "y", "--to", "webdataset", option, "0"])
    assert "invalid whole number above 0 value: '0'" in capsys.readouterr().err


def test_after_ctrl_c_it_says_how_to_go_on(
    roco: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    from lavis_msmedcap.data_convert import shards

    real, done = shards.store_image, []

    def stop_at_the_ninth(*args: Any) -> Any:
        done.append(args)
        if len(done) == 9:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(shards, "store_image", stop_at_the_ninth)
    command = ["data", "convert", str(roco), str(tmp_path / "out"), "--to", "webdataset"]
    command += ["--samples-per-shard", "4", "--workers", "1"]
    assert main(command) == 130
    assert "are whole; the same command goes on where it was" in capsys.readouterr().err
    assert main(command) == 0
    assert "2 shards were finished before and kept" in capsys.readouterr().out
