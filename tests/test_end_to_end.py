"""Both stages and the evaluation through the real entry points, on few images of the demo.

What is checked is what a user finds afterwards: the files of each run, what is in the checkpoints
and what is not, that one word drops a branch in all three runs, and that a seed repeats a run.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import Environment
from lavis.common.registry import registry
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from lavis_msmedcap import evaluate, train
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.checkpoints import read_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.journey]

PRETRAIN, CAPTION, EVALUATE = (
    f"projects/msmedcap/{name}.yaml" for name in ("pretrain_mixed", "caption", "evaluate")
)
SMALL = ("run.max_epoch=1", "run.samples_per_epoch=64", "run.batch_size_train=16", "run.log_freq=1")
FEW = ("run.max_eval_samples=6", "run.num_beams=2")
RUN_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
BEST, LAST = "checkpoint_best.safetensors", "checkpoint_last.safetensors"


@dataclass(frozen=True)
class Journey:
    """Three runs in one working directory.

    Attributes:
        stage1: Run directory of stage 1.
        stage2: Run directory of stage 2.
        test: Run directory of the evaluation.
    """

    stage1: Path
    stage2: Path
    test: Path


def run(main: Any, folder: Path, config: str, *options: str) -> Path:
    """Runs an entry point in a working directory; returns the run directory that it made."""
    before = set(folder.glob("output/msmedcap/*/*"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        assert main(["--cfg-path", config, "--options", *options]) == 0
    (made,) = set(folder.glob("output/msmedcap/*/*")) - before
    return made


def travel(folder: Path, *options: str) -> Journey:
    """Stage 1, stage 2 and evaluation; each finds the run before it by itself."""
    return Journey(
        stage1=run(train.main, folder, PRETRAIN, *SMALL, *FEW, *options),
        stage2=run(train.main, folder, CAPTION, *SMALL, *FEW, *options),
        test=run(evaluate.main, folder, EVALUATE, *FEW, *options),
    )


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return travel(tmp_path_factory.mktemp("journey"))


@pytest.fixture(scope="module", params=["sam", "clip"])
def dropped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Journey]:
    """The name of a dropped branch, and the journey without it."""
    name: str = request.param
    return name, travel(tmp_path_factory.mktemp(f"without_{name}"), f"model.branches.{name}=null")


def build(run_directory: Path) -> Any:
    """Builds the model anew from what a run wrote down, and loads what it learned."""
    config = OmegaConf.load(run_directory / "config.yaml")
    settings = {"load_finetuned": True, "finetuned": str(run_directory)}
    model = OmegaConf.merge(config.model, settings)
    return registry.get_model_class(model.arch).from_config(model).eval()


def files_of(run_directory: Path) -> set[str]:
    """Returns the files of a run; the lock and TensorBoard's, which have odd names, left out."""
    found = {path.relative_to(run_directory) for path in run_directory.rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if path.parts[0] not in (".lock", "tensorboard")}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- what each run leaves behind ---------------------------------------------------------------

EVERY_RUN = {"config.yaml", "data_summary.json", "environment.json", "log.txt"}
TRAINING = {*EVERY_RUN, "metrics.csv", "status.json", "validation.csv", BEST, LAST}
MEASURED = ("seconds", "images_per_second", "data_wait", "memory_gib")


def results(split: str) -> set[str]:
    return {f"result/{kind}_{split}.json" for kind in ("metrics", "predictions")}


def test_the_files_of_each_run(journey: Journey) -> None:
    validated = {"result/metrics_val.json", "report.html"}
    assert files_of(journey.stage1) == {*TRAINING, *validated}
    assert files_of(journey.stage2) == {
        *TRAINING,
        *results("val"),
        *results("test"),
        "report.html",
    }
    assert files_of(journey.test) == {*EVERY_RUN, *results("test"), "report.html"}
    for directory in (journey.stage1, journey.stage2, journey.test):
        assert RUN_NAME.fullmatch(directory.name)


def test_the_configuration_is_resolved(journey: Journey) -> None:
    for directory in (journey.stage1, journey.stage2, journey.test):
        text = (directory / "config.yaml").read_text()
        assert "${" not in text
        assert OmegaConf.create(text).scale == "demo"


def test_every_step_is_a_row(journey: Journey) -> None:
    stage1 = rows(journey.stage1 / "metrics.csv")
    assert [row["step"] for row in stage1] == ["1", "2", "3", "4"]
    for branch in ("clip", "sam"):
        for objective in ("itc", "itm", "lm"):
            assert any(row[f"{branch}/loss_{objective}"] for row in stage1)
            # of every dataset whose images the branch has looked at
            name = f"coco2014_caption/{branch}/loss_{objective}"
            assert any(row[name] for row in stage1)
        assert all(0 < float(row[f"{branch}/temp"]) < 1 for row in stage1)
    assert "medicat/sam/loss_itm" in stage1[0]
    assert "roco/clip/loss_itc" not in stage1[0]
    assert {"roco/loss_lm", "medicat/loss_lm"} <= rows(journey.stage2 / "metrics.csv")[0].keys()
    assert all(float(row["loss_lm"]) > 0 for row in rows(journey.stage2 / "metrics.csv"))
    assert [row["split"] for row in rows(journey.stage2 / "validation.csv")] == ["val"]
    (row,) = rows(journey.stage1 / "validation.csv")
    assert all(0 <= float(row[f"{name}/r_mean"]) <= 1 for name in ("clip", "sam", "fused"))
    assert "roco/sam/t2i_r5" in row


def test_predictions_name_image_reference_and_caption(journey: Journey) -> None:
    predictions = json.loads((journey.test / "result" / "predictions_test.json").read_text())
    assert len(predictions) == 12  # of two datasets
    assert {p["dataset"] for p in predictions} == {"roco", "medicat"}
    assert len({p["image_id"] for p in predictions}) == 12
    for prediction in predictions:
        assert Path(prediction["image"]).is_file()
        assert prediction["references"][0]
        assert isinstance(prediction["caption"], str)
    scores = json.loads((journey.test / "result" / "metrics_test.json").read_text())
    assert scores["pooled"]["scores"]["CIDEr"] >= 0
    assert len(scores["phantom_figures"]) == 4


def test_each_run_says_which_checkpoint_it_starts_from(journey: Journey) -> None:
    assert str(journey.stage1 / BEST) in log_of(journey.stage2)
    assert str(journey.stage2 / BEST) in log_of(journey.test)


def log_of(run_directory: Path) -> str:
    return (run_directory / "log.txt").read_text()


# --- frozen is frozen --------------------------------------------------------------------------


def test_checkpoints_hold_what_was_trained_and_nothing_else(journey: Journey) -> None:
    for directory in (journey.stage1, journey.stage2):
        state_dict, metadata = read_checkpoint(directory / BEST)
        assert metadata["run"] == directory.name
        assert not [name for name in state_dict if ".encoder.vit." in name or "opt_" in name]
        model = build(directory)
        assert set(state_dict) == {n for n, p in model.named_parameters() if p.requires_grad}


def test_a_fresh_load_has_the_frozen_weights_that_ship(journey: Journey) -> None:
    assets = package_path("assets/demo")
    for directory in (journey.stage1, journey.stage2):
        model = build(directory)
        assert_equal(load_file(assets / "eva_clip.safetensors"), encoder_of(model, "clip"))
        sam = load_file(assets / "sam.safetensors")
        prefix = "image_encoder."
        image_encoder = {
            f"vit.{name[len(prefix) :]}": value
            for name, value in sam.items()
            if name.startswith(prefix)
        }
        assert_equal(image_encoder, encoder_of(model, "sam"))
    own = model.opt_model.state_dict()
    own.pop("lm_head.weight")  # tied to the word embeddings, which are in the file
    assert_equal(load_file(assets / "opt" / "model.safetensors"), own)


def encoder_of(model: Any, branch: str) -> dict[str, Tensor]:
    encoder: dict[str, Tensor] = model.branches[branch].encoder.state_dict()
    return encoder


def assert_equal(shipped: dict[str, Tensor], loaded: dict[str, Tensor]) -> None:
    assert set(shipped) == set(loaded)
    # the files are of half precision, so that converting up loses nothing
    different = [n for n, value in shipped.items() if not torch.equal(value.float(), loaded[n])]
    assert different == []


def test_training_changed_every_trained_part(journey: Journey) -> None:
    start, _ = read_checkpoint(journey.stage1 / BEST)
    end, _ = read_checkpoint(journey.stage2 / BEST)
    for branch in ("clip", "sam"):
        shared = [n for n in start if n in end and n.startswith(f"branches.{branch}.")]
        assert len(shared) > 10
        assert all(not torch.equal(start[n], end[n]) for n in shared if start[n].ndim > 1)


# --- dropping a branch -------------------------------------------------------------------------


def test_one_word_drops_a_branch_in_all_three_runs(dropped: tuple[str, Journey]) -> None:
    name, journey = dropped
    kept = {"sam": "clip", "clip": "sam"}[name]
    for directory in (journey.stage1, journey.stage2):
        state_dict, _ = read_checkpoint(directory / LAST)
        assert {key.split(".")[1] for key in state_dict} == {kept}
        assert list(build(directory).branches) == [kept]
    assert files_of(journey.test) == {*EVERY_RUN, *results("test"), "report.html"}
    losses = rows(journey.stage1 / "metrics.csv")[0]
    assert f"{kept}/loss_itc" in losses
    assert f"{name}/loss_itc" not in losses


def test_what_the_branch_left_out_trains_on_is_what_it_saw(dropped: tuple[str, Journey]) -> None:
    name, journey = dropped
    trained = OmegaConf.load(journey.stage1 / "config.yaml").datasets
    general, medical = ["coco2014_caption"], ["roco", "medicat"]
    assert list(trained) == (general if name == "sam" else general + medical)
    captioned = OmegaConf.load(journey.stage2 / "config.yaml").datasets
    assert list(captioned) == medical


# --- repeating a run ---------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits(
    journey: Journey, plugged_in: Environment, tmp_path: Path
) -> None:
    """In another process, as ``python -m lavis.train``; the first run was one of several here."""
    for config, options, first in (
        (PRETRAIN, (*SMALL, *FEW), journey.stage1),
        (CAPTION, (*SMALL, *FEW, f"model.stage1={journey.stage1}"), journey.stage2),
    ):
        command = ("-m", "lavis.train", "--cfg-path", config, "--options", *options)
        plugged_in.output(*command, cwd=tmp_path)
        (again,) = tmp_path.glob(f"output/msmedcap/{first.parent.name}/*")
        for name in (BEST, LAST):
            ours, theirs = (read_checkpoint(directory / name)[0] for directory in (first, again))
            assert ours.keys() == theirs.keys()
            assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
        for table in ("metrics.csv", "validation.csv"):
            assert figures(again / table) == figures(first / table)
    captions = "result/predictions_test.json"
    assert (again / captions).read_text() == (first / captions).read_text()


def figures(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a table without what differs from one process to the next."""
    return [{k: value for k, value in row.items() if k not in MEASURED} for row in rows(path)]


def test_another_seed_gives_another_run(journey: Journey, tmp_path: Path) -> None:
    other = run(train.main, tmp_path, PRETRAIN, *SMALL, *FEW, "run.seed=43")
    ours, theirs = (read_checkpoint(d / LAST)[0] for d in (journey.stage1, other))
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])]


def test_nothing_is_written_but_run_directories(journey: Journey) -> None:
    folder = journey.stage1.parents[3]
    assert [path.name for path in folder.iterdir()] == ["output"]


# --- a row of Table 1 --------------------------------------------------------------------------


def test_one_file_runs_the_stages_of_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = "projects/msmedcap/table1/blip2_g_zeroshot.yaml"
    assert train.main(["--cfg-path", row, "--options", *SMALL, *FEW]) == 0
    (pretrain,), (caption,), (test,) = (
        list((tmp_path / "output/msmedcap/table1/blip2_g_zeroshot" / stage).iterdir())
        for stage in ("pretrain", "caption", "evaluate")
    )
    assert list(OmegaConf.load(caption / "config.yaml").datasets) == ["coco2014_caption"]
    for trained in (pretrain, caption):  # neither is validated: the last epoch goes on
        assert {BEST, LAST} & files_of(trained) == {LAST}
    assert results("test") <= files_of(test)
    kept = load_file(caption / LAST)
    assert not [name for name in kept if name.startswith("branches.sam")]
    used = json.loads((test / "result/metrics_test.json").read_text())
    assert used["split"] == "test"
