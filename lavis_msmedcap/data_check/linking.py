"""Which things belong together, given some pairs of them (a disjoint-set forest)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


class Links:
    """Sets of numbers 0 to n - 1, at first each alone.

    Args:
        count: n.
    """

    def __init__(self, count: int) -> None:
        self._above: Indices = np.arange(count, dtype=np.intp)

    def join(self, one: int, other: int) -> bool:
        """Makes the sets of two members one; tells whether they were two."""
        first, second = self._root(one), self._root(other)
        # the smaller number on top, so that results do not depend on the order of pairs
        self._above[max(first, second)] = min(first, second)
        return first != second

    def join_equal(self, keys: Iterable[Iterable[Hashable]]) -> None:
        """Joins members that share a key.

        Args:
            keys: Keys of member 0, of member 1, and so on.
        """
        firsts: dict[Hashable, int] = {}
        for member, own in enumerate(keys):
            for key in own:
                self.join(firsts.setdefault(key, member), member)

    def roots(self, members: Indices) -> Indices:
        """Returns one number for each member, the smallest of its set."""
        found = self._above[members]
        while len(found):
            higher = self._above[found]
            if np.array_equal(higher, found):
                break
            found = higher
        self._above[members] = found
        return found

    def groups(self) -> list[list[int]]:
        """Returns the sets of more than one member: largest first, members ascending."""
        sets: dict[int, list[int]] = {}
        for member, root in enumerate(self.roots(np.arange(len(self._above))).tolist()):
            sets.setdefault(root, []).append(member)
        return sorted((s for s in sets.values() if len(s) > 1), key=len, reverse=True)

    def _root(self, member: int) -> int:
        above = self._above
        while above[member] != member:
            above[member] = above[above[member]]
            member = int(above[member])
        return member
