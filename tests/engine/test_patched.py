"""Mappings that share most of their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.patched import MOST, PART, Patched

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYS = [str(number) for number in range(256)]
FEW = round(len(KEYS) * PART)
"""So many of them can be different."""


def made(keys: Sequence[str] = KEYS) -> Patched[str, object]:
    return Patched({key: object() for key in keys})


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), st.integers(), max_size=FEW // 2), max_size=12))
def test_each_is_like_a_dict_and_stays_so(steps: list[dict[str, object]]) -> None:
    """However often values are replaced, each mapping says what a dict of its own would say."""
    mapping = Patched(dict.fromkeys(KEYS))
    expected: dict[str, object] = dict.fromkeys(KEYS)
    states = [(mapping, expected)]
    for step in steps:
        mapping, expected = mapping.patched(step), {**expected, **step}
        states.append((mapping, expected))
    for found, like in states:
        assert found == like
        assert [*found] == [*found.keys()] == [*like]
        assert [*found.items()] == [*like.items()]
        assert [*found.values()] == [*like.values()]
        assert len(found) == len(like)
        assert [found[key] for key in KEYS] == [like[key] for key in KEYS]
        assert (KEYS[0] in found, "other" in found, found.get("other")) == (True, False, None)


@given(st.lists(st.lists(st.sampled_from(KEYS), max_size=FEW // 2), min_size=1, max_size=12), st.data())
def test_differences_are_found_whatever_lies_between(steps: list[list[str]], data: st.DataObject) -> None:
    """Two states of one mapping differ in the keys that have other values, looked at from either side."""
    states = [made()]
    for step in steps:
        states.append(
            states[data.draw(st.integers(0, len(states) - 1))].patched({key: object() for key in step})
        )
    one, other = (states[data.draw(st.integers(0, len(states) - 1))] for _ in range(2))
    expected = {key for key in KEYS if one[key] is not other[key]}
    for differing in (one.differs(other), other.differs(one)):
        assert differing is not None
        assert len(differing) == len(expected)
        assert set(differing) == expected


def test_other_keys_are_no_difference_in_values() -> None:
    """Mappings of different keys cannot be compared value by value; the order of keys does not count."""
    one, value = made(), object()
    assert one.differs(Patched({key: one[key] for key in reversed(KEYS)})) == []
    assert one.differs(Patched({**dict(one), "other": value})) is None
    assert one.differs(Patched({key: one[key] for key in KEYS[1:]})) is None
    assert not one.is_alike(Patched({}))


def test_there_are_no_new_keys() -> None:
    """A value stands in for another one: what is new needs a mapping of its own."""
    with pytest.raises(KeyError, match="other"):
        made().patched({"other": object()})


@pytest.mark.parametrize("size", [1, 256, round(2 * MOST / PART)])
def test_what_is_replaced_is_not_kept_for_ever(size: int) -> None:
    """After some changes the first values are let go, after the first one where there are few."""
    keys = [str(number) for number in range(size)]
    mapping = first = made(keys)
    kept = 0
    while mapping._base is first._base:
        assert kept <= min(MOST, size * PART)
        mapping = mapping.patched({keys[kept]: None})
        kept += 1
    assert mapping.differs(first) == keys[:kept]
    assert mapping._base[keys[0]] is None
