"""Which tests are run: filters and patterns."""

from __future__ import annotations

import pytest

from engine.verify import Filter, FilterError, Selection
from engine.verify.filters import Sieve


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("foo", "invalid filter dimension format \"foo\": expected 'dimension=glob1,glob2'"),
        (
            "suit=a",
            'unknown filter dimension "suit": valid dimensions are suite, test, principal, resource, action',
        ),
        ("suite=", "filter must contain at least one glob pattern in at least one dimension"),
        (";;", "filter must contain at least one glob pattern in at least one dimension"),
    ],
)
def test_bad_filters(text: str, complaint: str) -> None:
    """What is wrong with a filter is said in Cerbos's words."""
    with pytest.raises(FilterError) as raised:
        Filter.parse([text])
    assert str(raised.value) == complaint


def test_filters_add_up() -> None:
    """Several filters are one; blanks and case of dimensions do not matter; an empty one says nothing."""
    found = Filter.parse([" Suite = A*, B ;action=view", "action=edit:*", ""])
    suite, action, test = map(found.matcher, ("suite", "action", "test"))
    assert [suite(name) for name in ("A1", "B", "B1")] == [True, True, False]
    assert [action(name) for name in ("view", "edit:a", "edit")] == [True, True, False]
    assert test("whatever")


def test_a_pattern_has_to_be_a_regular_expression() -> None:
    """A broken pattern is refused before anything runs."""
    with pytest.raises(FilterError, match="invalid run specification: error parsing regexp: missing"):
        Sieve(Selection(pattern="["))
