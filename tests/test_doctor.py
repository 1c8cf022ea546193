"""``msmedcap doctor``: what is missing, with the cure, and the exit code."""

from __future__ import annotations

import errno
import importlib.metadata
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lavis_msmedcap import cli, doctor, doctor_machine, doctor_needs, doctor_packages
from lavis_msmedcap.doctor_findings import MISSING, NOTE, OK, Finding
from lavis_msmedcap.doctor_machine import check_disk, check_gpu, check_torchvision
from lavis_msmedcap.doctor_needs import _check_gpu_memory, check_needs
from lavis_msmedcap.doctor_packages import check_packages, modern_lines

pytestmark = pytest.mark.usefixtures("empty_places")

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"
CAPTION = "projects/msmedcap/caption.yaml"
ROW = "projects/msmedcap/table1/msmedcap_g_gm.yaml"


@pytest.fixture
def sound_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the weights alone to decide: another machine's drivers are not under test."""
    for check in ("check_packages", "check_gpu", "check_java"):
        monkeypatch.setattr(doctor, check, lambda: [])


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    code = cli.main(["doctor", *arguments])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("sound_machine")
def test_the_demo_lacks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = ask(capsys, "--cfg-path", PRETRAIN)
    assert code == 0
    assert lines[-1] == "nothing missing"
    assert sum("found: " in line for line in lines) == 3
    assert list(tmp_path.iterdir()) == []  # nothing was made


@pytest.mark.usefixtures("sound_machine")
def test_the_paper_lacks_all_its_weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    code, lines = ask(capsys, "--cfg-path", CAPTION, "--options", "scale=paper")
    assert code == 1
    lacking = [line for line in lines if MISSING in line]
    assert lines[-1] == f"{len(lacking)} missing"
    for name in ("eva_vit_g", "blip2_pretrained", "sam_vit_b", "bert-base-uncased", "opt-2.7b"):
        assert any(f"`msmedcap weights get {name}`" in line for line in lacking), name
    assert any("model.stage1: no checkpoint" in line for line in lacking)
    assert any("datasets.roco" in line for line in lacking)
    assert len(set(lacking)) == len(lacking)


@pytest.mark.usefixtures("sound_machine")
def test_online_the_weights_will_be_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["scale=paper", "model.offline=false"]
    code, lines = ask(capsys, "--cfg-path", PRETRAIN, "--options", *options)
    notes = [line for line in lines if "will be downloaded at the start" in line]
    assert len(notes) == 5
    assert any("sam_vit_b" in line and "375 MB" in line for line in notes)
    assert not any(MISSING in line and "model." in line for line in lines)
    assert code == 1  # the data sets


@pytest.mark.usefixtures("sound_machine")
def test_downloads_without_space_for_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * 10**8))
    options = ["scale=paper", "model.offline=false"]
    _, lines = ask(capsys, "--cfg-path", PRETRAIN, "--options", *options)
    (told,) = (line for line in lines if "downloads: " in line and "will come" in line)
    assert told.split()[0] == MISSING
    assert "at least" in told  # the size of some is not known before
    assert "300 MB free" in told
    assert told.endswith("set LAVIS_MSMEDCAP_WEIGHTS to another folder")


@pytest.mark.usefixtures("sound_machine")
def test_a_broken_configuration_is_told_and_not_fatal(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["model.branches.sam.encoder=3", "run.max_epohc=3"]
    code, lines = ask(capsys, "--cfg-path", PRETRAIN, "--options", *options)
    assert code == 1
    assert any("max_epohc" in line for line in lines)
    assert any("model.branches.sam.encoder is 3" in line for line in lines)


@pytest.mark.usefixtures("sound_machine")
def test_every_stage_of_a_file_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = ask(capsys, "--cfg-path", ROW)
    assert (code, lines[-1]) == (0, "nothing missing")
    heads = [line for line in lines if line.startswith(ROW)]
    assert heads == [f"{ROW}, stage {stage}:" for stage in ("pretrain", "caption", "evaluate")]
    assert sum("output: " in line for line in lines) == 3


@pytest.mark.usefixtures("sound_machine")
def test_what_several_stages_lack_is_counted_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = ask(capsys, "--cfg-path", ROW, "--options", "scale=paper")
    lacking = [line for line in lines if MISSING in line]
    assert code == 1
    assert len(set(lacking)) < len(lacking)
    assert lines[-1] == f"{len(set(lacking))} missing"
    # what an earlier stage will write is not missing, and no weights file is told twice of a stage
    assert not any("no checkpoint" in line for line in lacking)
    assert sum("model.branches.sam.encoder.weights: " in line for line in lines) == 3


@pytest.mark.usefixtures("sound_machine")
def test_without_a_configuration_the_catalog_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "eva_vit_g.pth").write_bytes(b"")
    code, lines = ask(capsys)
    assert code == 0
    (found,) = (line for line in lines if " eva_vit_g " in line)
    assert found.split()[0] == OK
    (missing,) = (line for line in lines if " sam_vit_h " in line)
    assert missing.split()[0] == NOTE
    assert missing.endswith("msmedcap weights get sam_vit_h")


# --- packages ------------------------------------------------------------------------------------


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What is installed instead of what is here: versions by name, None for an absent package."""
    if not list(importlib.metadata.distributions(name=doctor_packages.DISTRIBUTION)):
        pytest.skip("the package is not installed here, so it has no requirements to read")
    changed: dict[str, str | None] = {}
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = changed.get(name, "") or (None if name in changed else real(name))
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    return changed


def told_of_packages() -> dict[str, Finding]:
    return {finding.text.split()[0]: finding for finding in check_packages()}


def test_packages_are_compared_with_our_own_requirements(versions: dict[str, str | None]) -> None:
    told = told_of_packages()
    assert told["salesforce-lavis"].text == "salesforce-lavis 1.0.2"
    versions |= {"transformers": "4.41.0", "tqdm": None}
    told = told_of_packages()
    assert told["transformers"].status == told["tqdm"].status == MISSING
    assert "pip install 'transformers<4.27,>=4.25'" in told["transformers"].text


NEW = {"transformers": "4.57.6", "numpy": "2.2.1", "torch": "2.6.0"}


def test_an_installation_beside_newer_libraries_is_sound(
    versions: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions |= NEW | {"spacy": None}
    monkeypatch.setattr("platform.python_version", lambda: "3.12.1")
    told = told_of_packages()
    assert [finding for finding in told.values() if finding.status != OK] == []
    assert "requirements/modern.txt" in told["Python"].text
    assert told["transformers"].text == "transformers 4.57.6"


def test_what_an_installation_beside_newer_libraries_lacks(
    versions: dict[str, str | None],
) -> None:
    versions |= NEW | {"requests": None, "timm": "1.0.0", "salesforce-lavis": None}
    told = told_of_packages()
    lacking = {name: found.text for name, found in told.items() if found.status == MISSING}
    assert lacking == {
        "salesforce-lavis": "salesforce-lavis is not installed: pip install --no-deps "
        "--ignore-requires-python 'salesforce-lavis==1.0.2'",
        "requests": "requests is not installed: pip install 'requests'",
        "timm": "timm 1.0.0 does not fit: pip install 'timm==0.4.12'",
    }


def test_one_package_too_new_is_told_as_such(versions: dict[str, str | None]) -> None:
    versions["numpy"] = "2.2.1"  # opencv would break; all else is as LAVIS pins it
    told = told_of_packages()
    assert [name for name, found in told.items() if found.status == MISSING] == ["numpy"]
    assert "pip install 'numpy<2'" in told["numpy"].text


def test_the_list_of_newer_libraries_ships() -> None:
    assert "timm==0.4.12" in modern_lines()


# --- the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("built", "driver", "status", "part"),
    [
        (None, False, NOTE, "enough for scale demo"),
        ("12.1", False, NOTE, "enough for scale demo"),
        (None, True, MISSING, "built without CUDA"),
        ("12.1", True, MISSING, "built for CUDA 12.1, sees no GPU"),
    ],
)
def test_a_gpu_that_cannot_be_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    built: str | None,
    driver: bool,
    status: str,
    part: str,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor_machine, "NVIDIA_DRIVER", tmp_path if driver else tmp_path / "none")
    (finding,) = check_gpu()
    assert finding.status == status
    assert part in finding.text


@pytest.mark.gpu
def test_a_gpu_that_works() -> None:
    assert [finding.status for finding in check_gpu()] == [OK] * torch.cuda.device_count()


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAVIS_MSMEDCAP_WEIGHTS", str(tmp_path / "file" / "weights"))
    told = {finding.text.split(":")[0]: finding for finding in check_disk([tmp_path / "output"])}
    assert told["downloads"].status == MISSING
    assert "set LAVIS_MSMEDCAP_WEIGHTS to another folder" in told["downloads"].text
    assert told["cache"].status != MISSING
    assert "free" in told["output"].text


def test_a_folder_that_only_looks_as_if_it_could_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    told = [finding for finding in check_disk([tmp_path]) if finding.text.startswith("output")]
    assert [finding.status for finding in told] == [MISSING]
    assert "(Disk quota exceeded); set run.output_dir to another folder" in told[0].text


def test_a_torchvision_of_another_torch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(check_torchvision()) == []
    monkeypatch.setitem(
        sys.modules, "torchvision", None
    )  # what `import` then raises is ImportError
    code, lines = ask(capsys, "--cfg-path", PRETRAIN)
    assert code == 1
    assert any("torchvision cannot be imported beside torch" in line for line in lines)


# --- what a configuration needs ------------------------------------------------------------------


@pytest.mark.usefixtures("sound_machine")
def test_the_disk_that_a_run_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, lines = ask(capsys, "--cfg-path", PRETRAIN)
    (told,) = (line for line in lines if "disk for checkpoints and states" in line)
    assert code == 0
    assert told.split()[0] == OK
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    code, lines = ask(capsys, "--cfg-path", PRETRAIN)
    (told,) = (line for line in lines if "disk for checkpoints and states" in line)
    assert code == 1
    assert told.split()[0] == MISSING
    assert "1 kB free" in told
    assert told.endswith("set run.output_dir to another disk, or run.keep_last=1")


@pytest.mark.usefixtures("sound_machine")
def test_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    code, lines = ask(capsys, "--cfg-path", PRETRAIN, "--options", "run.device=cuda")
    assert code == 1
    assert any(MISSING in line and "run.device 'cuda' was asked for" in line for line in lines)


@pytest.mark.usefixtures("sound_machine")
def test_a_compiler_is_looked_for_where_it_is_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert ask(capsys, "--cfg-path", PRETRAIN)[0] == 0
    code, lines = ask(capsys, "--cfg-path", PRETRAIN, "--options", "run.compile=true")
    assert code == 1
    assert any("run.compile needs the compiler no-such-compiler" in line for line in lines)


def test_a_gpu_that_is_too_small() -> None:
    needed = SimpleNamespace(training_total=30e9, inference_total=10e9)
    plan: Any = SimpleNamespace(estimate=lambda: needed, run=SimpleNamespace(trains=True))
    assert _check_gpu_memory(plan, 40 * 2**30).status == OK
    finding = _check_gpu_memory(plan, 24 * 2**30)
    assert finding.status == MISSING
    assert "about 30.0 GB needed, 25.8 GB there" in finding.text
    assert "--gpu-gib 24" in finding.text
    plan.run.trains = False
    assert _check_gpu_memory(plan, 24 * 2**30).status == OK


def test_little_shared_memory_is_told_to_loaders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=64 * 2**20))
    monkeypatch.setattr(doctor_needs, "SHARED_MEMORY", tmp_path)
    (finding,) = check_needs({"run": {"num_workers": 2, "device": "cpu"}}, tmp_path, None)
    assert finding.status == NOTE
    assert "has 64 MiB for the batches of 2 loader processes" in finding.text
    assert list(check_needs({"run": {"device": "cpu"}}, tmp_path, None)) == []
