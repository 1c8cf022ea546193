"""The text log of one run for as long as it lasts, and the console.

The first rank writes ``log.txt``; each other one writes its warnings and its traceback, if any, to
a file of its own.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from lavis_msmedcap.common.whole_files import disk_error_of, disk_errors

PACKAGE = "lavis_msmedcap"
FORMAT = "%(asctime)s [%(levelname)s] %(message)s"


class _Backlog(logging.Handler):
    """Keeps what is logged before there is a run directory."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def backlog() -> Iterator[None]:
    """Keeps what is logged inside the ``with`` block until a `RunLog` writes it to its file.

    Which data were read and which checkpoint was loaded is logged before the run has a directory.
    """
    handler = _Backlog()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _take_backlog() -> list[logging.LogRecord]:
    """Returns what `backlog` has kept, and ends its work."""
    root = logging.getLogger()
    handlers = [handler for handler in root.handlers if isinstance(handler, _Backlog)]
    for handler in handlers:
        root.removeHandler(handler)
    return [record for handler in handlers for record in handler.records]


class _LogFile(logging.FileHandler):
    """A log file that fails once, and then keeps quiet, where the disk takes nothing more.

    `logging` would print a traceback for each line and go on.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._failed:
            with disk_errors(Path(self.baseFilename)):
                super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in `logging`
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and disk_error_of(error) is not None:
            self._failed = True
            raise error
        super().handleError(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError:  # what could not be written is still in the buffer
            if not self._failed:
                raise


class RunLog:
    """Writes what is logged during a run to a file, and takes its handlers away afterwards.

    If nobody has set up logging (a notebook), messages also go to stderr, so that a run is never
    silent.

    Args:
        path: Log file; it is made with the first line.
        visible: False on ranks that keep quiet: they write warnings and errors only.
    """

    def __init__(self, path: Path, *, visible: bool) -> None:
        self.path = path
        self._level = logging.INFO if visible else logging.WARNING
        self._file: logging.Handler | None = None

    @property
    def is_attached(self) -> bool:
        """Whether the file is being written."""
        return self._file is not None

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Logs to the file inside the ``with`` block; inside itself it does nothing more."""
        root, package = logging.getLogger(), logging.getLogger(PACKAGE)
        level = package.level
        if self._file is not None:
            yield
            return
        early = _take_backlog()
        self._file = _LogFile(self.path)
        added: list[logging.Handler] = [self._file]
        if not root.handlers:
            added.append(logging.StreamHandler(sys.stderr))
        for handler in added:
            handler.setFormatter(logging.Formatter(FORMAT))
            handler.setLevel(self._level)
            root.addHandler(handler)
        for record in early:
            self._write(record)
        if self._level > logging.INFO or package.getEffectiveLevel() > self._level:
            package.setLevel(self._level)
        try:
            yield
        finally:
            self._file = None
            package.setLevel(level)
            for handler in added:
                root.removeHandler(handler)
                handler.close()

    def file_only(self, message: str, level: int = logging.INFO) -> None:
        """Writes a line to the file but not to the console, where a bar already shows it.

        Raises:
            StorageError: If the disk is full, as every logged line does then, once.
        """
        self._write(logging.LogRecord(PACKAGE, level, __file__, 0, message, None, None))

    def _write(self, record: logging.LogRecord) -> None:
        if self._file is not None and record.levelno >= self._level:
            self._file.handle(record)
