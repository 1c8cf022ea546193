"""Which shards a place names: a tar file, a folder, a glob, or a range in braces."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from lavis_msmedcap.common.errors import DataError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
_MOST_SHARDS = 1_000_000
_SHOWN = 3


def find_shards(place: str, key: str) -> list[Path]:
    """Lists the shards that a place names, all of which exist.

    Args:
        place: ``/data/roco-train-000000.tar``; a folder, of which all tar files are taken; a
            pattern with ``*`` or ``?``; or a list in braces, ``/data/roco-{000000..000099}.tar``
            or ``{train,val}``, of which every one has to be there.
        key: Configuration key that names the place, for the message.

    Returns:
        Sorted by name where the place is a folder or a pattern, else in the order given.

    Raises:
        DataError: If there is none, or one that braces name is missing, or one is compressed.
    """
    path = Path(place)
    if path.is_dir():
        found = sorted(path.glob("*.tar"))
        wanted = f"*.tar in the folder {path}"
    elif "{" in place and not path.exists():
        found = [Path(name) for name in expand_braces(place, key)]
        wanted = place
    elif glob.has_magic(place) and not path.exists():
        found = sorted(map(Path, glob.glob(place)))  # noqa: PTH207 - the pattern may be absolute
        wanted = f"files that match {place}"
    else:
        found, wanted = [path], place
    _check(found, wanted, key)
    return found


def expand_braces(text: str, key: str) -> list[str]:
    """Expands ``{000000..000009}`` and ``{a,b}``, several of them in every combination.

    Args:
        text: A place.
        key: Configuration key that names the place, for the message.

    Raises:
        DataError: If braces do not close, or name more than a million shards.
    """
    match = _BRACES.search(text)
    if match is None:
        if "{" in text or "}" in text:
            raise DataError(f"{key}: {text} has a brace without its other half")
        return [text]
    rests = expand_braces(text[match.end() :], key)
    words = list(_alternatives(match[1], text, key))
    if len(words) * len(rests) > _MOST_SHARDS:
        raise DataError(f"{key}: {text} names more than {_MOST_SHARDS:,} shards")
    return [text[: match.start()] + word + rest for word in words for rest in rests]


def _alternatives(inside: str, text: str, key: str) -> Iterator[str]:
    for part in inside.split(","):
        match = _RANGE.match(part)
        if match is None:
            yield part
            continue
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + _MOST_SHARDS:
            raise DataError(
                f"{key}: the range {{{part}}} of {text} does not work; expected the smaller number "
                f"first, and at most {_MOST_SHARDS:,} of them"
            )
        for number in range(first, last + 1):
            yield f"{number:0{len(match[1])}d}"


def _check(found: list[Path], wanted: str, key: str) -> None:
    packed = [path for path in found if path.name.endswith((".tar.gz", ".tgz", ".tar.bz2"))]
    if packed:
        raise DataError(
            f"{key}: {packed[0]} is compressed, so that no image in it can be read alone; unpack "
            f"it (gunzip {packed[0].name}), the images in it are compressed already"
        )
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        which = ", ".join(str(path) for path in missing[:_SHOWN]) or wanted
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"{key}: no shards at {which}{more}; expected .tar files in the WebDataset convention, "
            "as 'msmedcap data convert --to webdataset' writes them"
        )
    other = [path for path in found if path.suffix != ".tar"]
    if other:
        raise DataError(f"{key}: {other[0]} is no .tar file")
