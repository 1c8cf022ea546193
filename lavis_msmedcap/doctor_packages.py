"""Python and the installed packages, compared with what this package requires.

There are two ways to install it: with the versions that LAVIS pins (``pip install .``; they stand
in the package's metadata), and beside newer ones (``requirements/modern.txt``). An installation is
judged by the way that its versions fit better; what is absent says nothing of the way.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from lavis_msmedcap.common.paths import PACKAGE_ROOT
from lavis_msmedcap.doctor_findings import MISSING, NOTE, OK, Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "lavis-msmedcap"
HOST = "salesforce-lavis"
MODERN = "requirements/modern.txt"
SHOWN_PACKAGES = (HOST, "torch", "torchvision", "transformers", "segment-anything")


def check_packages() -> Iterator[Finding]:
    """Tells what of Python and the packages fits, by the way of installing that fits better."""
    try:
        own = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Finding(NOTE, f"{DISTRIBUTION} is not installed; its requirements are not checked")
        return
    python = own.metadata["Requires-Python"] or ""
    pinned = _applicable(own.requires or ())
    host = [requirement for requirement in pinned if requirement.name == HOST]
    modern = _applicable(modern_lines())
    newer_python = ",".join(part for part in python.split(",") if "<" not in part)
    # of two that fit equally badly, what `pip install .` makes
    if _misfits(newer_python, modern) < _misfits(python, pinned):
        yield _check_python(newer_python, f", beside newer libraries as in {MODERN}")
        yield from _check_all(host, "pip install --no-deps --ignore-requires-python")
        yield from _check_all(modern, "pip install")
    else:
        yield _check_python(python)
        yield from _check_all(pinned, "pip install")


def modern_lines() -> list[str]:
    """Returns the requirements of an installation beside newer libraries, one a line.

    A wheel has the file inside the package, a checkout and an editable install beside it.
    """
    places = (root / MODERN for root in (PACKAGE_ROOT, PACKAGE_ROOT.parent))
    text = next(path for path in places if path.is_file()).read_text(encoding="utf-8")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _applicable(lines: Iterable[str]) -> list[Requirement]:
    """Reads requirements; those of extras and of other Pythons are left out."""
    from packaging.requirements import Requirement

    read = [Requirement(line) for line in lines]
    return [one for one in read if one.marker is None or one.marker.evaluate({"extra": ""})]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(version, prereleases=True)


def _misfits(python: str, requirements: Iterable[Requirement]) -> int:
    """Counts what is there in another version than required, Python included."""
    versions = [(one, _installed(one.name)) for one in requirements]
    others = [one.name for one, version in versions if version and not _fits(one, version)]
    return len(others) + (_check_python(python).status != OK)


def _check_python(wanted: str, way: str = "") -> Finding:
    from packaging.specifiers import SpecifierSet

    python = platform.python_version()
    if python in SpecifierSet(wanted):
        return Finding(OK, f"Python {python}{way}")
    text = f"Python {python}; {DISTRIBUTION} needs {wanted}: make an environment of it"
    return Finding(MISSING, text)


def _check_all(requirements: Iterable[Requirement], install: str) -> Iterator[Finding]:
    for requirement in requirements:
        name, version = requirement.name, _installed(requirement.name)
        cure = f"{install} '{name}{requirement.specifier}'"
        if version is None:
            yield Finding(MISSING, f"{name} is not installed: {cure}")
        elif not _fits(requirement, version):
            yield Finding(MISSING, f"{name} {version} does not fit: {cure}")
        elif name in SHOWN_PACKAGES:
            yield Finding(OK, f"{name} {version}")
