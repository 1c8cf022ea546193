"""``msmedcap doctor``: what is missing, with the cure, and the exit code."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_msmedcap import cli, doctor, doctor_machine, doctor_packages
from lavis_msmedcap.doctor_findings import MISSING, NOTE, OK, Finding
from lavis_msmedcap.doctor_machine import check_disk, check_gpu
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
