"""Error classes. Every message names the file, key or value, what was expected, and the cure."""

from __future__ import annotations

from collections.abc import Sequence


class MSMedCapError(Exception):
    """Base class of all errors that this package raises on purpose."""


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
