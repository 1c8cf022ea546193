"""Wheel and editable installation, each in a throw-away environment that borrows heavy packages.

Nothing is downloaded: a `.pth` file adds links to the packages of the running interpreter, all but
an installed copy of this package. The checkout is copied first, so that no build writes into it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.install]

ROOT = Path(__file__).resolve().parent.parent
HOOK = "lavis_msmedcap.pth"
PIP = ("-m", "pip", "--disable-pip-version-check")
BUILD = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
FINDER_IN_PLACE = "import sys; print(type(sys.meta_path[0]).__name__)"


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        python: Its interpreter.
        site_packages: Where it installs to.
        outside: A working directory from which the checkout cannot be imported.
    """

    python: Path
    site_packages: Path
    outside: Path

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run(self.python, *arguments, cwd=self.outside, **variables)

    def output(self, *arguments: str, **variables: str) -> str:
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def ours(self) -> list[str]:
        """Names of this package's entries among the installed ones."""
        return sorted(path.name for path in self.site_packages.glob("*lavis_msmedcap*"))


def run(
    program: Path, *arguments: str, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environ.pop("LAVIS_MSMEDCAP_AUTOLOAD", None)
    return subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env={**environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that the distribution is built from."""
    target = tmp_path_factory.mktemp("source") / "checkout"
    target.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, target)
    for folder in ("lavis_msmedcap", "projects"):
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


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to all installed packages but this one."""
    folder = tmp_path_factory.mktemp("borrowed")
    for place in (Path(entry) for entry in sys.path):
        if place.name in ("site-packages", "dist-packages"):
            for path in place.iterdir():
                link = folder / path.name
                if "lavis_msmedcap" not in path.name and not link.exists():
                    link.symlink_to(path)
    return folder


def make_environment(folder: Path, borrowed: Path) -> Environment:
    done = run(
        Path(sys.executable), "-m", "venv", "--without-pip", str(folder / "venv"), cwd=folder
    )
    assert done.returncode == 0, done.stderr
    python = folder / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(run(python, "-c", where, cwd=folder).stdout.strip())
    (site_packages / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    environment = Environment(python, site_packages, folder)
    assert environment.output("-c", FINDER_IN_PLACE) != "PluginFinder"
    return environment


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
    for folder, inside in (("lavis_msmedcap", ""), ("projects", "lavis_msmedcap/")):
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


def test_the_hook_costs_less_than_a_millisecond(installed: Environment) -> None:
    installed.run("-c", "pass")  # compiles the files once
    reports = [installed.run("-X", "importtime", "-c", "pass").stderr for _ in range(10)]
    # The best of ten: whatever else runs on this machine can only add to the cost of the hook.
    assert min(hook_microseconds(report) for report in reports) < 1000


def hook_microseconds(report: str) -> int:
    """Reads the cumulative time of this package from what ``-X importtime`` prints."""
    rows = [line.split("|") for line in report.splitlines()]
    (time,) = [row[1] for row in rows if row[-1].strip() == "lavis_msmedcap"]
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


def test_run_configurations_are_found_from_anywhere(installed: Environment) -> None:
    code = (
        "from lavis_msmedcap.run_sources import packaged_configs\n"
        "for name, path in packaged_configs().items(): print(name, path.is_file())"
    )
    expected = [
        f"{path.relative_to(ROOT).as_posix()} True"
        for path in (ROOT / "projects" / "msmedcap").rglob("*.yaml")
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
