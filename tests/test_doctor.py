"""``msmedcap doctor``: what is missing, with the cure, and the exit code."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_msmedcap import cli, doctor
from lavis_msmedcap.doctor import MISSING, NOTE, OK, check_disk, check_gpu, check_packages

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"
CAPTION = "projects/msmedcap/caption.yaml"


@pytest.fixture(autouse=True)
def empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAVIS_MSMEDCAP_WEIGHTS", raising=False)


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


def test_packages_are_compared_with_our_own_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    if not list(importlib.metadata.distributions(name=doctor.DISTRIBUTION)):
        pytest.skip("the package is not installed here, so it has no requirements to read")
    told = {finding.text.split()[0]: finding for finding in check_packages()}
    assert told["salesforce-lavis"].text == "salesforce-lavis 1.0.2"
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "tqdm":
            raise importlib.metadata.PackageNotFoundError(name)
        return "4.41.0" if name == "transformers" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    told = {finding.text.split()[0]: finding for finding in check_packages()}
    assert told["transformers"].status == told["tqdm"].status == MISSING
    assert "pip install 'transformers" in told["transformers"].text


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
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path if driver else tmp_path / "none")
    (finding,) = check_gpu()
    assert finding.status == status
    assert part in finding.text


@pytest.mark.gpu
def test_a_gpu_that_works() -> None:
    assert [finding.status for finding in check_gpu()] == [OK] * torch.cuda.device_count()


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAVIS_MSMEDCAP_WEIGHTS", str(tmp_path / "file" / "weights"))
    told = {finding.text.split(":")[0]: finding for finding in check_disk(tmp_path / "output")}
    assert told["downloads"].status == MISSING
    assert "set LAVIS_MSMEDCAP_WEIGHTS to another folder" in told["downloads"].text
    assert told["cache"].status != MISSING
    assert "free" in told["output"].text
