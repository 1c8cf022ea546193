"""What earlier checks found out about images, kept in one small file of the cache folder."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import PIL

import lavis_msmedcap
from lavis_msmedcap.common.paths import cache_root
from lavis_msmedcap.data_check.images import FACTS_VERSION, ImageFacts
from lavis_msmedcap.imaging.places import parse_place
from lavis_msmedcap.imaging.read import DEFAULTS, ReadOptions

logger = logging.getLogger(__name__)

_COLUMNS = ", ".join(("place", "size", "changed", *ImageFacts._fields))
_TABLE = f"CREATE TABLE IF NOT EXISTS images ({_COLUMNS}, PRIMARY KEY (place)) WITHOUT ROWID"
_ROW = f"REPLACE INTO images VALUES ({', '.join('?' * (3 + len(ImageFacts._fields)))})"
_AT_ONCE = 500  # SQLite takes at most 999 values in one statement in its older versions
_SIGN = 1 << 63


class Stamp(NamedTuple):
    """By what a changed file is noticed: bytes, and nanoseconds of the last change."""

    size: int
    changed: int


def stamp_of(image: str) -> Stamp | None:
    """Returns the stamp of the file that an image lies in, None if there is none to be had."""
    try:
        status = Path(parse_place(image).file).stat()
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


def default_path() -> Path:
    """Returns where the file is: in the cache folder of this package."""
    return cache_root() / "data_check" / "images.sqlite"


class FactsCache:
    """Facts by sound image, valid as long as the image's file keeps its size and time.

    Images that could not be read are looked at anew each time: a package that was missing, a
    network drive that was away or a full memory may have been the reason, and none of them changes
    the file.

    What another version of this package or of Pillow found is forgotten, since it may have decoded
    otherwise. A file that is damaged is begun anew, and without a place to write to, the facts are
    kept in memory only: neither is a reason to stop.

    Args:
        path: The file; None keeps everything in memory.
        fresh: Forget all that is known.
    """

    def __init__(self, path: Path | None, fresh: bool = False) -> None:
        self._database = _open(path)
        if fresh:
            with self._database:
                self._database.execute("DELETE FROM images")

    def lookup(
        self, stamps: Mapping[str, Stamp], options: ReadOptions = DEFAULTS
    ) -> dict[str, ImageFacts]:
        """Returns what is known of images, read so, whose stamp is still the same."""
        images = {_key(image, options): image for image in stamps}
        known: dict[str, ImageFacts] = {}
        for names in _portions(list(images)):
            marks = ", ".join("?" * len(names))
            query = f"SELECT {_COLUMNS} FROM images WHERE place IN ({marks})"
            for place, size, changed, *values in self._database.execute(query, names):
                if stamps[images[place]] == (size, changed):
                    known[images[place]] = _facts(values)
        return known

    def store(
        self, found: Iterable[tuple[str, Stamp, ImageFacts]], options: ReadOptions = DEFAULTS
    ) -> None:
        """Keeps the facts of sound images; they are on disk when this returns."""
        rows = [
            (_key(image, options), *stamp, *_values(facts))
            for image, stamp, facts in found
            if not facts.problem
        ]
        try:
            with self._database:
                self._database.executemany(_ROW, rows)
        except sqlite3.OperationalError as error:  # a full disk, or another check that holds it
            logger.warning("what was found out is not kept for the next check: %s", error)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


def _key(image: str, options: ReadOptions) -> str:
    """Names an image together with how it was read: another window gives another picture."""
    return image if options == DEFAULTS else f"{image} {options!r}"


def _open(path: Path | None) -> sqlite3.Connection:
    if path is None:
        return _prepared(":memory:")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _prepared(str(path))
    except sqlite3.OperationalError as error:
        logger.warning("%s cannot be used, so the next check begins anew: %s", path, error)
    except sqlite3.DatabaseError as error:
        logger.warning("%s is damaged (%s) and is begun anew", path, error)
        with contextlib.suppress(OSError):
            path.unlink()
            return _prepared(str(path))
    except OSError as error:
        logger.warning("%s cannot be made, so the next check begins anew: %s", path.parent, error)
    return _prepared(":memory:")


def _prepared(name: str) -> sqlite3.Connection:
    """Opens a database; drops what was found out by other code."""
    database = sqlite3.connect(name, timeout=30)
    try:
        writer = f"{FACTS_VERSION} {lavis_msmedcap.__version__} {PIL.__version__}"
        with database:
            database.execute("CREATE TABLE IF NOT EXISTS made_by (writer)")
            rows = database.execute("SELECT writer FROM made_by").fetchall()
            if rows != [(writer,)]:
                database.execute("DROP TABLE IF EXISTS images")
                database.execute("DELETE FROM made_by")
                database.execute("INSERT INTO made_by VALUES (?)", (writer,))
            database.execute(_TABLE)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _portions(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def _values(facts: ImageFacts) -> ImageFacts:
    """SQLite's integers have a sign."""
    return facts if facts.hash is None else facts._replace(hash=facts.hash - _SIGN)


def _facts(values: Iterable[object]) -> ImageFacts:
    facts = ImageFacts(*values)  # type: ignore[arg-type]  # the columns are its fields
    code = None if facts.hash is None else facts.hash + _SIGN
    return facts._replace(constant=bool(facts.constant), hash=code)
