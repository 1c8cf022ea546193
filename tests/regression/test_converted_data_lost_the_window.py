"""``msmedcap data convert`` stored scans with the default window, whatever the run's was.

A training on what it wrote saw other pictures than one on the scans.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_check_trees import put
from dicom_files import make_dicom, ramp, save
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.cli import main

WINDOWS = [{"preset": "lung"}, {"center": 500, "width": 100}, {}]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on a table of a DICOM file, a 16-bit one, a photograph on its side, a plain one."""
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    save(make_dicom(ramp(0, 4095), RescaleIntercept=-1024), tmp_path / "scan.dcm")
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise[..., :3]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(noise).save(tmp_path / "clear.png")
    Image.fromarray(noise[..., :3]).save(tmp_path / "plain.jpg")
    names = ["scan.dcm", "deep.png", "turned.jpg", "clear.png", "plain.jpg"]
    rows = [f"{name},Axial CT {name},train,{Path(name).stem}" for name in names]
    put(tmp_path / "t.csv", "image,caption,split,image_id\n" + "\n".join(rows) + "\n")
    text = f"""
model: {{arch: msmedcap, model_type: paper}}
datasets:
  caption_table: {{domain: medical, build_info: {{table: {tmp_path}/t.csv}}}}
run: {{task: medical_captioning, runner: runner_msmedcap, output_dir: {tmp_path}/run,
      valid_splits: [], test_splits: []}}
"""
    return put(tmp_path / "run.yaml", text)


def views(name: str, window: dict[str, Any], **settings: Any) -> dict[str, torch.Tensor]:
    """The training images of a data set by id, as its processor makes them."""
    processor = {"name": "msmedcap_image_train", "image_size": 28, "sam_image_size": 64}
    processors = {"train": {**processor, "window": window}}
    cls = registry.get_builder_class(name)
    section = OmegaConf.load(cls.default_config_path("default")).datasets[name]
    section = OmegaConf.merge(section, settings, {"vis_processor": processors})
    data = cls(section).build_datasets()["train"]
    return {sample["image_id"]: sample["image"] for sample in (data[i] for i in range(len(data)))}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("target", ["webdataset", "lavis-json"])
def test_training_sees_the_same_pixels(
    config: Path, tmp_path: Path, capsys: Any, window: dict[str, Any], target: str
) -> None:
    out = tmp_path / "out"
    parts = [f"datasets.caption_table.vis_processor.{part}.window" for part in ("train", "eval")]
    text = str(window).replace("'", "")
    command = ["data", "convert", str(config), str(out), "--to", target, "--images", "copy"]
    assert main([*command, "--options", *(f"{part}={text}" for part in parts)]) == 0
    told = capsys.readouterr().out
    before = views("caption_table", window, build_info={"table": str(tmp_path / "t.csv")})
    if target == "webdataset":
        info = {"root": str(out)}
        after = views("webdataset_caption", window, build_info=info, splits=["train"])
    else:
        block = OmegaConf.create(told[told.index("  domain:") :])
        after = views("coco2014_caption", window, **block)
    assert before.keys() == after.keys() == {"scan", "deep", "turned", "clear", "plain"}
    for name, image in before.items():
        assert torch.equal(image, after[name]), name


def test_shards_of_another_window_are_others(config: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["data", "convert", str(config), str(tmp_path / "out"), "--to", "webdataset"]
    parts = [f"datasets.caption_table.vis_processor.{part}.window" for part in ("train", "eval")]
    lung = ["--options", *(f"{part}={{preset: lung}}" for part in parts)]
    assert main(command) == 0
    assert main(command) == 0
    assert "1 shards were finished before and kept" in capsys.readouterr().out
    assert main([*command, *lung]) == 2
    assert "do not come from these data and settings" in capsys.readouterr().err


def test_missing_images_count_as_in_training(tmp_path: Path, capsys: Any) -> None:
    for number in range(39):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    rows = ["image,caption", *(f"{number}.png,CT {number}" for number in range(40))]
    put(tmp_path / "train.csv", "\n".join(rows) + "\n")
    out = tmp_path / "out"
    command = ["data", "convert", str(tmp_path / "train.csv"), str(out), "--to", "webdataset"]
    assert main(command) != 0
    assert "39.png" in capsys.readouterr().err
    assert main([*command, "--on-bad", "skip"]) == 0
    told = capsys.readouterr()
    assert "dropped 1: 1 image missing" in told.err
    assert "39 images" in told.out
    for number in range(5):
        (tmp_path / f"{number}.png").unlink()
    assert main([*command, "--on-bad", "skip", "--overwrite"]) == 2
    assert "at most 5.0% may be" in capsys.readouterr().err
    put(tmp_path / "test.csv", "image,caption\n5.png,CT\ngone.png,CT\n")
    command[2] = str(tmp_path / "test.csv")
    assert main([*command, "--on-bad", "skip", "--overwrite"]) == 2
    assert "1 of 2 images of test (test) are missing" in capsys.readouterr().err
