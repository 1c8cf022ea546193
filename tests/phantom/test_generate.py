from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.phantom import PhantomSizes, ensure_phantom, generate
from lavis_msmedcap.phantom.__main__ import main

SMALL = PhantomSizes(
    coco_train=2, coco_val=1, roco_train=3, roco_validation=1, roco_test=1, medicat=3
)


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first = ensure_phantom(tmp_path / "a", seed=1, sizes=SMALL)
    second = ensure_phantom(tmp_path / "b", seed=1, sizes=SMALL)
    assert digest(first) == digest(second)


def test_another_seed_is_another_set(tmp_path: Path) -> None:
    first = ensure_phantom(tmp_path, seed=1, sizes=SMALL)
    second = ensure_phantom(tmp_path, seed=2, sizes=SMALL)
    assert first != second
    name = "roco/data/train/radiology/images/ROCO_00001.jpg"
    assert (first / name).read_bytes() != (second / name).read_bytes()


def test_growing_keeps_earlier_images(tmp_path: Path) -> None:
    before = digest(ensure_phantom(tmp_path, seed=1, sizes=SMALL))
    larger = replace(SMALL, coco_train=4, roco_train=5, medicat=5)
    after = digest(ensure_phantom(tmp_path, seed=1, sizes=larger))
    pictures = {name: value for name, value in before.items() if name.endswith((".jpg", ".png"))}
    assert len(pictures) >= 11
    assert pictures.items() <= after.items()


def test_second_call_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_phantom(tmp_path, seed=1, sizes=SMALL)
    monkeypatch.setattr(generate, "_build", lambda *_: pytest.fail("built again"))
    assert ensure_phantom(tmp_path, seed=1, sizes=SMALL) == first


def test_two_callers_at_once_share_one_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(ensure_phantom, tmp_path, seed=1, sizes=SMALL) for _ in range(3)]
        folders = {call.result() for call in calls}
    assert len(folders) == 1
    assert list(tmp_path.iterdir()) == list(folders)


def test_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "write_medicat", stop)
    with pytest.raises(KeyboardInterrupt):
        ensure_phantom(tmp_path, seed=1, sizes=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_damaged_set_is_made_again(tmp_path: Path) -> None:
    folder = ensure_phantom(tmp_path, seed=1, sizes=SMALL)
    whole = digest(folder)
    (folder / "phantom.json").unlink()
    (folder / "facts.jsonl").write_text("")
    assert digest(ensure_phantom(tmp_path, seed=1, sizes=SMALL)) == whole
    assert list(tmp_path.iterdir()) == [folder]


def test_only_stale_leftovers_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / ".making-old", tmp_path / ".making-young"
    old.mkdir()
    young.mkdir()
    long_ago = time.time() - 3 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    ensure_phantom(tmp_path, seed=1, sizes=SMALL)
    assert not old.exists()
    assert young.exists()


def test_unwritable_folder_names_the_variable(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(DataError, match="LAVIS_MSMEDCAP_CACHE"):
        ensure_phantom(blocked / "below", sizes=SMALL)


def test_default_place_is_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path))
    folder = ensure_phantom(sizes=SMALL)
    assert folder.parent == tmp_path / "phantom"


def test_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"medicat is -1.*\n.*roco_test is|roco_test is"):
        PhantomSizes(medicat=-1, roco_test=10_001)
    with pytest.raises(ConfigError, match="seed is -1"):
        ensure_phantom(seed=-1)


def test_empty_parts_are_allowed(tmp_path: Path) -> None:
    folder = ensure_phantom(tmp_path, sizes=PhantomSizes(0, 0, 0, 0, 0, 0))
    assert (folder / "facts.jsonl").read_text() == ""
    captions = folder / "roco" / "data" / "test" / "radiology" / "captions.txt"
    assert captions.read_text() == ""


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [
        word
        for name in ("coco-train", "coco-val", "roco-train", "roco-validation", "roco-test")
        for word in (f"--{name}", "1")
    ]
    assert main(["--root", str(tmp_path), "--seed", "4", "--medicat", "1", *sizes]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert (folder / "phantom.json").is_file()
    assert main(["--medicat", "-5"]) == 1
    assert "medicat is -5" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--root" in capsys.readouterr().out


def test_room_needs_neither_torch_nor_lavis() -> None:
    code = (
        "import sys, lavis_msmedcap.phantom; "
        "sys.exit(int(bool({'torch', 'lavis', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
