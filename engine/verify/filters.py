"""Which tests are run: by name, by the parts of a test, by the policies that would decide.

Formats, messages and reasons are Cerbos's (``internal/verify/filter_config.go``, ``test_filter.go``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import re2  # type: ignore[import-untyped]  # ships no types

from engine import names
from engine.globs import matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.verify.matrix import PairTest

DIMENSIONS = ("suite", "test", "principal", "resource", "action")

NAME_DOES_NOT_MATCH = "Test name did not match the provided pattern"
RESOURCE_EXCLUDED = "Resource matched a policy that was excluded from the bundle"
PRINCIPAL_EXCLUDED = "Principal matched a policy that was excluded from the bundle"
NO_ACTIONS = "No actions matched the test filter"
FILTER_REASONS = {
    dimension: f"{dimension.capitalize()} did not match the test filter" for dimension in DIMENSIONS
} | {"action": NO_ACTIONS}
FILTERED = frozenset(FILTER_REASONS.values())
"""Reasons of tests that are not counted, because the person who asks did not ask for them."""

HIDDEN = FILTERED | {NAME_DOES_NOT_MATCH}
"""Reasons of tests that are not shown."""


class FilterError(ValueError):
    """A filter that cannot be read."""


class PatternError(FilterError):
    """A pattern for names of tests that is no regular expression."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Globs by dimension; a dimension without globs lets everything through."""

    globs: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Filter:
        """Read filters such as ``suite=A*;action=view,edit``; several add to each other.

        Raises:
            FilterError: the text is of another form; the messages are Cerbos's.

        """
        found: dict[str, list[str]] = {}
        for text in texts:
            if not text.strip():
                continue
            read = _dimensions(text)
            if not any(read.values()):
                raise FilterError("filter must contain at least one glob pattern in at least one dimension")
            for dimension, globs in read.items():
                found.setdefault(dimension, []).extend(globs)
        return cls(tuple((name, tuple(globs)) for name, globs in found.items() if globs))

    def matcher(self, dimension: str) -> Callable[[str], bool]:
        """Return what tells whether a value of *dimension* is asked for."""
        globs = [matcher(glob) for glob in dict(self.globs).get(dimension, ())]
        return lambda value: not globs or any(matches(value) for matches in globs)


def _dimensions(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in filter(None, map(str.strip, text.strip().split(";"))):
        name, equals, globs = part.partition("=")
        if not equals:
            message = f"invalid filter dimension format {_quoted(part)}: expected 'dimension=glob1,glob2'"
            raise FilterError(message)
        dimension = name.lower().strip()
        if dimension not in DIMENSIONS:
            message = (
                f"unknown filter dimension {_quoted(name)}: valid dimensions are {', '.join(DIMENSIONS)}"
            )
            raise FilterError(message)
        found.setdefault(dimension, []).extend(filter(None, map(str.strip, globs.split(","))))
    return found


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for on the command line, or left out of a bundle.

    *pattern* is a regular expression (RE2) that is searched in ``SUITE/TEST``; the excluded policies are
    given by their fully qualified names (``cerbos.resource.album.vdefault``).
    """

    filter: Filter = field(default_factory=Filter)
    pattern: str = ""
    excluded_resource_policies: frozenset[str] = frozenset()
    excluded_principal_policies: frozenset[str] = frozenset()


class Sieve:
    """A selection made ready: tells why a test is not run."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._pattern = _pattern(selection.pattern)
        self._asked = {dimension: selection.filter.matcher(dimension) for dimension in DIMENSIONS}

    def reason(self, suite: str, test: PairTest) -> str | None:
        """Return why a test of *suite* is skipped, ``None`` when it is to be run."""
        if not self._named(suite, test):
            return NAME_DOES_NOT_MATCH
        if _resource_policy(test) in self._selection.excluded_resource_policies:
            return RESOURCE_EXCLUDED
        if _principal_policy(test) in self._selection.excluded_principal_policies:
            return PRINCIPAL_EXCLUDED
        parts = (
            ("suite", suite),
            ("test", test.table.name),
            ("principal", test.principal),
            ("resource", test.resource),
        )
        for dimension, value in parts:
            if not self._asked[dimension](value):
                return FILTER_REASONS[dimension]
        if not any(map(self.asks_for, test.table.input.actions)):
            return NO_ACTIONS
        return test.table.skip_reason if test.table.skip else None

    def asks_for(self, action: str) -> bool:
        """Tell whether an action is asked for."""
        return self._asked["action"](action)

    def _named(self, suite: str, test: PairTest) -> bool:
        if self._pattern is None:
            return True
        return any(self._pattern.search(name) is not None for name in _test_names(suite, test))


def _test_names(suite: str, test: PairTest) -> tuple[str, str]:
    """Return the name of a test as people write it, and as Cerbos matches it (a protobuf message as text)."""
    name, principal, resource = map(_quoted, (test.table.name, test.principal, test.resource))
    return (
        f"{suite}/{test.table.name}",
        f"{suite}/test_table_name:{name} principal_key:{principal} resource_key:{resource}",
    )


def _pattern(text: str) -> Any:
    if not text:
        return None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        raise PatternError(f"invalid run specification: error parsing regexp: {reason}") from None


def _resource_policy(test: PairTest) -> str:
    resource = test.input.resource
    key = names.resource_key(
        resource.kind, _version(resource.policy_version, test), _scope(resource.scope, test)
    )
    return f"cerbos.{key}"


def _principal_policy(test: PairTest) -> str:
    principal = test.input.principal
    key = names.principal_key(
        principal.id, _version(principal.policy_version, test), _scope(principal.scope, test)
    )
    return f"cerbos.{key}"


def _version(own: str, test: PairTest) -> str:
    return own or (test.options.default_policy_version if test.options else "") or names.DEFAULT_VERSION


def _scope(own: str, test: PairTest) -> str:
    return names.scope_value(own) or (test.options.default_scope if test.options else "")
