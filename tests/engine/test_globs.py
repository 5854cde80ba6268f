"""Globs, as in Cerbos: `*` stops at `:`."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import globs


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*", ["", "a", "a:b:c", "a\nb"], []),
        ("**", ["", "a", "a:b:c"], []),
        ("a:*", ["a:b", "a:"], ["a", "a:b:c", "b:a"]),
        ("a:**", ["a:b", "a:b:c", "a:"], ["a"]),
        ("*:b", ["a:b", ":b"], ["a:a:b", "b"]),
        ("a?c", ["abc", "a-c"], ["ac", "a:c", "abbc"]),
        ("[ab]x", ["ax", "bx"], ["cx", "x"]),
        ("[!ab]x", ["cx", ":x"], ["ax"]),
        ("[a-c]x", ["bx"], ["dx", "-x"]),
        ("{a,b*}:x", ["a:x", "b:x", "bcd:x"], ["c:x", "b:c:x"]),
        ("{a,{b,c}}", ["a", "b", "c"], ["", "d"]),
        ("a\\*", ["a*"], ["ab", "a\\*"]),
        ("a.b*", ["a.b", "a.bc"], ["axb"]),
        ("a,b*", ["a,b", "a,bc"], ["a"]),
        ("ü*", ["ü", "üß"], ["u"]),
    ],
)
def test_matching(pattern: str, matching: list[str], other: list[str]) -> None:
    """Each pattern matches whole strings, these and not those."""
    matches = globs.matcher(pattern)
    assert [text for text in matching if not matches(text)] == []
    assert [text for text in other if matches(text)] == []


@pytest.mark.parametrize("pattern", ["[", "[a", "a{b*", "a}*", "[]*", "[b-a]*", "a*\\"])
def test_a_pattern_that_is_not_well_formed_matches_nothing(pattern: str) -> None:
    """It matches not even itself."""
    assert not globs.matcher(pattern)(pattern)
    assert not globs.matcher(pattern)("")


def test_rules_know_globs_by_their_star() -> None:
    """In actions, roles and resources a pattern without `*` is a literal."""
    assert globs.rule_matcher("vie?")("vie?")
    assert not globs.rule_matcher("vie?")("view")
    assert globs.rule_matcher("vie?:*")("view:x")


def test_hostile_input_takes_linear_time() -> None:
    """Many stars and a long string that almost matches take no noticeable time."""
    matches = globs.matcher("*a" * 30 + "b")
    started = time.process_time()
    assert not matches("a" * 20_000)
    assert time.process_time() - started < 1


@given(st.text(max_size=20))
def test_text_is_matched_by_itself_escaped(text: str) -> None:
    """Every character can be matched literally."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    escaped = "".join(f"\\{character}" for character in text)
    assert globs.matcher(f"{escaped}*")(text)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_without_separators_it_is_the_shell_s_glob(pattern: str, text: str) -> None:
    """Where no `:` is about, patterns mean what they mean in a shell."""
    assert globs.matcher(pattern)(text) == fnmatch.fnmatchcase(text, pattern)


def test_lone_surrogates_match_only_everything() -> None:
    """Text that is not valid Unicode is no error."""
    assert globs.matcher("*")("\ud800")
    assert not globs.matcher("a*")("a\ud800")
