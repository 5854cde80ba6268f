"""Results as JUnit's XML, byte for byte as Cerbos writes it (``internal/verify/junit``).

That includes two peculiarities: a suite with a test in error shows no tests but one empty error, and its
error is counted beside those of its tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.verify.results import Result, json_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.model import Effect, Output
    from engine.verify.results import (
        ActionResult,
        CaseResult,
        Details,
        OutputFailure,
        SuiteResult,
        Summary,
        TestResults,
    )

INDENT = "  "
SKIPPED_TEST = "This test was skipped"
SKIPPED_SUITE = "This test suite was skipped"


@dataclass(frozen=True, slots=True)
class _Element:
    """An element with its attributes in order; *raw* content stands as it is between the tags."""

    name: str
    attributes: tuple[tuple[str, str], ...] = ()
    children: tuple[_Element, ...] = ()
    raw: str = ""

    def lines(self, indent: str = "") -> Iterator[str]:
        attributes = "".join(f' {name}="{_escaped(value)}"' for name, value in self.attributes)
        start, end = f"{indent}<{self.name}{attributes}>", f"</{self.name}>"
        if not self.children:
            yield f"{start}{self.raw}{end}"
            return
        yield start
        for child in self.children:
            yield from child.lines(indent + INDENT)
        yield f"{indent}{end}"


def junit(results: TestResults, *, verbose: bool = False) -> str:
    """Write results as XML, without a line break at the end; *verbose* says why a suite has no tests."""
    summary = results.summary
    suites = results.suites
    counts = _counts(
        errors=_count(summary, Result.ERRORED) + _having(suites, Result.ERRORED),
        failures=_count(summary, Result.FAILED),
        skipped=_count(summary, Result.SKIPPED) + _having(suites, Result.SKIPPED),
        tests=summary.tests,
    )
    children = tuple(_suite(suite, verbose=verbose) for suite in suites)
    return "\n".join(_Element("testsuites", counts, children).lines())


def _counts(*, errors: int, failures: int, skipped: int, tests: int) -> tuple[tuple[str, str], ...]:
    named = (("errors", errors), ("failures", failures), ("skipped", skipped), ("tests", tests))
    return tuple((name, str(number)) for name, number in named)


def _count(summary: Summary, result: Result) -> int:
    return summary.counts.get(result, 0)


def _having(suites: Iterable[SuiteResult], result: Result) -> int:
    return sum(suite.summary.overall is result for suite in suites)


def _suite(suite: SuiteResult, *, verbose: bool) -> _Element:
    overall = suite.summary.overall
    errored, skipped = overall is Result.ERRORED, overall is Result.SKIPPED
    shown = () if errored or skipped else suite.cases
    details = [action.details for case in shown for _, _, action in case.actions()]
    description = (("description", suite.description),) if suite.description else ()
    counts = _counts(
        errors=int(errored),
        failures=sum(found.result is Result.FAILED for found in details),
        skipped=int(skipped) or sum(found.result is Result.SKIPPED for found in details),
        tests=suite.summary.tests,
    )
    children: list[_Element] = []
    if errored:
        children.append(_Element("error", (("type", overall.word),), raw=_escaped(suite.error)))
    elif skipped and verbose:
        children.append(_Element("skipped", (("message", SKIPPED_SUITE),)))
    children.append(_Element("properties"))
    children += [element for case in shown for element in _cases(suite, case)]
    attributes = (*description, ("name", suite.name), ("file", suite.file), *counts)
    return _Element("testsuite", attributes, tuple(children))


def _cases(suite: SuiteResult, case: CaseResult) -> Iterator[_Element]:
    for principal, resource, action in case.actions():
        named = (("principal", principal.name), ("resource", resource.name), ("action", action.name))
        attributes = (
            ("file", suite.file),
            ("classname", ".".join(name for _, name in named)),
            ("name", case.name),
        )
        properties = tuple(
            _Element("property", (("name", name),), raw=_escaped(value)) for name, value in named
        )
        yield _Element("testcase", attributes, (*_outcome(action), _Element("properties", (), properties)))


def _outcome(action: ActionResult) -> Iterator[_Element]:
    details = action.details
    if details.success is not None:
        found = details.success
        outputs = tuple(map(_output, found.outputs))
        yield _judged("success", (), outputs, found.effect, found.effect, details)
    elif details.failure is not None:
        failure = details.failure
        kind = "Output" if failure.outputs else "Effect"
        message = (("message", f"{kind} expectation unsatisfied"),)
        outputs = tuple(map(_failed_output, failure.outputs))
        yield _judged("failure", message, outputs, failure.actual, failure.expected, details)
    elif details.result is Result.SKIPPED:
        yield _Element("skipped", (("message", SKIPPED_TEST),))


def _judged(
    name: str,
    message: tuple[tuple[str, str], ...],
    outputs: tuple[_Element, ...],
    actual: Effect,
    expected: Effect,
    details: Details,
) -> _Element:
    listed = (_Element("outputs", (), outputs),) if outputs else ()
    effects = (_Element("actual", raw=actual.value), _Element("expected", raw=expected.value))
    return _Element(name, (("type", details.result.word), *message), (*listed, *effects))


def _failed_output(failure: OutputFailure) -> _Element:
    actual = ""
    if failure.kind == "mismatched":
        actual = json_line(failure.actual)
    elif failure.kind == "errored":
        actual = _not_evaluated(failure.error)
    return _output_element(failure.source, json_line(failure.expected), actual)


def _output(output: Output) -> _Element:
    value = json_line(output.value)
    return _output_element(output.src, value, _not_evaluated(output.error) if output.error else value)


def _not_evaluated(error: str) -> str:
    return f"Failed to evaluate output expression: {error}"


def _output_element(source: str, expected: str, actual: str) -> _Element:
    children = (_Element("expected", raw=_cdata(expected)), _Element("actual", raw=_cdata(actual)))
    return _Element("output", (("src", source),), children)


# -- text --------------------------------------------------------------------------------------------------

_ESCAPES = str.maketrans(
    {
        '"': "&#34;",
        "'": "&#39;",
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "\t": "&#x9;",
        "\n": "&#xA;",
        "\r": "&#xD;",
    }
)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML has no way to write."""


def _escaped(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text).translate(_ESCAPES)


def _cdata(text: str) -> str:
    if not text:
        return ""
    inner = _NOT_XML.sub("\ufffd", text).replace("]]>", "]]]]><![CDATA[>")
    return f"<![CDATA[{inner}]]>"
