from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lavis_msmedcap.data_check.linking import Links

COUNT = 12
PAIRS = st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), max_size=20)


def sets_of(pairs: list[tuple[int, int]]) -> dict[int, frozenset[int]]:
    sets = {member: frozenset({member}) for member in range(COUNT)}
    for one, other in pairs:
        together = sets[one] | sets[other]
        sets.update(dict.fromkeys(together, together))
    return sets


@given(PAIRS)
def test_links_are_those_of_joining_sets(pairs):
    links = Links(COUNT)
    for number, (one, other) in enumerate(pairs):
        apart = sets_of(pairs[:number])[one] != sets_of(pairs[:number])[other]
        assert links.join(one, other) == apart
    expected = sets_of(pairs)
    assert links.roots(np.arange(COUNT)).tolist() == [min(expected[m]) for m in range(COUNT)]
    groups = links.groups()
    assert set(map(frozenset, groups)) == {s for s in expected.values() if len(s) > 1}
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)
    assert all(group == sorted(group) for group in groups)


def test_members_with_a_common_key_are_joined():
    links = Links(6)
    links.join_equal([{"a"}, set(), {"b"}, {"b", "a"}, {"c"}, {"c"}])
    assert links.groups() == [[0, 2, 3], [4, 5]]


def test_nothing_is_no_group():
    assert Links(0).groups() == []
