from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from data_check_trees import dirty_tree, jpeg_bytes, picture, put

from lavis_msmedcap.data_check import images as images_module
from lavis_msmedcap.data_check import scan as scan_module
from lavis_msmedcap.data_check.cache import FactsCache, stamp_of
from lavis_msmedcap.data_check.images import CRASHED, MISSING, TRUNCATED, examine, file_digest
from lavis_msmedcap.data_check.scan import scan
from lavis_msmedcap.imaging.places import parse_place


def in_memory() -> FactsCache:
    return FactsCache(None)


def tree(root: Path) -> list[str]:
    folder = dirty_tree(root) / "data" / "train" / "radiology" / "images"
    return [*map(str, sorted(folder.iterdir())), str(folder / "not there.jpg")]


def test_workers_do_not_change_what_is_found(tmp_path):
    names = tree(tmp_path)
    alone = scan(names, in_memory(), workers=1)
    assert scan(names, in_memory(), workers=2) == alone
    assert alone[names[-1]].problem == MISSING
    assert alone == {name: examine(name) for name in names}


def test_a_second_scan_looks_only_at_what_changed_or_could_not_be_read(tmp_path, monkeypatch):
    names = tree(tmp_path / "roco")
    path = tmp_path / "cache" / "images.sqlite"
    first = FactsCache(path)
    before = scan(names, first, workers=1)
    first.close()

    looked_at: list[str] = []
    monkeypatch.setattr(
        scan_module, "examine", lambda image, how: looked_at.append(image) or examine(image, how)
    )
    truncated = next(name for name in names if before[name].problem == TRUNCATED)
    put(Path(truncated), jpeg_bytes(picture(5)))
    changed = next(name for name in names if not before[name].problem)
    put(Path(changed), jpeg_bytes(picture(6)))
    unreadable = {name for name in names if before[name].problem not in ("", MISSING)}
    second = FactsCache(path)
    after = scan(names, second, workers=1)
    second.close()
    assert set(looked_at) == {changed, *unreadable}
    assert len(looked_at) == len(set(looked_at))
    assert after[truncated].problem == ""
    assert after[changed] == examine(changed) != before[changed]
    kept = set(names) - {changed, truncated}
    assert all(after[name] == before[name] for name in kept)


def test_facts_of_another_version_are_forgotten(tmp_path, monkeypatch):
    image = put(tmp_path / "a.png", picture(1))
    path = tmp_path / "images.sqlite"
    stamp = stamp_of(str(image))
    assert stamp is not None
    cache = FactsCache(path)
    cache.store([(str(image), stamp, examine(str(image)))])
    assert cache.lookup({str(image): stamp}) == {str(image): examine(str(image))}
    cache.close()
    monkeypatch.setattr("lavis_msmedcap.data_check.cache.FACTS_VERSION", 10**6)
    cache = FactsCache(path)
    assert cache.lookup({str(image): stamp}) == {}
    cache.close()


def test_a_damaged_or_forbidden_cache_stops_nothing(tmp_path, caplog):
    image = str(put(tmp_path / "a.png", picture(1)))
    damaged = put(tmp_path / "images.sqlite", b"not a database " * 100)
    cache = FactsCache(damaged)
    assert scan([image], cache, workers=1)[image].problem == ""
    cache.close()
    assert "is damaged" in caplog.text
    assert sqlite3.connect(damaged).execute("SELECT count(*) FROM images").fetchone() == (1,)
    blocked = FactsCache(damaged / "below a file" / "images.sqlite")
    assert scan([image], blocked, workers=1)[image].problem == ""
    assert "cannot be made" in caplog.text


def test_parts_of_a_file_have_digests_of_their_own(tmp_path):
    content = jpeg_bytes(picture(1))
    whole = str(put(tmp_path / "a.jpg", content))
    archive = str(put(tmp_path / "a.tar", b"\0" * 512 + content + b"\0" * 300))
    member = parse_place(f"{archive}::bytes=512+{len(content)}")
    assert file_digest(member) == file_digest(parse_place(whole))
    frames = {file_digest(parse_place(f"{whole}::frame={n}")) for n in range(3)}
    assert len(frames | {file_digest(parse_place(whole))}) == 4
    assert file_digest(parse_place(f"{archive}::row=1@image")) == b""


# --- processes -----------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from lavis_msmedcap.data_check.cache import FactsCache
from lavis_msmedcap.data_check.scan import scan
from lavis_msmedcap.train import guarded

def main():
    names = sorted(map(str, Path(sys.argv[1]).iterdir()))
    cache = FactsCache(Path(sys.argv[2]))
    for name, facts in scan(names, cache, workers=2).items():
        print(name, facts.problem or "sound", flush=True)

if __name__ == "__main__":
    sys.exit(guarded(main))
"""


def start(
    tmp_path: Path, *paths: Path, site: str = "", program: str = PROGRAM
) -> subprocess.Popen[str]:
    file = put(tmp_path / "program.py", program)
    search = os.pathsep.join(filter(None, [site, *sys.path]))
    return subprocess.Popen(
        [sys.executable, str(file), *map(str, paths)],
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # which a shell in the background has ignored, and a child goes on ignoring
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def many_large_images(folder: Path, count: int) -> Path:
    first = put(folder / "0000.jpg", jpeg_bytes(picture(1, (2400, 2000)), 95))
    for number in range(1, count):
        os.link(first, folder / f"{number:04d}.jpg")
    return folder


def kept(path: Path) -> int:
    if not path.exists():
        return 0
    with contextlib.suppress(sqlite3.OperationalError):
        count: int = sqlite3.connect(path).execute("SELECT count(*) FROM images").fetchone()[0]
        return count
    return 0


def ended(group: int) -> bool:
    """Tells whether all processes of a group end by themselves; ends them if not."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


def test_ctrl_c_leaves_no_process_and_keeps_what_was_done(tmp_path):
    folder = many_large_images(tmp_path / "images", 400)
    path = tmp_path / "images.sqlite"
    process = start(tmp_path, folder, path)
    deadline = time.monotonic() + 60
    while kept(path) == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "of 400 images are done; the same command goes on from there" in errors
    assert 0 < kept(path) < 400
    assert ended(process.pid)


def test_a_killed_check_leaves_no_process(tmp_path):
    folder = many_large_images(tmp_path / "images", 400)
    path = tmp_path / "images.sqlite"
    process = start(tmp_path, folder, path)
    deadline = time.monotonic() + 60
    while kept(path) == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=60)
    assert ended(process.pid)


def test_an_image_that_ends_its_process_is_named(tmp_path):
    folder = tmp_path / "images"
    for number in range(30):
        put(folder / f"{number:02d}.png", picture(number))
    put(folder / "13 deadly.png", picture(13))
    dying = (
        "import os, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('deadly.png'):\n"
        "        os._exit(9)\n"
        "sys.addaudithook(hook)\n"
    )
    put(tmp_path / "site" / "sitecustomize.py", dying)
    process = start(tmp_path, folder, tmp_path / "images.sqlite", site=str(tmp_path / "site"))
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    found = dict(line.rsplit(".png ", 1) for line in output.splitlines())
    assert found.pop(str(folder / "13 deadly")) == CRASHED
    assert len(found) == 30
    assert set(found.values()) == {"sound"}


def test_a_program_without_a_main_part_is_told_so(tmp_path):
    put(tmp_path / "images" / "a.png", picture(1))
    put(tmp_path / "images" / "b.png", picture(2))
    program = PROGRAM.replace('if __name__ == "__main__":\n    ', "")
    process = start(tmp_path, tmp_path / "images", tmp_path / "a.sqlite", program=program)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.splitlines()[-1].endswith("use --workers 1")
    assert output == ""


def test_a_digest_is_not_remembered_over_a_change(tmp_path):
    path = put(tmp_path / "a.png", picture(1))
    first = images_module.file_digest(parse_place(str(path)))
    time.sleep(0.02)
    put(path, picture(2))
    assert images_module.file_digest(parse_place(str(path))) != first
