"""Evaluating expressions over the variables of a session, with everything that goes wrong underlined."""

from __future__ import annotations

import time
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from engine import policy as p
from engine.cel import CompileError, Environment, EvaluationError, Timestamp
from engine.expressions import IDENTIFIERS, NAMESPACES, RECORDS, VARIABLES
from engine.rules import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.cel import Expression
    from engine.cel.frontend import Issue
    from engine.model import CheckInput, JsonValue


class InputError(Exception):
    """Something that was typed cannot be used; the message may have several lines."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a part of a condition came to: *holds*, or why that cannot be said, and its own parts."""

    text: str
    holds: bool
    error: str = ""
    parts: tuple[Outcome, ...] = ()


class Evaluator:
    """Compiles and evaluates expressions over one state of the variables."""

    def __init__(
        self,
        own: Mapping[str, Any],
        question: CheckInput,
        effective_derived_roles: list[str],
        *,
        environment: Environment,
        constants: Mapping[str, JsonValue],
        global_values: Mapping[str, JsonValue],
    ) -> None:
        self._environment = environment
        constants, global_values = Namespace(constants), Namespace(global_values)
        runtime = SimpleNamespace(effective_derived_roles=effective_derived_roles, action="")
        self._activation = SimpleNamespace(
            **own,
            request=question,
            P=question.principal,
            R=question.resource,
            runtime=runtime,
            C=constants,
            constants=constants,
            G=global_values,
            globals=global_values,
            V=Namespace(),
            variables=Namespace(),
            now=Timestamp(time.time_ns()),
        )

    def define(self, texts: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
        """Set ``V``: *texts* are evaluated, *values* win over them; return what failed, by name."""
        variables = Namespace(values)
        self._activation.V = self._activation.variables = variables
        failed: dict[str, str] = {}
        for name, expression in self._in_order(texts, failed):
            if name not in values:
                try:
                    variables[name] = self.value(expression)
                except InputError as error:
                    failed[name] = str(error)
        return failed

    def _in_order(self, texts: Mapping[str, str], failed: dict[str, str]) -> Iterable[tuple[str, Expression]]:
        """Return variables so that each comes after what it refers to."""
        compiled: dict[str, Expression] = {}
        for name, text in texts.items():
            try:
                compiled[name] = self.compile(text)
            except InputError as error:
                failed[name] = str(error)
        graph = {name: _variables(expression) & compiled.keys() for name, expression in compiled.items()}
        try:
            return [(name, compiled[name]) for name in TopologicalSorter(graph).static_order()]
        except CycleError as error:
            failed.update(dict.fromkeys(error.args[1], "variables form a cycle"))
            return []

    @property
    def variables(self) -> Mapping[str, Any]:
        """``V`` as it was defined."""
        found: Mapping[str, Any] = self._activation.V
        return found

    def compile(self, text: str) -> Expression:
        """Compile an expression; raises :class:`InputError` with each mistake underlined."""
        try:
            return self._environment.compile(text)
        except CompileError as error:
            raise InputError("\n".join(underlined(text, issue) for issue in error.issues)) from None

    def value(self, expression: Expression) -> Any:
        """Evaluate; raises :class:`InputError` with the failing part underlined."""
        try:
            return expression.function(self._activation)
        except EvaluationError as error:
            excerpt = expression.locate(error).excerpt
            raise InputError(f"{excerpt} {error}") from None

    def outcome(self, match: p.Match) -> Outcome:
        """Evaluate every part of a condition, also those that no longer matter."""
        if isinstance(match, p.Expr):
            return self._leaf(match.text)
        parts = tuple(map(self.outcome, match.of))
        word, combine = _COMBINED[type(match)]
        return Outcome(word, combine([part.holds for part in parts]), parts=parts)

    def _leaf(self, text: str) -> Outcome:
        try:
            value = self.value(self.compile(text))
        except InputError as error:
            return Outcome(text, holds=False, error=str(error))
        wrong = "" if isinstance(value, bool) else "not a boolean, so it counts as false"
        return Outcome(text, value is True, wrong)


_COMBINED = {
    p.All: ("all", all),
    p.Any_: ("any", any),
    p.None_: ("none", lambda parts: not any(parts)),
}


def environment(own: Iterable[str]) -> Environment:
    """Make the environment of policies, with variables of the session's *own*."""
    return Environment({**IDENTIFIERS, **dict.fromkeys(own, "dyn")}, records=RECORDS, namespaces=NAMESPACES)


def underlined(text: str, issue: Issue) -> str:
    """Return the line with a mistake, and under it a caret and what is wrong."""
    line = text.split("\n")[issue.line - 1] if issue.line <= text.count("\n") + 1 else ""
    return f"{line}\n{' ' * (issue.column - 1)}^ {issue.message}"


def _variables(expression: Expression) -> set[str]:
    return {path[1] for path in expression.references if len(path) > 1 and path[0] in VARIABLES}
