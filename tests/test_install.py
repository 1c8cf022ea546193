"""Wheel and editable installation, each in a throw-away environment that borrows heavy packages.

Nothing is downloaded (see `environments`). The checkout is copied first, so that no build writes
into it.
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from environments import FINDER_IN_PLACE, HOOK, PACKAGE, ROOT, Environment, make_environment, run
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.install]

PIP = ("-m", "pip", "--disable-pip-version-check")
BUILD = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
SMALL = ("run.max_epoch=1", "run.samples_per_epoch=64", "run.max_eval_samples=4")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that the distribution is built from."""
    target = tmp_path_factory.mktemp("source") / "checkout"
    target.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, target)
    for folder in ("lavis_msmedcap", "projects", "requirements"):
        shutil.copytree(
            ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    return target


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(checkout, tmp_path_factory.mktemp("wheel"))


def build_wheel(source: Path, target: Path) -> Path:
    # Not the copy itself: a build leaves its folders behind, which the next one would pick up.
    built = target / "copy"
    shutil.copytree(source, built)
    done = run(
        Path(sys.executable), *PIP, "wheel", *BUILD, "-w", str(target), str(built), cwd=target
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = target.glob("*.whl")
    return path


def install(environment: Environment, mode: str, wheel: Path, checkout: Path) -> None:
    what = [str(wheel)] if mode == "wheel" else ["--editable", str(checkout)]
    environment.output(*PIP, "install", *BUILD, *what)


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest,
    wheel: Path,
    checkout: Path,
    borrowed: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Environment:
    environment = make_environment(tmp_path_factory.mktemp(request.param), borrowed)
    install(environment, request.param, wheel, checkout)
    return environment


def test_the_wheel_holds_all_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {HOOK, "lavis_msmedcap/py.typed"}
    inside_of = {"lavis_msmedcap": "", "projects": f"{PACKAGE}/", "requirements": f"{PACKAGE}/"}
    for folder, inside in inside_of.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(inside + path.relative_to(ROOT).as_posix())
    assert sorted(expected - names) == []
    others = {name for name in names - expected if ".dist-info/" not in name}
    assert sorted(others) == []


def test_a_source_distribution_gives_the_same_wheel(
    wheel: Path, checkout: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(checkout, source)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    done = run(Path(sys.executable), "-c", build, cwd=source)
    assert done.returncode == 0, done.stderr
    with tarfile.open(source / "dist" / done.stdout.splitlines()[-1]) as archive:
        archive.extractall(tmp_path)
    again = build_wheel(tmp_path / "lavis_msmedcap-0.1.0", tmp_path)
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_the_hook_is_in_place_in_every_interpreter(installed: Environment) -> None:
    assert HOOK in installed.ours()
    assert installed.output("-c", FINDER_IN_PLACE) == "PluginFinder"


def test_the_hook_can_be_switched_off(installed: Environment) -> None:
    code = "import sys; print([name for name in sys.modules if name.startswith('lavis')])"
    assert "lavis_msmedcap" in installed.output("-c", code)
    assert installed.output("-c", code, LAVIS_MSMEDCAP_AUTOLOAD="0") == "[]"


def test_the_hook_costs_less_than_the_first_import_of_python(installed: Environment) -> None:
    """Python's own ``encodings`` are the measure: a busy machine slows both alike."""
    installed.run("-c", "pass")  # compiles the files once
    reports = [installed.run("-X", "importtime", "-c", "pass").stderr for _ in range(10)]
    shares = [
        microseconds(report, "lavis_msmedcap") / microseconds(report, "encodings")
        for report in reports
    ]
    # The best of ten: whatever else runs on this machine can only add to the cost of the hook.
    assert min(shares) < 1


def microseconds(report: str, module: str) -> int:
    """Reads the cumulative time of a module from what ``-X importtime`` prints."""
    rows = [line.split("|") for line in report.splitlines()]
    (time,) = [row[1] for row in rows if row[-1].strip() == module]
    return int(time)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_the_commands_run(installed: Environment, command: str) -> None:
    assert "--cfg-path" in installed.output("-m", f"lavis.{command}", "--help")


def test_the_console_script_runs(installed: Environment) -> None:
    done = run(installed.python.with_name("msmedcap"), "--help", cwd=installed.outside)
    assert done.returncode == 0, done.stderr
    assert "usage: msmedcap" in done.stdout


def test_stock_lavis_lists_the_models(installed: Environment) -> None:
    code = "from lavis.models import model_zoo; print(model_zoo)"
    done = installed.run("-W", "error::RuntimeWarning", "-c", code)
    assert done.returncode == 0, done.stderr
    for name in ("blip2_dual_qformer", "msmedcap"):
        assert f"\n{name} " in done.stdout


# --- the uses that LAVIS' users know, none of which names this package -------------------------


def test_stock_lavis_trains_from_a_packaged_configuration(
    installed: Environment, tmp_path: Path
) -> None:
    config = "projects/msmedcap/pretrain_mixed.yaml"
    assert not (tmp_path / config).exists()
    arguments = ("-m", "lavis.train", "--cfg-path", config, "--options", *SMALL)
    installed.output(*arguments, cwd=tmp_path)
    (run_directory,) = (tmp_path / "output" / "msmedcap" / "pretrain_mixed").iterdir()
    assert (run_directory / "checkpoint_best.safetensors").stat().st_size > 0


def test_stock_lavis_loads_the_captioner_by_name(installed: Environment) -> None:
    code = (
        "from lavis.models import load_model_and_preprocess\n"
        'model, vis, txt = load_model_and_preprocess("msmedcap")\n'
        "print(type(model).__module__, type(vis['eval']).__name__, type(txt['eval']).__name__)"
    )
    assert installed.output("-c", code).splitlines()[-1] == (
        "lavis_msmedcap.models.msmedcap MSMedCapImageEvalProcessor MSMedCapCaptionProcessor"
    )


def test_the_snippet_of_the_readme_runs(installed: Environment, tmp_path: Path) -> None:
    Image.effect_noise((90, 70), 60).save(tmp_path / "image.png")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (snippet,) = (block for block in blocks if "image.png" in block)
    assert "lavis_msmedcap" not in snippet
    first = next(line for line in snippet.splitlines() if line.startswith("model.generate("))
    code = f"{snippet}\ncaption, = {first}\nprint('caption:', caption)"
    caption = installed.output("-c", code, cwd=tmp_path).splitlines()[-1]
    assert len(caption.removeprefix("caption:").split()) > 1


def test_run_configurations_are_found_from_anywhere(installed: Environment) -> None:
    code = (
        "from lavis_msmedcap.run_sources import packaged_configs\n"
        "for name, path in packaged_configs().items(): print(name, path.is_file())"
    )
    expected = [
        f"{path.relative_to(ROOT).as_posix()} True"
        for path in (ROOT / "projects" / "msmedcap").rglob("*.yaml")
        if not path.name.startswith("_")  # a base of others
    ]
    assert sorted(installed.output("-c", code).splitlines()) == sorted(expected)


@pytest.mark.parametrize("mode", ["wheel", "editable"])
def test_uninstalling_leaves_nothing(
    mode: str, wheel: Path, checkout: Path, borrowed: Path, tmp_path: Path
) -> None:
    environment = make_environment(tmp_path, borrowed)
    install(environment, mode, wheel, checkout)
    assert HOOK in environment.ours()
    environment.output(*PIP, "uninstall", "--yes", "lavis-msmedcap")
    assert environment.ours() == []
    assert environment.output("-c", FINDER_IN_PLACE) != "PluginFinder"
