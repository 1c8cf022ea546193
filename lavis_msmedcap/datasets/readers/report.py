"""The tally of a dataset: how many entries were read, kept, and dropped for what reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lavis_msmedcap.datasets.records import SPLITS

WITHOUT_SPLIT = "records without a split of their own, taken as train"
REPEATED_ID = "with a repeated id, the caption added to the first"  # a reason of ROCO's reader
# a reason of `merge_repeated`, and what it notes of those whose caption is kept all the same
REPEATED_IMAGE = "repeated image"
REPEATED_WITH_CAPTION = "repeated images with another caption, which was added"


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

    def left_out(self) -> dict[str, int]:
        """Returns how many entries are in no record at all, by reason.

        Without those dropped ones whose caption was added to another entry of their image.
        """
        added = {
            REPEATED_ID: self.dropped[REPEATED_ID],
            REPEATED_IMAGE: self.notes[REPEATED_WITH_CAPTION],
        }
        counts = {reason: count - added.get(reason, 0) for reason, count in self.dropped.items()}
        return {reason: count for reason, count in counts.items() if count > 0}

    def all_notes(self) -> dict[str, int]:
        """Returns the notes, and what was dropped without anything being left out."""
        ids = self.dropped[REPEATED_ID]
        notes = {**self.notes, f"entries {REPEATED_ID}": ids}
        return {note: count for note, count in notes.items() if count}

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
