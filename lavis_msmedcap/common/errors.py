"""Error classes. Every message names the file, key or value, what was expected, and the cure."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class MSMedCapError(Exception):
    """Base class of all errors that this package raises on purpose.

    They pass between processes: a copy is made from message and attributes, without the
    constructor, which may take something else than the message.

    Attributes:
        left: What a run that the error has ended leaves behind, and how to go on with it.
        told: Whether another process of the run tells it.
    """

    left: str = ""
    told: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Tells pickle how to copy the error."""
        return _copy, (type(self), self.args, self.__dict__)


def _copy(kind: type[MSMedCapError], args: tuple[Any, ...], state: dict[str, Any]) -> MSMedCapError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigError(MSMedCapError, ValueError):
    """A run configuration that cannot work; holds every problem found, not only the first.

    Args:
        problems: One complete sentence per problem, each naming the key and the cure.
        source: The file that was checked, named in the message.
    """

    def __init__(self, problems: Sequence[str], source: str = "") -> None:
        self.problems = list(problems)
        self.source = source
        where = f" in {source}" if source else ""
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''}{where}:"
        super().__init__(
            "\n".join([head, *(f"  {i}. {p}" for i, p in enumerate(self.problems, 1))])
        )


class DataError(MSMedCapError, ValueError):
    """A dataset on disk that is missing, empty or not in the format that was announced."""


class SharedDataError(DataError):
    """What all processes of a run found together, so that it is enough if one of them tells it."""


class BadImageError(DataError):
    """An image file that cannot be decoded.

    Args:
        path: The file.
        reason: What is wrong with it and, where known, the cure.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"cannot read image {path}: {reason}")


class WeightsError(MSMedCapError, RuntimeError):
    """A weights file that is missing, damaged, or does not fit the network it is loaded into."""


class StorageError(MSMedCapError, OSError):
    """A file that cannot be written: the disk is full, read-only, or gone.

    Args:
        path: The file.
        number: Error number of the system.
    """

    def __init__(self, path: Path, number: int | None) -> None:
        self.path = str(path)
        reason = os.strerror(number) if number else "the system does not say why"
        super().__init__(f"cannot write {path}: {reason}{_room(path)}; {_cure(number)}")
        self.errno = number


def _room(path: Path) -> str:
    try:
        return f" ({shutil.disk_usage(path.parent).free / 2**20:,.1f} MiB free there)"
    except OSError:
        return ""


def _cure(number: int | None) -> str:
    cures = {
        errno.ENOSPC: "make room there",
        errno.EDQUOT: "make room there, or have your quota raised",
        errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
        errno.EIO: "look after the disk, or the connection to it",
    }
    return cures.get(number or 0, "see to it that the folder may be written to")


class ArgumentError(MSMedCapError, ValueError):
    """An argument that cannot work, told under the name that its giver knows.

    An argument has another name in LAVIS' methods than in the functions below them, and another in
    a configuration; `told_as` translates on the way up.

    Args:
        message: The problem; names of arguments stand in braces, as in ``"{max_length} is 0"``.
        names: What to write for a name; without an entry, the name itself.
    """

    def __init__(self, message: str, names: Mapping[str, str] | None = None) -> None:
        self.message = message
        self.names = dict(names or {})
        super().__init__(message.format_map(_Names(self.names)))

    def renamed(self, names: Mapping[str, str]) -> ArgumentError:
        """Returns the error for one caller further up.

        Args:
            names: The caller's names by those of the function that it called.
        """
        known = {name: names.get(told, told) for name, told in self.names.items()}
        return ArgumentError(self.message, {**names, **known})


class _Names(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return name


@contextlib.contextmanager
def told_as(names: Mapping[str, str]) -> Iterator[None]:
    """Tells an `ArgumentError` of a ``with`` block under the caller's names.

    Args:
        names: The caller's names by those of the function that it calls.

    Raises:
        ArgumentError: The same problem.
    """
    try:
        yield
    except ArgumentError as error:
        raise error.renamed(names) from None


class NotFiniteOutputError(MSMedCapError, ArithmeticError):
    """A network that gives nan or infinite values where captions are written from them.

    Args:
        images: The images at fault, as indices into the batch, counted from 0.
        labels: What to call them instead, for example their ids.
    """

    def __init__(self, images: Sequence[int], labels: Sequence[str] | None = None) -> None:
        self.images = list(images)
        if labels is None:
            which = f"image {', '.join(map(str, images))} of the batch (counted from 0)"
        else:
            which = f"image {', '.join(labels)}"
        super().__init__(
            f"{which}: the network gives nan or infinite values, from which no caption can be "
            "written. Look at the image; if it is fine, at the weights, or compute in a type of "
            "larger range (run.amp: off, model.llm.precision: fp32 or bf16)"
        )


class Preempted(KeyboardInterrupt):
    """A signal other than Ctrl-C has asked the process to stop: somebody else wants the machine."""


class Interruption(KeyboardInterrupt):
    """A run that was asked to stop, with what the user needs to know: how to go on with it.

    Args:
        message: What there is, and how to use it.
        preempted: Whether a signal other than Ctrl-C asked.
    """

    def __init__(self, message: str, *, preempted: bool = False) -> None:
        self.preempted = preempted
        super().__init__(message)
