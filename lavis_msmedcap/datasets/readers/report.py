"""The tally of a dataset: how many entries were read, kept, and dropped for what reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lavis_msmedcap.datasets.records import SPLITS

WITHOUT_SPLIT = "records without a split of their own, taken as train"


@dataclass
class ReadReport:
    """What became of the entries of a dataset; readers and later filters add to one report.

    Attributes:
        name: Dataset name, for the log line.
        kept: Entries kept so far, by split.
        dropped: Entries left out, by reason.
        notes: Further facts worth a word, with how often they occurred.
        undivided: Whether the data set tells no splits: all its records are train for want of one.
    """

    name: str
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    undivided: bool = False

    @property
    def n_read(self) -> int:
        """Number of entries seen: kept and dropped ones."""
        return sum(self.kept.values()) + sum(self.dropped.values())

    def discard(self, reason: str, count: int, split: str) -> None:
        """Counts entries as dropped that had been counted as kept."""
        if count:
            self.kept[split] -= count
            self.dropped[reason] += count

    def summary(self) -> str:
        """Returns everything on one line."""
        kept = [(split, self.kept[split]) for split in SPLITS if self.kept[split]]
        splits = ", ".join(f"{split} {count:,}" for split, count in kept)
        parts = [f"{self.name}: read {self.n_read:,}, kept {sum(self.kept.values()):,} ({splits})"]
        if sum(self.dropped.values()):
            counted = [(why, count) for why, count in self.dropped.most_common() if count]
            reasons = "; ".join(f"{count:,} {why}" for why, count in counted)
            parts.append(f"dropped {sum(self.dropped.values()):,}: {reasons}")
        parts += [f"{count:,} {note}" for note, count in self.notes.most_common()]
        return " | ".join(parts)
