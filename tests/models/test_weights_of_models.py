"""Models built from weights that are named by address or catalog name."""

from __future__ import annotations

import copy
import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from file_server import FileServer
from safetensors.torch import save_file
from torch import Tensor
from two_ranks import run_on_two_ranks

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models import weight_files
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.models.weight_catalog import CatalogEntry, RemoteFile

pytestmark = pytest.mark.usefixtures("empty_places")

Settings = dict[str, Any]


@pytest.fixture
def sam(stage1_settings: Settings, server: FileServer, tmp_path: Path) -> dict[str, Tensor]:
    """Weights of the SAM encoder, on a server and named by address in both stages' settings."""
    model = Blip2DualQformer.from_config(stage1_settings)
    vit = model.branch("sam").encoder.vit
    weights = {f"image_encoder.{name}": value for name, value in vit.state_dict().items()}
    torch.save(weights, tmp_path / "sam.pth")
    server.files["/sam.pth"] = (tmp_path / "sam.pth").read_bytes()
    sha256 = hashlib.sha256(server.files["/sam.pth"]).hexdigest()
    reference = f"{server.url('/sam.pth')}#sha256={sha256}"
    stage1_settings["branches"]["sam"]["encoder"]["weights"] = reference
    return weights


def encoder_equals(model: Any, weights: dict[str, Tensor]) -> bool:
    own = model.branch("sam").encoder.vit.state_dict()
    return all(torch.equal(own[n.removeprefix("image_encoder.")], v) for n, v in weights.items())


def test_weights_by_address_are_downloaded_once(
    stage1_settings: Settings, sam: dict[str, Tensor], server: FileServer, tmp_path: Path
) -> None:
    stage1_settings["offline"] = False
    for _ in range(2):
        torch.manual_seed(len(server.ranges))
        assert encoder_equals(Blip2DualQformer.from_config(stage1_settings), sam)
    assert server.ranges == [None]
    (file,) = (tmp_path / "cache" / "weights").glob("sam-????????.pth")
    assert file.with_name(f"{file.name}.sha256").is_file()


@pytest.mark.parametrize("offline", [{}, {"offline": True}])
def test_offline_is_the_default_and_opens_no_socket(
    stage1_settings: Settings,
    sam: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    offline: Settings,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(ConfigError, match=r"model\.offline=false") as caught:
        Blip2DualQformer.from_config({**stage1_settings, **offline})
    assert len(caught.value.problems) == 1


def test_nothing_is_downloaded_before_all_checks_passed(
    stage1_settings: Settings, sam: dict[str, Tensor], server: FileServer
) -> None:
    stage1_settings["branches"]["clip"]["encoder"]["weights"] = "nowhere.pth"
    with pytest.raises(ConfigError, match=r"nowhere\.pth does not exist"):
        Blip2DualQformer.from_config({**stage1_settings, "offline": False})
    assert server.ranges == []


def test_stage1_by_address(
    stage1_settings: Settings, stage2_settings: Settings, server: FileServer, tmp_path: Path
) -> None:
    stage1 = Blip2DualQformer.from_config(stage1_settings)
    file = tmp_path / "s1.safetensors"
    save_checkpoint(file, stage1.trainable_state_dict(), stage1.checkpoint_metadata())
    server.files["/s1.safetensors"] = file.read_bytes()
    stage2_settings["stage1"] = server.url("/s1.safetensors")
    (problem,) = MSMedCap.missing_inputs(stage2_settings)
    assert problem.startswith("model.stage1: http://127.0.0.1")
    assert MSMedCap.missing_inputs({**stage2_settings, "offline": False}) == []
    model = MSMedCap.from_config({**stage2_settings, "offline": False})
    assert torch.equal(model.query_tokens, stage1.query_tokens)


def test_a_language_model_by_name(
    stage2_settings: Settings, tiny_assets: Path, server: FileServer, monkeypatch: Any
) -> None:
    """A folder of the catalog: the tokenizer needs some of its files, the weights the others."""
    files = []
    for path in sorted((tiny_assets / "opt").iterdir()):
        server.files[f"/opt/{path.name}"] = path.read_bytes()
        files.append(RemoteFile(f"tiny-opt/{path.name}", server.url(f"/opt/{path.name}")))
    entry = CatalogEntry("tiny-opt", "a tiny OPT", tuple(files), "model.safetensors")
    monkeypatch.setitem(weight_files.CATALOG, "tiny-opt", entry)
    llm = {"weights": "tiny-opt", "tokenizer": "tiny-opt"}
    assert len(MSMedCap.missing_inputs({**stage2_settings, "llm": llm})) == 2
    named = MSMedCap.from_config({**stage2_settings, "llm": llm, "offline": False})
    direct = MSMedCap.from_config(stage2_settings)
    assert len(server.ranges) == len(files)
    for name, value in direct.opt_model.state_dict().items():
        assert torch.equal(named.opt_model.state_dict()[name], value)


def test_a_bert_by_name_gives_tokenizer_and_start(
    stage1_settings: Settings, tiny_assets: Path, tmp_path: Path
) -> None:
    """One name serves two keys: the folder for the tokenizer, its main file for the start."""
    folder = tmp_path / "weights" / "bert-base-uncased"
    folder.mkdir(parents=True)
    vocab = tiny_assets / "qformer" / "vocab.txt"
    (folder / "vocab.txt").write_bytes(vocab.read_bytes())
    model = Blip2DualQformer.from_config(stage1_settings)
    keep = ("bert.", "cls.")
    bert = {
        name: value.clone()
        for name, value in model.branch("sam").qformer.state_dict().items()
        if name.startswith(keep) and "crossattention" not in name and "_query" not in name
    }
    save_file(bert, folder / "model.safetensors")
    stage1_settings["qformer"]["tokenizer"] = "bert-base-uncased"
    stage1_settings["branches"]["sam"]["init"] = "bert-base-uncased"
    torch.manual_seed(5)
    started = Blip2DualQformer.from_config(stage1_settings).branch("sam").qformer.state_dict()
    assert all(torch.equal(started[name], value) for name, value in bert.items())


def test_one_rank_downloads_and_the_other_waits(
    stage1_settings: Settings, sam: dict[str, Tensor], server: FileServer, tmp_path: Path
) -> None:
    """What fails on one rank is told by both: none waits for ever."""
    gone = copy.deepcopy(stage1_settings)
    gone["branches"]["sam"]["encoder"]["weights"] = server.url("/gone.pth")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps([{**s, "offline": False} for s in (stage1_settings, gone)]))
    script = Path(__file__).with_name("fetch_on_two_ranks.py")
    run_on_two_ranks(script, file, tmp_path, timeout=100)
    first, second = (json.loads((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert Path(first[0]).read_bytes() == server.files["/sam.pth"]
    assert "answers 404" in first[1]
    assert server.ranges == [None, None]
