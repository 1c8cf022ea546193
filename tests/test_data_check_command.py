"""``msmedcap data check`` as its user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from data_check_trees import dirty_tree, leaking_trees, manifest_lines, picture, put
from dicom_files import make_dicom, ramp, save

from lavis_msmedcap import cli
from lavis_msmedcap.phantom import PhantomSizes, ensure_phantom
from lavis_msmedcap.run_data import data_of
from lavis_msmedcap.train import EXIT_WRONG_INPUT

SMALL = PhantomSizes(
    coco_train=12, coco_val=4, roco_train=20, roco_validation=6, roco_test=6, medicat=80
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own; no process besides this one, which would be slower here."""
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def check(*arguments: object) -> int:
    return cli.main(["data", "check", *map(str, arguments)])


def test_dirt_is_told_worst_first_and_again_from_the_cache(tmp_path, capsys, cache):
    root = dirty_tree(tmp_path / "roco")
    assert check(root) == 1
    out = capsys.readouterr().out
    heads = [line for line in out.splitlines() if line.endswith(":")]
    assert heads[:4] == [
        "how the files were read:",
        "problems that hurt a training or its figures:",
        "warnings:",
        "notes:",
    ]
    assert "  1 of 14 (7.1 %) truncated image files\n      in roco train: 1\n" in out
    assert f"{root}/data/train/radiology/images/ROCO_00005.jpg: image file is truncated" in out
    assert out.endswith("\n5 problems\n")
    assert (cache / "data_check" / "images.sqlite").is_file()
    assert check(root) == 1
    assert capsys.readouterr().out == out
    assert check(root, "--fresh", "--workers", "1") == 1
    assert capsys.readouterr().out == out


def test_outputs_of_leaking_trees(tmp_path, capsys):
    one, two = leaking_trees(tmp_path)
    code = check(one, two, "--json", "out/check.json", "--html", "out/check.html")
    assert code == 1
    out = capsys.readouterr().out
    assert "2 of 4 (50.0 %) test images from an article or patient that train has" in out

    told = json.loads(Path("out/check.json").read_text(encoding="utf-8"))
    assert told["clean"] is False
    assert told["datasets"][1] == {
        "name": "rocov2",
        "read": 5,
        "checked": {"train": 4, "val": 1},
        "left_out": {},
        "notes": {},
    }
    near = [leak for leak in told["leaks"] if leak["kind"] == "near"]
    assert [[r["image_id"] for r in leak["records"]] for leak in near] == [["ROCO_4", "B_2"]]
    assert [leak["key"] for leak in told["leaks"] if leak["kind"] == "group"] == [
        "PMC70077",
        "PMC80088",
    ]

    page = Path("out/check.html").read_text(encoding="utf-8")
    assert "nothing left this machine" in page
    assert page.count("data:image/jpeg;base64,") >= 10
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", page) == []
    assert "<script" not in page


def test_fix_writes_a_manifest_that_is_clean(tmp_path, capsys):
    one, two = leaking_trees(tmp_path)
    assert check(one, two, "--fix", "clean.jsonl") == 1
    out = capsys.readouterr().out
    assert "clean manifest: clean.jsonl, 6 images\n" in out
    assert "  2 left out: leaks into test: same article or patient\n" in out
    assert len(manifest_lines(tmp_path / "clean.dropped.jsonl")) == 4
    assert check("clean.jsonl") == 0
    assert capsys.readouterr().out.endswith("\nno problems\n")
    assert check(one, "--fix", "clean.jsonl") == EXIT_WRONG_INPUT
    assert "clean.jsonl exists" in capsys.readouterr().err
    assert check(one, two, "--fix", "images.jsonl", "--fix-leaks", "image") == 1
    assert len(manifest_lines(tmp_path / "images.jsonl")) == 8


def test_a_manifest_is_trained_on_as_a_table(tmp_path):
    """The builder of own tables reads what --fix writes: images, captions, ids, splits, groups."""
    one, two = leaking_trees(tmp_path)
    assert check(one, two, "--fix", "clean.jsonl") == 1
    places = ["datasets.medicat=null", "datasets.roco=null", "datasets.caption_table.type=demo"]
    places.append(f"datasets.caption_table.build_info={{table: {tmp_path}/clean.jsonl}}")
    data = data_of(
        "projects/msmedcap/caption.yaml",
        [*places, "run.valid_splits=[]", "datasets.caption_table.domain=medical"],
    )
    lines = manifest_lines(tmp_path / "clean.jsonl")
    fields = ("image", "image_id", "split", "group_id")
    read = {(*(getattr(r, name) for name in fields), r.captions) for r in data.records}
    written = {(*(line[name] for name in fields), tuple(line["captions"])) for line in lines}
    assert read == written
    assert len(read) == 6


def test_images_are_looked_at_as_the_run_reads_them(tmp_path, capsys):
    path = put(tmp_path / "scan.dcm", b"").as_posix()
    save(make_dicom(ramp(0, 4095), WindowCenter=100, WindowWidth=50), Path(path))
    put(tmp_path / "mine.csv", "image,caption,split\nscan.dcm,Axial CT of a kidney.,train\n")
    options = ["datasets.medicat=null", "datasets.roco=null", "datasets.caption_table.type=demo"]
    options += [
        f"datasets.caption_table.build_info={{table: {tmp_path}/mine.csv}}",
        "run.valid_splits=[]",
        "datasets.caption_table.domain=medical",
    ]
    arguments = ("projects/msmedcap/caption.yaml", "--options", *options)
    check(*arguments)
    assert "cannot be decoded" not in capsys.readouterr().out
    section = "datasets.caption_table.vis_processor"
    window = [f"{section}.{split}.window={{index: 3}}" for split in ("train", "eval")]
    assert check(*arguments, *window) == 1
    told = capsys.readouterr().out
    assert re.search(r"scan\.dcm: .*window", told), told
    check(*arguments)  # the cache keeps both apart
    assert "cannot be decoded" not in capsys.readouterr().out


def test_data_sets_of_one_name_are_told_apart(tmp_path, capsys):
    first, second = dirty_tree(tmp_path / "a" / "roco"), dirty_tree(tmp_path / "b" / "roco")
    assert check(first, second, "--json", "check.json") == 1
    told = json.loads(Path("check.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in told["datasets"]] == ["roco", "roco-2"]
    assert {r["dataset"] for r in told["unreadable"]} == {"roco", "roco-2"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nowhere does not exist; name a folder, a table or a run configuration"),
        (["nowhere.yaml"], "--cfg-path nowhere.yaml is neither in"),
        ([".", "--options", "run.seed=1"], "--options are settings of a run configuration"),
        (["."], "looks like no known format"),
    ],
)
def test_wrong_input_is_told(capsys, arguments, told):
    assert check(*arguments) == EXIT_WRONG_INPUT
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--near", "9"], ["--workers", "-1"], ["--fix-leaks", "x"]])
def test_wrong_numbers_are_refused(capsys, words):
    with pytest.raises(SystemExit) as stop:
        check(".", *words)
    assert stop.value.code == 2


def test_help_has_examples_and_nothing_heavy_is_imported_for_it(capsys):
    with pytest.raises(SystemExit):
        check("--help")
    assert "msmedcap data check /data/roco --fix clean.jsonl" in capsys.readouterr().out
    program = (
        "import sys; from lavis_msmedcap.cli import build_parser; build_parser();"
        "print([m for m in ('numpy', 'PIL', 'torch') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


# --- run configurations --------------------------------------------------------------------------


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    return ensure_phantom(tmp_path / "phantom", sizes=SMALL)


def places(root: Path) -> list[str]:
    coco = "datasets.coco2014_caption.build_info"
    return [
        f"datasets.roco.build_info.root={root}/roco",
        f"datasets.medicat.build_info.root={root}/medicat",
        f"{coco}.images.storage={root}/coco",
        f"{coco}.annotations.train.storage={root}/coco/annotations/captions_train2014.json",
        f"{coco}.annotations.val.storage={root}/coco/annotations/captions_val2014.json",
    ]


def test_a_run_is_checked_with_its_limits(phantom, capsys):
    options = [*places(phantom), "model.max_txt_len=12", "run.batch_size_train=2"]
    processor = "datasets.roco.text_processor.train.max_words=10"
    code = check("projects/msmedcap/pretrain_mixed.yaml", "--options", *options, processor)
    out = capsys.readouterr().out
    assert code == 0, out
    assert out.startswith("projects/msmedcap/pretrain_mixed.yaml, scale: demo")
    assert re.search(r"roco +train +20 +20", out)
    assert "images with captions that max_words cuts" in out
    assert "(max_txt_len 12)" in out


def test_missing_images_of_a_run_are_counted_not_refused(phantom, capsys):
    images = sorted((phantom / "roco/data/train/radiology/images").iterdir())
    for image in images[:3]:
        image.unlink()
    names = ["datasets.medicat=null", "datasets.coco2014_caption=null"]
    names += ["model.branches.clip=null", *places(phantom)[:1]]
    assert check("projects/msmedcap/pretrain_mixed.yaml", "--options", *names) == 1
    out = capsys.readouterr().out
    assert "3 of 32 (9.4 %) image files that do not exist" in out


def test_a_missing_checkpoint_does_not_matter_but_a_typo_does(phantom, capsys):
    """Stage 2 without the result of stage 1, whose tokenizer is there all the same."""
    options = places(phantom)[:2]
    data = data_of("projects/msmedcap/caption.yaml", options)
    assert {record.source for record in data.records} == {"roco", "medicat"}
    assert data.rules["roco"].max_tokens == 64
    count = data.rules["roco"].count_tokens
    assert count is not None
    assert count("a scan") > 8  # the prompt counts
    assert data.notes == []
    assert check("projects/msmedcap/caption.yaml", "--options", *options, "model.prmpt=x") == 2
    assert "did you mean model.prompt" in capsys.readouterr().err


def test_without_a_tokenizer_words_are_counted(phantom, tmp_path):
    options = [*places(phantom)[:2], f"model.llm.tokenizer={tmp_path}"]
    data = data_of("projects/msmedcap/caption.yaml", options)
    assert data.rules["roco"].count_tokens is None
    assert "captions are counted in words only" in data.notes[0]


def test_all_stages_count_each_record_once(phantom, tmp_path):
    lines = ["stages:"]
    for name, base in (("pretrain", "pretrain_mixed"), ("caption", "caption")):
        path = Path(cli.__file__).parent.parent / f"projects/msmedcap/{base}.yaml"
        lines.append(f"  {name}: {{base: {path}}}")
    put(tmp_path / "both.yaml", "\n".join(lines) + "\n")
    roco, medicat, *coco = places(phantom)
    of_stage_1 = [f"stages.pretrain.{place}" for place in coco]
    data = data_of("both.yaml", [roco, medicat, *of_stage_1])
    assert len(data.records) == len(set(data.records)) == SMALL.total
    assert [report.name for report in data.reports] == ["coco2014_caption", "roco", "medicat"]


def test_files_named_by_their_splits_are_one_data_set(tmp_path, capsys):
    for split, numbers in (("train", range(4)), ("test", range(4, 8))):
        for i in numbers:
            put(tmp_path / f"{i}.png", picture(i))
        lines = [f"{i}.png,Axial CT number {i} of the chest.,p{i % 4}\n" for i in numbers]
        put(tmp_path / f"{split}.csv", "image,caption,patient_id\n" + "".join(lines))
    assert check("train.csv", "test.csv") == 1
    told = capsys.readouterr()
    assert "4 of 4 (100.0 %) test images from an article or patient that train has" in told.out
    assert "train.csv, test.csv are read as one data set" in told.err
