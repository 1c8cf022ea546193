"""What a conversion did, in numbers: by data set and split, by reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lavis_msmedcap.common.whole_files import write_whole

NAME = "report.json"
_SHOWN = 5


@dataclass
class Part:
    """The images of one data set and split.

    Attributes:
        images: Number of images that were written.
        captions: Number of their captions.
        files: Number of shards or annotation files.
        size: Bytes written, or of the annotation file.
        how: Images by what was stored of them.
        broken: (image id, reason) of images that were left out.
    """

    images: int = 0
    captions: int = 0
    files: int = 0
    size: int = 0
    how: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class ConvertReport:
    """The whole conversion.

    Attributes:
        parts: By "roco train".
        kept: Shards that an earlier run had finished.
        notes: Sentences about the output, told at the end.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    kept: int = 0
    notes: list[str] = field(default_factory=list)

    def part(self, source: str, split: str) -> Part:
        """Returns the counts of a data set and split, to add to."""
        return self.parts.setdefault(f"{source} {split}", Part())

    @property
    def broken(self) -> int:
        """Number of images that were left out."""
        return sum(len(part.broken) for part in self.parts.values())

    def lines(self) -> Iterator[str]:
        """Yields one line per part, then the images that were left out and the notes."""
        for name, part in self.parts.items():
            yield (
                f"{name}: {part.images:,} images with {part.captions:,} captions, "
                f"{part.files:,} files, {show_bytes(part.size)}"
            )
            yield from (f"  {count:,} {how}" for how, count in part.how.most_common())
            if part.broken:
                yield f"  {len(part.broken):,} left out because they are broken:"
                yield from (f"    {name}: {why}" for name, why in part.broken[:_SHOWN])
                if len(part.broken) > _SHOWN:
                    yield f"    … and {len(part.broken) - _SHOWN:,} more, all of them in {NAME}"
        yield from self.notes

    def write(self, folder: Path, beside: Mapping[str, Any] = MappingProxyType({})) -> Path:
        """Writes everything but what this very run contributed; the same data, the same bytes.

        Args:
            folder: Where to.
            beside: Parts of data sets that an earlier run has written there, from its report.
        """
        content: dict[str, Any] = {
            name: {**vars(part), "how": dict(sorted(part.how.items()))}
            for name, part in self.parts.items()
        }
        path = folder / NAME
        parts = dict(sorted({**beside, **content}.items()))
        write_whole(path, [json.dumps(parts, indent=2), "\n"])
        return path


def show_bytes(count: int) -> str:
    """Writes a size as people read it."""
    size, units = float(count), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    for larger in units:
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
