"""Weights as a configuration names them: a local path, an address, or a short name of the catalog.

    sam_vit_b                            entry of the catalog (`weight_catalog`)
    https://host/file.pth#sha256=<hex>   file on a server, with or without its checksum
    weights/file.pth, package:assets/x   local path; ./sam_vit_b is a path, sam_vit_b is not

What the first two mean is looked for below ``weights/`` of the current directory, then below
``$LAVIS_MSMEDCAP_WEIGHTS``, then below ``weights/`` of the cache. Nothing here uses the network but
`fetch`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from lavis_msmedcap.common.config_check import nearest
from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.common.paths import cache_root, resolve_path
from lavis_msmedcap.models.weight_catalog import CATALOG, CatalogEntry, RemoteFile
from lavis_msmedcap.models.weight_download import download, require_space

FOLDER_VARIABLE = "LAVIS_MSMEDCAP_WEIGHTS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Part:
    """What is wanted of a reference that may be a folder.

    Attributes:
        names: Files of the folder; empty means all of them, or one file (see ``lacks``).
        lacks: Lists what a place lacks, empty if it will do. By default the ``names``; without
            those the place has to be a file, which in a folder of the catalog is its main one.
    """

    names: tuple[str, ...] = ()
    lacks: Callable[[Path], list[str]] | None = None

    @property
    def is_file(self) -> bool:
        """Whether one file is wanted."""
        return not self.names and self.lacks is None

    def missing_from(self, path: Path) -> list[str]:
        """Lists what a place lacks."""
        if self.lacks is not None:
            return self.lacks(path)
        if self.names:
            return [name for name in self.names if not (path / name).is_file()]
        return [] if path.is_file() else [path.name]


ONE_FILE = Part()


@dataclass(frozen=True)
class Need:
    """Weights that a configuration needs.

    Attributes:
        key: The key that names them, ``model.llm.weights`` for example.
        reference: The key's value.
        what: What belongs there, for messages.
        part: What is wanted of it.
    """

    key: str
    reference: str
    what: str
    part: Part = ONE_FILE


def is_url(reference: str) -> bool:
    """Tells whether a reference is an address."""
    return bool(re.match(r"(?i)https?://", reference))


def is_remote(reference: str) -> bool:
    """Tells whether a reference can be downloaded."""
    return reference in CATALOG or is_url(reference)


def search_folders() -> list[Path]:
    """Returns the weights folders in the order in which they are searched; some may not exist."""
    explicit = os.environ.get(FOLDER_VARIABLE)
    folders = [Path("weights").absolute(), cache_root() / "weights"]
    if explicit:
        folders.insert(1, Path(explicit).expanduser().absolute())
    return list(dict.fromkeys(folders))


def download_folder() -> Path:
    """Returns the folder that downloads go to: ``$LAVIS_MSMEDCAP_WEIGHTS``, else the cache's."""
    explicit = os.environ.get(FOLDER_VARIABLE)
    return Path(explicit).expanduser().absolute() if explicit else cache_root() / "weights"


def entry_of(reference: str) -> CatalogEntry:
    """Returns the files behind a name of the catalog or an address.

    Raises:
        WeightsError: If it is neither, or an address that cannot be used.
    """
    if reference in CATALOG:
        return CATALOG[reference]
    if not is_url(reference):
        near = nearest(reference, CATALOG)
        hint = f"did you mean {near}?" if near else f"known: {', '.join(CATALOG)}"
        raise WeightsError(f"{reference!r} is no address and no name of the catalog; {hint}")
    return _entry_of_url(reference)


def _entry_of_url(reference: str) -> CatalogEntry:
    """Gives an address a file name of its own: two servers may call different files alike."""
    url, _, fragment = reference.partition("#")
    sha256 = None
    if fragment:
        told = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
        if not told:
            raise WeightsError(
                f"{url}#{fragment}: expected #sha256= and 64 hexadecimal digits behind the address"
            )
        sha256 = told[1].lower()
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and not sha256:
        raise WeightsError(
            f"{url}: what comes over http can be altered on its way; use https, or add #sha256="
        )
    published = [file for entry in CATALOG.values() for file in entry.files if file.url == url]
    if published and sha256 in (None, published[0].sha256):
        return CatalogEntry(reference, "a published file", (published[0],))
    name = PurePosixPath(unquote(parts.path))
    if not parts.hostname or name.name in ("", ".."):
        raise WeightsError(f"{url} names no file; expected the address of a file")
    # with a checksum the content decides, so that another one is another file
    mark = (sha256 or hashlib.sha256(url.encode()).hexdigest())[:8]
    path = f"{name.stem}-{mark}{name.suffix}"
    return CatalogEntry(reference, "a file by address", (RemoteFile(path, url, None, sha256),))


def places(reference: str, part: Part = ONE_FILE) -> list[Path]:
    """Returns where a reference may be on this machine, the preferred place first."""
    if not is_remote(reference):
        return [resolve_path(reference)]
    entry = entry_of(reference)
    path = f"{entry.path}/{entry.main}" if entry.main and part.is_file else entry.path
    return [folder / path for folder in search_folders()]


def find(reference: str, part: Part = ONE_FILE) -> Path | None:
    """Returns the first place that has all that is wanted, None if none has."""
    return next((path for path in places(reference, part) if not part.missing_from(path)), None)


def locate(reference: str, part: Part = ONE_FILE) -> Path:
    """Returns where weights are, or, if they are nowhere, where they should be.

    Args:
        reference: Local path, address, or name of the catalog.
        part: What is wanted of it.
    """
    return find(reference, part) or places(reference, part)[0]


def whole(entry: CatalogEntry) -> Part:
    """Returns all of an entry as a `Part`."""
    return Part(names=tuple(file.name for file in entry.files)) if entry.main else ONE_FILE


def state(reference: str, part: Part | None = None) -> tuple[Path | None, str]:
    """Says where weights are, or what is missing.

    Args:
        reference: Local path, address, or name of the catalog.
        part: What is wanted of it; by default all.

    Returns:
        The place, None if it is nowhere; and a phrase for people.

    Raises:
        WeightsError: If the reference is an address that cannot be used.
    """
    if part is None:
        part = whole(entry_of(reference)) if is_remote(reference) else ONE_FILE
    found = find(reference, part)
    if found is not None:
        return found, f"found: {found}"
    begun = next((path for path in places(reference, part) if path.is_dir()), None)
    if begun is not None and not part.is_file:
        return None, f"incomplete: {begun} lacks {', '.join(part.missing_from(begun))}"
    return None, "missing"


def wrong_sizes(reference: str, found: Path) -> list[str]:
    """Lists what is not as large as the published file: half a copy, or something else.

    Args:
        reference: Name of the catalog or address; of other paths nothing is known.
        found: Where it is, from `find`.

    Returns:
        One sentence per file, with the cure.
    """
    if not is_remote(reference):
        return []
    entry, wrong = entry_of(reference), []
    for file in entry.files:
        path = found / file.name if found.is_dir() else found
        if file.size is None or path.name != file.name or not path.is_file():
            continue
        size = path.stat().st_size
        if size != file.size:
            wrong.append(
                f"{path} has {size:,} bytes, the published file {file.size:,}; delete it and run "
                f"msmedcap weights get {shlex.quote(reference)}"
            )
    return wrong


def problems(needs: Iterable[Need], offline: bool = True) -> list[str]:
    """Lists all weights that are missing, each with the cure.

    Args:
        needs: Everything that a configuration needs.
        offline: Whether downloads are forbidden. If not, what `fetch` can get is no problem.
    """
    return [line for need in needs for line in _problem(need, offline)]


def _problem(need: Need, offline: bool) -> list[str]:
    try:
        found = find(need.reference, need.part)
    except WeightsError as error:  # an address that cannot be used
        return [f"{need.key}: {error}"]
    if found is not None:
        return []
    if not is_remote(need.reference):
        return [_missing_path(need)]
    if not offline:
        return []
    return [f"{need.key}: {_missing_remote(need)}; {cure(need.reference)}"]


def cure(reference: str) -> str:
    """Says how to get weights that are not on this machine."""
    command = f"msmedcap weights get {shlex.quote(reference)}"
    return f"`{command}` downloads it on a connected machine, or set model.offline=false"


def _missing_path(need: Need) -> str:
    path = resolve_path(need.reference)
    near = nearest(need.reference, CATALOG, likeness=0.8)
    hint = f" (or did you mean {near}, of `msmedcap weights list`?)" if near else ""
    if path.is_dir() and not need.part.is_file:
        lacks = f"{path} lacks {', '.join(need.part.missing_from(path))}"
    else:
        lacks = f"{path} is a folder" if path.is_dir() else f"{path} does not exist"
    return f"{need.key}: {lacks}; put {need.what} there or set {need.key} to its path{hint}"


def _missing_remote(need: Need) -> str:
    candidates = places(need.reference, need.part)
    begun = [path for path in candidates if path.is_dir()]
    if begun:
        lacks = ", ".join(need.part.missing_from(begun[0]))
        return f"{need.reference} is incomplete: {begun[0]} lacks {lacks}"
    path = candidates[0].relative_to(search_folders()[0]).as_posix()
    file = "" if path == need.reference else f" ({path})"
    folders = ", ".join(str(folder) for folder in search_folders())
    return f"{need.reference}{file} is in none of {folders}"


def fetch(needs: Iterable[Need], offline: bool = True, folder: Path | None = None) -> list[Path]:
    """Downloads what is missing of some weights and can be downloaded.

    Args:
        needs: Weights that are wanted; what is there already is left alone.
        offline: Refuses to use the network.
        folder: Where downloads go; `download_folder` by default.

    Returns:
        The files that were downloaded.

    Raises:
        WeightsError: Offline, or as `weight_download.download`.
    """
    missing = [need for need in needs if is_remote(need.reference)]
    missing = [need for need in missing if find(need.reference, need.part) is None]
    if offline and missing:
        raise WeightsError("; ".join(problems(missing, offline=True)))
    wanted = [file for need in missing for file in _files(need)]
    return fetch_files(dict.fromkeys(wanted), folder or download_folder())


def fetch_files(files: Iterable[RemoteFile], folder: Path) -> list[Path]:
    """Downloads files into a weights folder, except those that are there.

    Returns:
        The files that were downloaded.

    Raises:
        WeightsError: As `weight_download.download`; before the first one if the disk is too small
            for all whose size is known.
    """
    absent = [file for file in files if not (folder / file.path).is_file()]
    if absent:
        names = ", ".join(file.name for file in absent)
        require_space(folder, sum(file.size or 0 for file in absent), names)
    for file in absent:
        download(file, folder / file.path)
    return [folder / file.path for file in absent]


def _files(need: Need) -> Sequence[RemoteFile]:
    """Returns the files of a reference that are wanted."""
    entry = entry_of(need.reference)
    if not entry.main:
        return entry.files
    if need.part.is_file:
        return [file for file in entry.files if file.name == entry.main]
    return [file for file in entry.files if not need.part.names or file.name in need.part.names]
