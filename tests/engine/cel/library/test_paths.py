"""Go's lexical paths: laws that hold for all of them."""

from __future__ import annotations

import contextlib
import posixpath
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.cel.library import filepath, paths
from engine.cel.values import EvaluationError

unix = st.text("ab./", max_size=12)
anything = st.text("aC:.\\/*?[]^-", max_size=12)


@settings(deadline=None)
@given(unix)
@example("//a")
def test_cleaning_is_that_of_posix_but_for_leading_slashes(path: str) -> None:
    """``clean`` agrees with Python's ``normpath``, which alone keeps two leading slashes apart."""
    assert filepath.clean(path) == re.sub("^//", "/", posixpath.normpath(path))


@settings(deadline=None)
@given(unix, unix)
def test_relative_paths_lead_back(start: str, target: str) -> None:
    """Going from a path by the relative one arrives at the target."""
    try:
        way = filepath.relative(start, target)
    except filepath.UnrelatedError:
        return
    assert filepath.clean(filepath.join(start, way)) == filepath.clean(target)


@settings(deadline=None)
@given(st.text("ab/.é", max_size=8), st.text("ab/.é*?", max_size=8))
def test_globs_without_classes_are_those_of_a_naive_matcher(path: str, pattern: str) -> None:
    """Matching by regular expression gives what trying every way by hand gives."""
    assert filepath.matches(pattern, path) is naive_match(pattern, path)


def naive_match(pattern: str, path: str) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "*":
        return naive_match(pattern[1:], path) or (
            bool(path) and path[0] != "/" and naive_match(pattern, path[1:])
        )
    if not path or (pattern[0] == "?" and path[0] == "/"):
        return False
    return pattern[0] in {"?", path[0]} and naive_match(pattern[1:], path[1:])


@settings(deadline=None)
@given(anything, anything)
def test_path_functions_fail_only_with_evaluation_errors(path: str, other: str) -> None:
    """Whatever the text, a path function returns or raises an evaluation error."""
    for function in (paths.base_path, paths.dir_path, paths.ext_path, paths.volume_name):
        attempt(function, path)
    for binary in (paths.rel_path, paths.path_has_prefix, paths.path_match):
        attempt(binary, path, other)
    attempt(paths.join_path, [path, other])


def attempt(function: object, *arguments: object) -> None:
    assert callable(function)
    with contextlib.suppress(EvaluationError):
        function(*arguments)


@settings(deadline=None)
@given(st.text("ab/", min_size=1, max_size=8))
def test_what_is_joined_below_a_prefix_has_the_prefix(path: str) -> None:
    """A path joined below another one has it as its prefix."""
    below = paths.join_path(["/srv", path, "leaf"])
    assert paths.path_has_prefix(below, "/srv")


@pytest.mark.parametrize("escape", ["../x", "a/../../x", "../srv-x", "./../x"])
def test_paths_that_leave_the_prefix_do_not_have_it(escape: str) -> None:
    """Dots cannot smuggle a path out of its prefix."""
    assert not paths.path_has_prefix(f"/srv/{escape}", "/srv")
