"""``msmedcap weights list`` and ``msmedcap weights get``: the published weights on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from lavis_msmedcap.common.errors import WeightsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands ``list`` and ``get``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    listing = actions.add_parser("list", help="the catalog, and what of it is on this machine")
    listing.add_argument(
        "--verify", action="store_true", help="read the files found and check their sha256"
    )
    getting = actions.add_parser("get", help="download weights, going on where it stopped")
    getting.add_argument(
        "names", nargs="+", metavar="NAME", help="name of the catalog, or address[#sha256=...]"
    )
    getting.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="folder for them (default: $LAVIS_MSMEDCAP_WEIGHTS, else the cache); as weights/ "
        "beside a run, or under that variable, it is found on another machine as well",
    )


def run(args: argparse.Namespace) -> int:
    """Lists or downloads.

    Returns:
        1 if ``list --verify`` found a file that is not what it should be, else 0.
    """
    if args.action == "get":
        get(args.names, args.to)
        return 0
    return 0 if list_catalog(args.verify) else 1


def get(names: list[str], folder: Path | None = None) -> None:
    """Downloads weights and prints where each of them is.

    Args:
        names: Names of the catalog, or addresses.
        folder: Where they go; by default nothing that is found elsewhere is downloaded again.

    Raises:
        WeightsError: If a name is unknown, before anything is downloaded, if a download failed, or
            what is there is not as large as what is published.
    """
    from lavis_msmedcap.models.weight_files import (
        download_folder,
        entry_of,
        fetch_files,
        find,
        whole,
        wrong_sizes,
    )

    entries = {name: entry_of(name) for name in dict.fromkeys(names)}
    for name, entry in entries.items():
        found = None if folder else find(name, whole(entry))
        if found is None:
            target = (folder or download_folder()).expanduser().absolute()
            fetch_files(entry.files, target)
            found = target / entry.path
        elif wrong := wrong_sizes(name, found):
            raise WeightsError("; ".join(wrong))
        _write(f"{name}: {found}\n")


def list_catalog(verify: bool = False) -> bool:
    """Prints the catalog: name, size, what it is, and where it is found.

    Args:
        verify: Check the sha256 of what is found.

    Returns:
        False if a file is not what it should be.
    """
    from lavis_msmedcap.models.weight_catalog import CATALOG
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.models.weight_files import search_folders, state, wrong_sizes

    _write(f"looked for in {', '.join(map(str, search_folders()))}\n")
    sound = True
    for name, entry in CATALOG.items():
        file = "" if entry.main else f" ({entry.path})"
        _write(f"{name:<22}{show_size(entry.size):>8}  {entry.what}{file}\n")
        found, told = state(name)
        _write(f"{'':<32}{told}\n")
        for line in wrong_sizes(name, found) if found else ():
            sound = False
            _write(f"{'':<32}WRONG {line}\n")
        for line in verification(name, found) if verify and found else ():
            sound = sound and not line.startswith("WRONG")
            _write(f"{'':<32}{line}\n")
    return sound


def verification(name: str, found: Path) -> Iterator[str]:
    """Compares the files of an entry with the published checksum, or the one kept with them.

    Args:
        name: Name of the catalog.
        found: The entry's file or folder.

    Yields:
        One line per file; those of files that differ start with ``WRONG``.
    """
    from lavis_msmedcap.models.weight_download import digest, recorded_sha256
    from lavis_msmedcap.models.weight_files import entry_of

    entry = entry_of(name)
    for file in entry.files:
        path = found / file.name if entry.main else found
        expected = file.sha256 or recorded_sha256(path)
        actual = digest(path)
        if expected is None:
            yield f"{file.name}: sha256 {actual}, nothing to compare it with"
        elif actual == expected:
            yield f"{file.name}: sha256 as {'published' if file.sha256 else 'downloaded'}"
        else:
            yield (
                f"WRONG {file.name}: sha256 {actual}, expected {expected}; delete {path} and run "
                f"msmedcap weights get {name}"
            )


def _write(text: str) -> None:
    sys.stdout.write(text)
