"""A shelf is a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.artefacts.shelf import Shelf

KEYS = st.binary(min_size=1, max_size=1)


@given(st.lists(st.tuples(KEYS, st.binary(max_size=3) | st.none())))
def test_it_holds_what_a_dictionary_would(steps: list[tuple[bytes, bytes | None]]) -> None:
    """Whatever is put there, replaced and taken away, what is found is what was put there last."""
    shelf, expected = Shelf(), dict[bytes, bytes]()
    for key, artefact in steps:
        if artefact is None:
            assert shelf.pop(key, None) == expected.pop(key, None)
        else:
            shelf[key] = expected[key] = artefact
        assert dict(shelf) == expected
        assert len(shelf) == len(expected)
