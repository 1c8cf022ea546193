"""Places of data sets as a configuration names them, the embedded data among them.

A place is an absolute path, a path relative to the current directory or else to a cache folder, or
``phantom:<folder>`` for a folder of the embedded data, which are made on first use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_msmedcap import phantom
from lavis_msmedcap.common.distributed import barrier, is_main_process
from lavis_msmedcap.common.paths import resolve_path

PHANTOM_PREFIX = "phantom:"
_FURTHER = ("rocov2", "table")  # folders of the second set


def find_place(value: str, cache: Path) -> Path:
    """Turns a place into a path; makes the embedded data if they are named and not there.

    Args:
        value: The place.
        cache: Folder below which a relative path is looked for last.

    Returns:
        An absolute path, which need not exist.
    """
    if is_phantom(value):
        name = value[len(PHANTOM_PREFIX) :]
        return _phantom_set(name) / name
    here = resolve_path(value)
    cached = cache / value  # the value itself, if it is absolute
    return cached if cached.exists() and not here.exists() else here


def is_phantom(node: Any) -> bool:
    """Tells whether a place, or any place below a configuration node, is in the embedded data."""
    if isinstance(node, Mapping):
        return any(map(is_phantom, node.values()))
    if isinstance(node, list):
        return any(map(is_phantom, node))
    return isinstance(node, str) and node.startswith(PHANTOM_PREFIX)


def make_phantom(node: Any) -> None:
    """Lets the first process make the embedded data that a node names while the others wait."""
    if is_main_process():
        for name in _phantom_names(node):
            _phantom_set(name)
    barrier()


def _phantom_set(name: str) -> Path:
    """Returns the set of embedded data that a folder is in; makes it if it is not there."""
    if name.split("/")[0] in _FURTHER:
        return Path(phantom.ensure_phantom(sizes=phantom.FURTHER))
    return Path(phantom.ensure_phantom())


def _phantom_names(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _phantom_names(inner)
    elif is_phantom(node):
        yield node[len(PHANTOM_PREFIX) :]
