"""The bounded memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.recent import Recent


def test_what_is_used_stays() -> None:
    """What is looked at often enough outlives any number of others."""
    memory: Recent[int] = Recent(10, 10**6)
    memory.put("used", 0, 1)
    for number in range(1000):
        memory.put(str(number), number, 1)
        assert memory.get("used") == 0
    assert memory.get("0") is None
    assert memory.get("999") == 999


def test_too_heavy_is_not_kept() -> None:
    """What alone outweighs half of the memory is not kept, and takes away what was there under its key."""
    memory: Recent[str] = Recent(10, 100)
    memory.put("a", "light", 50)
    memory.put("a", "heavy", 51)
    assert memory.get("a") is None


def test_forgetting() -> None:
    """Single entries and all of them can be forgotten."""
    memory: Recent[int] = Recent(4, 100)
    for number in range(4):
        memory.put(str(number), number, 1)
    for number in range(3):
        memory.drop(str(number))
    assert [memory.get(str(number)) for number in range(4)] == [None, None, None, 3]
    memory.clear()
    assert (len(memory), memory.get("3")) == (0, None)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "get", "drop"]), st.sampled_from("abcdefghij"), st.integers(0, 12)
    )
)


@given(OPERATIONS, st.integers(2, 8), st.integers(2, 30))
@settings(deadline=None)
def test_bounds_hold(operations: list[tuple[str, str, int]], max_entries: int, max_weight: int) -> None:
    """Whatever is done, the limits hold, and what is found is what was stored last under the key."""
    memory: Recent[int] = Recent(max_entries, max_weight)
    stored: dict[str, int] = {}
    for number, (operation, key, weight) in enumerate(operations):
        if operation == "put":
            memory.put(key, number, weight)
            stored[key] = number
        elif operation == "drop":
            memory.drop(key)
            stored.pop(key, None)
        assert memory.get(key) in (None, stored.get(key))
        entries = [*memory.young.values(), *memory._old.values()]
        assert len(entries) == len(memory) <= max_entries
        assert sum(weight for _, weight in entries) <= max_weight
        assert sum(weight for _, weight in memory.young.values()) == memory._weight
