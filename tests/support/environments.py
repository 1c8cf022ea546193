"""Throw-away virtual environments that borrow heavy packages, and ways to run things in them.

Nothing is downloaded: a `.pth` file adds links to the packages of the running interpreter, all but
an installed copy of this package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = "lavis_msmedcap"
HOOK = f"{PACKAGE}.pth"
FINDER_IN_PLACE = "import sys; print(type(sys.meta_path[0]).__name__)"
TIMEOUT = 300  # seconds


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

    def run(
        self, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return run(self.python, *arguments, cwd=cwd or self.outside, **variables)

    def output(self, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
        done = self.run(*arguments, cwd=cwd, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def ours(self) -> list[str]:
        """Names of this package's entries among the installed ones."""
        return sorted(path.name for path in self.site_packages.glob(f"*{PACKAGE}*"))


def run(
    program: Path, *arguments: str, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program as a user would: nothing of this process' Python settings is passed on."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environ.pop("LAVIS_MSMEDCAP_AUTOLOAD", None)
    return subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env={**environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


def make_environment(folder: Path, borrowed: Path) -> Environment:
    """Makes an environment that has all packages but this one."""
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


@pytest.fixture(scope="session")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to all installed packages but this one."""
    folder = tmp_path_factory.mktemp("borrowed")
    for place in (Path(entry) for entry in sys.path):
        if place.name in ("site-packages", "dist-packages"):
            for path in place.iterdir():
                link = folder / path.name
                if PACKAGE not in path.name and not link.exists():
                    link.symlink_to(path)
    return folder


@pytest.fixture(scope="session")
def plugged_in(borrowed: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which the checkout is active as after ``pip install -e .``.

    Without pip: the hook that every start of Python runs is put in place by hand. What pip makes of
    it is the business of ``test_install.py``.
    """
    environment = make_environment(tmp_path_factory.mktemp("plugged_in"), borrowed)
    (environment.site_packages / "checkout.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    shutil.copy(ROOT / HOOK, environment.site_packages)
    assert environment.output("-c", FINDER_IN_PLACE) == "PluginFinder"
    return environment
