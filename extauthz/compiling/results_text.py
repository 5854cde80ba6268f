"""Test results for people: the tree and the list of ``cerbos compile``, and a form of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from engine.verify import Result
from engine.verify.filters import HIDDEN
from engine.verify.results import json_line
from extauthz.compiling.trees import Node, list_lines, tree_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.model import Output
    from engine.verify import (
        ActionResult,
        CaseResult,
        Failure,
        OutputFailure,
        PrincipalResult,
        ResourceResult,
        Success,
        SuiteResult,
        Summary,
        TestResults,
    )


_Part = TypeVar("_Part")

Paint = Callable[[str, str], str]
Format = Callable[["TestResults", Paint, bool], Iterator[str]]

LABELS = {
    Result.SKIPPED: ("skipped", "SKIPPED"),
    Result.PASSED: ("good", "OK"),
    Result.FAILED: ("error", "FAILED"),
    Result.ERRORED: ("error", "ERROR"),
}


def _drawn(lines: Callable[[Sequence[Node]], Iterator[str]]) -> Format:
    def result_lines(results: TestResults, paint: Paint, verbose: bool) -> Iterator[str]:
        shown = _Shown(paint, verbose=verbose)
        yield paint("header", "Test results")
        yield from lines(list(shown.suites(results.suites)))
        yield ""
        if verbose:
            yield from _traces(results, paint)
        yield totals(results.summary, paint)

    return result_lines


def _traces(results: TestResults, paint: Paint) -> Iterator[str]:
    failed = [found for found in _failed(results) if found.action.details.trace is not None]
    if failed:
        yield ""
        yield paint("header", "TRACES")
    for found in failed:
        suite, action = paint("suite", found.suite.name), paint("action", found.action.name)
        resource = paint("resource", found.resource)
        yield f"{suite} - {paint('principal', found.principal)}.{resource}.{action}"
        yield from _trace(found.action)
        yield ""


def _trace(action: ActionResult) -> Iterator[str]:
    if action.details.trace is not None:
        yield from (f"  {line}" for line in action.details.trace.text.splitlines())


class _Failed(NamedTuple):
    """A test that failed, and where it stands."""

    suite: SuiteResult
    case: str
    principal: str
    resource: str
    action: ActionResult


def _failed(results: TestResults) -> Iterator[_Failed]:
    for suite in results.suites:
        for case in suite.cases:
            for principal, resource, action in case.actions():
                if action.details.result > Result.PASSED:
                    yield _Failed(suite, case.name, principal.name, resource.name, action)


# -- pretty ------------------------------------------------------------------------------------------------

MARKS = {Result.SKIPPED: "-", Result.PASSED: "✓", Result.FAILED: "✗", Result.ERRORED: "✗"}


def _pretty(results: TestResults, paint: Paint, verbose: bool) -> Iterator[str]:
    """Yield a line for each suite, then each failure with the reasons of the decision."""
    shown = _Shown(paint, verbose=verbose)
    for suite in filter(_concerns, results.suites):
        role, _ = LABELS[suite.summary.overall]
        name = f"{paint('suite', suite.name)} ({paint('file', suite.file)})"
        yield " ".join((paint(role, MARKS[suite.summary.overall]), name, *_tallies(suite.summary, paint)))
        if suite.error:
            yield from list_lines((Node(paint("error", _error_text(suite))),), "    ")
    for found in _failed(results):
        yield ""
        names = (found.suite.name, found.case, found.principal, found.resource, found.action.name)
        yield f"{paint('error', '✗')} {paint('header', ' > '.join(names))}"
        yield from list_lines(shown.below(found.action), "    ")
        yield from (f"  {line}" for line in _trace(found.action))
    yield ""
    yield totals(results.summary, paint)


FORMATS: Mapping[str, Format] = {"tree": _drawn(tree_lines), "list": _drawn(list_lines), "pretty": _pretty}
"""How results can be shown to people: results, colours, whether to show tests that passed too."""


# -- parts -------------------------------------------------------------------------------------------------


def totals(summary: Summary, paint: Paint) -> str:
    """``5 tests executed [4 OK] [1 FAILED]``."""
    return " ".join((f"{summary.tests} tests executed", *_tallies(summary, paint)))


def _tallies(summary: Summary, paint: Paint) -> list[str]:
    return [
        paint(LABELS[result][0], f"[{count} {LABELS[result][1]}]") for result, count in summary.counts.items()
    ]


def _label(result: Result, paint: Paint) -> str:
    role, word = LABELS[result]
    return paint(role, f"[{word}]")


class _Shown:
    """Turns results into nodes; what says nothing is left out."""

    def __init__(self, paint: Paint, *, verbose: bool) -> None:
        self._paint = paint
        self._verbose = verbose

    def suites(self, suites: Iterable[SuiteResult]) -> Iterator[Node]:
        return (self._suite(suite) for suite in suites if _concerns(suite))

    def _suite(self, suite: SuiteResult) -> Node:
        paint = self._paint
        name = f"{paint('suite', suite.name)} ({paint('file', suite.file)})"
        overall = suite.summary.overall
        if suite.error:
            told = _error_text(suite)
            return Node(f"{name} {_label(overall, paint)}", (Node(paint("error", told)),))
        if overall is Result.SKIPPED:
            return Node(f"{name} {_label(overall, paint)}")
        text = " ".join((name, *_tallies(suite.summary, paint)))
        return Node(text, tuple(self._some(suite.cases, self._case)))

    def _some(self, parts: Iterable[_Part], node: Callable[[_Part], Node]) -> Iterator[Node]:
        """Yield the nodes that have something below them."""
        return (found for found in map(node, parts) if found.children)

    def _case(self, case: CaseResult) -> Node:
        return Node(self._paint("case", case.name), tuple(self._some(case.principals, self._principal)))

    def _principal(self, principal: PrincipalResult) -> Node:
        text = self._paint("principal", principal.name)
        return Node(text, tuple(self._some(principal.resources, self._resource)))

    def _resource(self, resource: ResourceResult) -> Node:
        actions = (self._action(action) for action in resource.actions if self._is_shown(action))
        return Node(self._paint("resource", resource.name), tuple(actions))

    def _is_shown(self, action: ActionResult) -> bool:
        result = action.details.result
        if result is Result.PASSED:
            return self._verbose
        return result is not Result.SKIPPED or action.details.skip_reason not in HIDDEN

    def _action(self, action: ActionResult) -> Node:
        label = _label(action.details.result, self._paint)
        return Node(f"{self._paint('action', action.name)} {label}", self.below(action))

    def below(self, action: ActionResult) -> tuple[Node, ...]:
        """Return what is to be said about one action."""
        details, paint = action.details, self._paint
        if details.failure is not None:
            return (self._failure(details.failure),)
        if details.result is Result.ERRORED:
            return (Node(f"{paint('error', 'ERROR:')} {paint('text', details.error)}"),)
        return tuple(self._success(details.success)) if details.success is not None else ()

    def _failure(self, failure: Failure) -> Node:
        outcome = self._paint("error", "OUTCOME:")
        if not failure.outputs:
            actual = self._paint("error", failure.actual.value)
            return Node(f"{outcome} expected: {failure.expected.value}, actual: {actual}")
        outputs = tuple(map(self._output_failure, failure.outputs))
        return Node(f"{outcome} output expectation unsatisfied", outputs)

    def _output_failure(self, output: OutputFailure) -> Node:
        paint = self._paint
        actual = {
            "mismatched": lambda: paint("text", json_line(output.actual)),
            "missing": lambda: paint("error", "MISSING"),
            "errored": lambda: paint("error", f"ERROR: {output.error}"),
        }[output.kind]()
        wanted = paint("text", json_line(output.expected))
        expected = Node(f"{paint('output', 'EXPECTED:')} {wanted}")
        return Node(
            paint("output", output.source), (expected, Node(f"{paint('output', 'ACTUAL:')} {actual}"))
        )

    def _success(self, success: Success) -> Iterator[Node]:
        paint = self._paint
        yield Node(f"RESULT: {paint('good', success.effect.value)}")
        if success.outputs:
            ordered = sorted(success.outputs, key=lambda output: output.src)
            yield Node("OUTPUTS:", tuple(map(self._output, ordered)))

    def _output(self, output: Output) -> Node:
        paint = self._paint
        if output.error:
            said = paint("error", f"ERROR: {output.error}")
        else:
            said = paint("text", json_line(output.value))
        return Node(paint("output", output.src), (Node(said),))


def _concerns(suite: SuiteResult) -> bool:
    """Tell whether a suite is shown; one that was skipped as a whole is not, as in Cerbos."""
    if suite.error or suite.summary.overall is not Result.SKIPPED:
        return True
    return any(
        action.details.skip_reason not in HIDDEN for case in suite.cases for _, _, action in case.actions()
    )


def _error_text(suite: SuiteResult) -> str:
    """Return the error, with what to do about it."""
    hints = [f"({fault.hint})" for fault in suite.faults if fault.hint]
    return " ".join((suite.error, *hints))
