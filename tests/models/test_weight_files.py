"""References to weights: where they are looked for, what is told when missing, fetching."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models import weight_files
from lavis_msmedcap.models.llm_files import missing_llm_files
from lavis_msmedcap.models.opt import TOKENIZER_NAMES
from lavis_msmedcap.models.weight_catalog import CATALOG, CatalogEntry, RemoteFile
from lavis_msmedcap.models.weight_download import SPARE
from lavis_msmedcap.models.weight_files import (
    Need,
    Part,
    download_folder,
    entry_of,
    fetch,
    find,
    is_remote,
    locate,
    problems,
    search_folders,
)

OPT_WEIGHTS = Part(lacks=missing_llm_files)
VOCAB = Part(names=("vocab.txt",))
URL = "https://example.org/models/w.pth"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The three places, all of them below ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAVIS_MSMEDCAP_WEIGHTS", str(tmp_path / "shared"))
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    return {
        "here": tmp_path / "weights",
        "shared": tmp_path / "shared",
        "cache": tmp_path / "cache" / "weights",
    }


def put(*path: Path | str) -> Path:
    file = Path(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"tensors")
    return file


# --- where ---------------------------------------------------------------------------------------


def test_places_in_order(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_folders() == [folders["here"], folders["shared"], folders["cache"]]
    assert download_folder() == folders["shared"]
    for place in ("cache", "shared", "here"):
        file = put(folders[place], "sam_vit_b_01ec64.pth")
        assert find("sam_vit_b") == file
    monkeypatch.delenv("LAVIS_MSMEDCAP_WEIGHTS")
    assert search_folders() == [folders["here"], folders["cache"]]
    assert download_folder() == folders["cache"]


def test_paths_stay_paths(tmp_path: Path) -> None:
    put(tmp_path, "sam_vit_b")
    assert locate("weights/w.pth") == tmp_path / "weights/w.pth"
    assert locate("./sam_vit_b") == tmp_path / "sam_vit_b"
    assert locate("package:assets/demo/sam.safetensors").is_file()
    assert find("sam_vit_b") is None  # the name of the catalog, not the file beside it
    assert [is_remote(ref) for ref in ("sam_vit_b", URL, "./sam_vit_b", "/w.pth")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_folder_counts_where_it_is_complete(folders: dict[str, Path]) -> None:
    put(folders["here"], "opt-2.7b", "config.json")  # begun
    for name in ("config.json", "pytorch_model.bin"):
        put(folders["cache"], "opt-2.7b", name)
    assert find("opt-2.7b", OPT_WEIGHTS) == folders["cache"] / "opt-2.7b"
    put(folders["here"], "opt-2.7b", "model.safetensors")  # of another format than the catalog's
    assert find("opt-2.7b", OPT_WEIGHTS) == folders["here"] / "opt-2.7b"
    assert find("opt-2.7b", Part(names=TOKENIZER_NAMES)) is None


def test_shards_of_an_index_count(folders: dict[str, Path]) -> None:
    folder = put(folders["here"], "opt-6.7b", "config.json").parent
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "1.bin", "b": "2"}}')
    put(folder, "1.bin")
    assert missing_llm_files(folder) == ["2"]
    put(folder, "2")
    assert find("opt-6.7b", OPT_WEIGHTS) == folder


def test_one_file_of_a_folder_is_its_main_one(folders: dict[str, Path]) -> None:
    put(folders["here"], "bert-base-uncased", "vocab.txt")
    assert find("bert-base-uncased", VOCAB) == folders["here"] / "bert-base-uncased"
    assert find("bert-base-uncased") is None
    file = put(folders["cache"], "bert-base-uncased", "model.safetensors")
    assert find("bert-base-uncased") == file


def test_addresses_have_files_of_their_own() -> None:
    names = [
        entry_of(reference).path
        for reference in (
            URL,
            "https://example.com/models/w.pth",
            f"{URL}#sha256={'a' * 64}",
            f"{URL}#sha256={'B' * 64}",
        )
    ]
    assert len(set(names)) == 4
    assert all(name.startswith("w-") and name.endswith(".pth") for name in names)
    assert names[2:] == ["w-aaaaaaaa.pth", "w-bbbbbbbb.pth"]
    # the address of a file of the catalog is that file
    sam = CATALOG["sam_vit_b"].files[0]
    assert entry_of(sam.url).files == (sam,)
    assert entry_of(f"{sam.url}#sha256={'a' * 64}").path == "sam_vit_b_01ec64-aaaaaaaa.pth"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (f"{URL}#sha256=12", "64 hexadecimal digits"),
        (f"{URL}#md5=12", "64 hexadecimal digits"),
        ("http://example.org/w.pth", "can be altered on its way; use https"),
        ("https://example.org/", "names no file"),
        ("https:///w.pth", "names no file"),
        ("sam_vit_bb", "did you mean sam_vit_b"),
    ],
)
def test_an_address_that_cannot_be_used(reference: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        entry_of(reference)


# --- what is told --------------------------------------------------------------------------------


def needs() -> list[Need]:
    return [
        Need("model.a", "sam_vit_b", "a SAM checkpoint"),
        Need("model.b", URL, "a file"),
        Need("model.c", "nowhere.pth", "a ViT"),
        Need("model.d", "opt-2.7b", "OPT", OPT_WEIGHTS),
        Need("model.e", "http://example.org/w.pth", "a file"),
        Need("model.f", "weights", "OPT", OPT_WEIGHTS),
        Need("model.g", "weights", "a file"),
        Need("model.h", "sam_vitb", "a SAM checkpoint"),
    ]


def test_everything_missing_is_told_at_once(folders: dict[str, Path]) -> None:
    put(folders["here"], "opt-2.7b", "config.json")
    told = problems(needs())
    expected = [
        ("model.a: sam_vit_b (sam_vit_b_01ec64.pth) is in none of", "weights get sam_vit_b`"),
        (f"model.b: {URL} (w-", "model.offline=false"),
        ("model.c: ", "nowhere.pth does not exist; put a ViT there or set model.c to its path"),
        ("model.d: opt-2.7b is incomplete", "lacks model.safetensors (or pytorch_model.bin);"),
        ("model.e: ", "use https"),
        ("model.f: ", "weights lacks config.json, model.safetensors"),
        ("model.g: ", "weights is a folder; put a file there"),
        ("model.h: ", "did you mean sam_vit_b,"),
    ]
    for line, parts in zip(told, expected):
        assert all(part in line for part in parts), line
    assert len(told) == len(expected)
    for folder in folders.values():
        assert str(folder) in told[0]


def test_the_command_of_the_cure_can_be_pasted_into_a_shell() -> None:
    reference = f"https://example.org/w.pth?a=1&b=2#sha256={'a' * 64}"
    (told,) = problems([Need("model.a", reference, "a file")])
    assert f"`msmedcap weights get '{reference}'`" in told


def test_online_what_can_be_downloaded_is_no_problem() -> None:
    told = problems(needs(), offline=False)
    assert [line.split(":")[0] for line in told] == [f"model.{key}" for key in "cefgh"]


def test_what_is_there_is_no_problem(folders: dict[str, Path]) -> None:
    put(folders["shared"], "sam_vit_b_01ec64.pth")
    put(folders["here"], entry_of(URL).path)
    assert problems(needs()[:2]) == []


# --- fetching ------------------------------------------------------------------------------------


@pytest.fixture
def catalog(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """Two entries on a server of this machine: a file, and a folder."""
    files = {"/vit.pth": b"vit" * 1000}
    files.update({f"/bert/{n}": n.encode() for n in ("vocab.txt", "model.safetensors", "a.json")})
    server.files = files

    def remote(path: str, at: str) -> RemoteFile:
        return RemoteFile(
            path, server.url(at), len(files[at]), hashlib.sha256(files[at]).hexdigest()
        )

    folder = tuple(remote(at[1:], at) for at in files if at.startswith("/bert/"))
    entries = [
        CatalogEntry("vit", "a ViT", (remote("vit.pth", "/vit.pth"),)),
        CatalogEntry("bert", "a BERT", folder, "model.safetensors"),
    ]
    monkeypatch.setattr(weight_files, "CATALOG", {entry.name: entry for entry in entries})
    return server


def test_only_what_is_missing_and_wanted_is_fetched(
    catalog: FileServer, folders: dict[str, Path]
) -> None:
    put(folders["cache"], "vit.pth")
    wanted = [Need("a", "vit", ""), Need("b", "bert", "", VOCAB), Need("c", "bert", "")]
    files = fetch(wanted, offline=False)
    names = ["vocab.txt", "model.safetensors"]
    assert files == [folders["shared"] / "bert" / name for name in names]
    assert [path.read_bytes() for path in files] == [name.encode() for name in names]
    assert fetch(wanted, offline=False) == []
    assert len(catalog.ranges) == 2
    assert problems(wanted) == []


def test_a_whole_folder(catalog: FileServer, tmp_path: Path) -> None:
    fetch([Need("a", "bert", "", Part(lacks=lambda path: [] if path.is_dir() else ["all"]))], False)
    found = sorted(
        p.name for p in (tmp_path / "shared" / "bert").glob("*") if p.suffix != ".sha256"
    )
    assert found == ["a.json", "model.safetensors", "vocab.txt"]


def test_an_address_with_its_checksum(server: FileServer, folders: dict[str, Path]) -> None:
    server.files["/w.pth"] = b"tensors"
    reference = f"{server.url('/w.pth')}#sha256={hashlib.sha256(b'tensors').hexdigest()}"
    (file,) = fetch([Need("a", reference, "")], offline=False)
    assert locate(reference) == file
    with pytest.raises(WeightsError, match="altered or damaged"):
        fetch([Need("a", f"{server.url('/w.pth')}#sha256={'a' * 64}", "")], offline=False)


def test_offline_opens_no_socket(catalog: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    wanted = [Need("model.a", "vit", "a ViT"), Need("model.b", "bert", "a BERT", VOCAB)]
    with pytest.raises(WeightsError, match=r"model\.a: vit .* model\.b: bert .*offline=false"):
        fetch(wanted)
    assert len(problems(wanted)) == 2
    with pytest.raises(AssertionError, match="a socket was opened"):  # online would open one
        fetch(wanted, offline=False)


def test_a_disk_too_small_for_all_is_told_before_the_first(
    catalog: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Any = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=SPARE + 3000))
    with pytest.raises(WeightsError, match=r"vit\.pth, vocab\.txt needs"):
        fetch([Need("a", "vit", ""), Need("b", "bert", "", VOCAB)], offline=False)
    assert catalog.ranges == []


# --- the catalog ---------------------------------------------------------------------------------


def test_the_catalog_is_well_formed() -> None:
    urls = [file.url for entry in CATALOG.values() for file in entry.files]
    paths = [file.path for entry in CATALOG.values() for file in entry.files]
    assert len(set(urls)) == len(urls)
    assert len(set(paths)) == len(paths)
    for name, entry in CATALOG.items():
        assert entry.name == name
        for file in entry.files:
            assert file.url.startswith("https://")
            assert file.url.endswith("/" + file.name)
            assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16))
        if entry.main:
            assert f"{name}/{entry.main}" in [file.path for file in entry.files]
            assert all(file.path == f"{name}/{file.name}" for file in entry.files)


def test_the_catalog_agrees_with_lavis() -> None:
    """Its addresses are the ones that LAVIS' own code and configurations name."""
    import lavis

    root = Path(lavis.__file__).parent
    sources = [*root.glob("configs/models/blip2/*.yaml"), root / "models/eva_vit.py"]
    text = "\n".join(path.read_text() for path in [*sources, root / "models/clip_vit.py"])
    ours = [f for e in CATALOG.values() for f in e.files if "/LAVIS/" in f.url]
    assert len(ours) == 4
    assert all(f'"{file.url}"' in text for file in ours)


def test_opt_and_bert_of_the_catalog_are_complete_for_us(folders: dict[str, Path]) -> None:
    for name, entry in CATALOG.items():
        for file in entry.files:
            put(folders["shared"], file.path)
        folder = folders["shared"] / entry.path
        if name.startswith("opt-"):
            index = folder / "pytorch_model.bin.index.json"
            if index.is_file():
                names = [file.name for file in entry.files if "-of-" in file.name]
                index.write_text(json.dumps({"weight_map": dict(enumerate(names))}))
            assert missing_llm_files(folder) == []
            assert find(name, Part(names=TOKENIZER_NAMES)) == folder
    assert find("bert-base-uncased", VOCAB) is not None
