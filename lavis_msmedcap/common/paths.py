"""Where things are: packaged files, the user's cache, and paths written in a configuration."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
PACKAGE_PREFIX = "package:"


def package_path(relative: str) -> Path:
    """Returns the absolute path of a file that is installed with the package.

    LAVIS joins configuration paths onto its own folder; an absolute path passes through that join
    unchanged, which is what lets a plugin keep its YAML files beside its code.

    Args:
        relative: Path below ``lavis_msmedcap/``, for example ``configs/models/msmedcap_demo.yaml``.
    """
    return PACKAGE_ROOT / relative


def resolve_path(value: str | os.PathLike[str]) -> Path:
    """Resolves a path as users write it in YAML.

    ``package:assets/demo/x`` is a file of this package, ``~`` and ``$VAR`` are expanded, anything
    else is relative to the current directory. The file need not exist.
    """
    text = os.fspath(value)
    if text.startswith(PACKAGE_PREFIX):
        return package_path(text[len(PACKAGE_PREFIX) :])
    return Path(os.path.expandvars(text)).expanduser().absolute()


def cache_root() -> Path:
    """Returns the folder for generated and downloaded data; it is created on first use by writers.

    ``$LAVIS_MSMEDCAP_CACHE`` wins, then ``$XDG_CACHE_HOME/lavis_msmedcap``, then
    ``~/.cache/lavis_msmedcap``.
    """
    explicit = os.environ.get("LAVIS_MSMEDCAP_CACHE")
    if explicit:
        return Path(explicit).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base).expanduser() if base else Path.home() / ".cache"
    return home.absolute() / "lavis_msmedcap"
