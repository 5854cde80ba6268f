"""What became of the tests: Cerbos's ``TestResults`` as data, and as its JSON.

Results nest as definitions do: suites, tests, principals, resources, actions.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from engine.verify.filters import FILTERED
from engine.verify.suites import UNSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.document import Fault
    from engine.model import Effect, JsonValue, Output
    from engine.verify.suites import Unset


class Result(enum.IntEnum):
    """What became of a test; the worst of several is their overall result."""

    UNSPECIFIED = 0
    SKIPPED = 1
    PASSED = 2
    FAILED = 3
    ERRORED = 4

    @property
    def word(self) -> str:
        """``RESULT_PASSED``."""
        return f"RESULT_{self.name}"


@dataclass(frozen=True, slots=True)
class OutputFailure:
    """An output that is not as expected: not there, another one, or an error instead of a value."""

    source: str
    kind: str
    """``missing``, ``mismatched`` or ``errored``."""

    expected: JsonValue | Unset
    actual: JsonValue = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        said: dict[str, Any] = {} if self.expected is UNSET else {"expected": plain(self.expected)}
        if self.kind == "mismatched":
            said["actual"] = plain(self.actual)
        elif self.kind == "errored":
            said["error"] = self.error
        return _set({"src": self.source}) | {self.kind: said}


@dataclass(frozen=True, slots=True)
class Success:
    """The answer that was expected, and the outputs that came with it."""

    effect: Effect
    outputs: tuple[Output, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        return _set(
            {"effect": self.effect.value, "outputs": [output_json(output) for output in self.outputs]}
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Another answer than expected, or, when *outputs* says so, the expected one with other outputs."""

    expected: Effect
    actual: Effect
    outputs: tuple[OutputFailure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        outputs = [output.to_json() for output in self.outputs]
        return _set({"expected": self.expected.value, "actual": self.actual.value, "outputs": outputs})


@dataclass(frozen=True, slots=True)
class Trace:
    """The way to a decision: as JSON, and as text for a terminal."""

    data: JsonValue
    text: str


@dataclass(frozen=True, slots=True)
class Details:
    """What became of one action; beside *result* the one member that belongs to it is set."""

    result: Result
    success: Success | None = None
    failure: Failure | None = None
    error: str = ""
    skip_reason: str = ""
    trace: Trace | None = None
    """The way to the decision, when it was asked for and there was one."""

    @property
    def counts(self) -> bool:
        """Tell whether the test is part of the totals: not when the person did not ask for it."""
        return self.result is not Result.SKIPPED or self.skip_reason not in FILTERED

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        said: dict[str, Any] = {"result": self.result.word}
        if self.success is not None:
            said["success"] = self.success.to_json()
        elif self.failure is not None:
            said["failure"] = self.failure.to_json()
        elif self.result is Result.ERRORED:
            said["error"] = self.error
        else:
            said["skipReason"] = self.skip_reason
        if self.trace is not None:
            said["explanation"] = self.trace.data
        return said


@dataclass(frozen=True, slots=True)
class ActionResult:
    """One action of a pair."""

    name: str
    details: Details

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        return {"name": self.name, "details": self.details.to_json()}


@dataclass(frozen=True, slots=True)
class ResourceResult:
    """The actions on one resource."""

    name: str
    actions: tuple[ActionResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        return {"name": self.name, "actions": [action.to_json() for action in self.actions]}


@dataclass(frozen=True, slots=True)
class PrincipalResult:
    """The resources that one principal asked for."""

    name: str
    resources: tuple[ResourceResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        return {"name": self.name, "resources": [resource.to_json() for resource in self.resources]}


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One entry of a suite's ``tests``."""

    name: str
    principals: tuple[PrincipalResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        return {"name": self.name, "principals": [principal.to_json() for principal in self.principals]}

    def actions(self) -> Iterator[tuple[PrincipalResult, ResourceResult, ActionResult]]:
        """Yield every action with the names above it."""
        for principal in self.principals:
            for resource in principal.resources:
                for action in resource.actions:
                    yield principal, resource, action


@dataclass(frozen=True, slots=True)
class Summary:
    """The worst result, and how many tests had which."""

    overall: Result = Result.UNSPECIFIED
    tests: int = 0
    counts: Mapping[Result, int] = field(default_factory=dict)
    """In the order of the results; those without tests are left out."""

    @classmethod
    def of(cls, details: Iterable[Details]) -> Summary:
        """Count results."""
        overall = Result.UNSPECIFIED
        counts: dict[Result, int] = {}
        for found in details:
            overall = max(overall, found.result)
            if found.counts:
                counts[found.result] = counts.get(found.result, 0) + 1
        return cls(overall, sum(counts.values()), dict(sorted(counts.items())))

    @classmethod
    def total(cls, summaries: Iterable[Summary]) -> Summary:
        """Add summaries up."""
        overall = Result.UNSPECIFIED
        counts: dict[Result, int] = {}
        for summary in summaries:
            overall = max(overall, summary.overall)
            for result, count in summary.counts.items():
                counts[result] = counts.get(result, 0) + count
        return cls(overall, sum(counts.values()), dict(sorted(counts.items())))

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        counts = [{"result": result.word, "count": count} for result, count in self.counts.items()]
        overall = self.overall.word if self.overall else ""
        return _set({"overallResult": overall, "testsCount": self.tests, "resultCounts": counts})


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """One suite; *error* says why it could not be run, *faults* where in its files."""

    file: str
    name: str
    summary: Summary
    description: str = ""
    error: str = ""
    skip_reason: str = ""
    cases: tuple[CaseResult, ...] = ()
    faults: tuple[Fault, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's JSON."""
        named = _set({"file": self.file, "name": self.name})
        rest = {
            "error": self.error,
            "testCases": [case.to_json() for case in self.cases],
            "description": self.description,
            "skipReason": self.skip_reason,
        }
        return named | {"summary": self.summary.to_json()} | _set(rest)


@dataclass(frozen=True, slots=True)
class TestResults:
    """All suites, in the order of their files, and the totals."""

    __test__: ClassVar[bool] = False  # for pytest: the name does not mean a test

    suites: tuple[SuiteResult, ...]

    @property
    def summary(self) -> Summary:
        """The totals."""
        return Summary.total(suite.summary for suite in self.suites)

    @property
    def ok(self) -> bool:
        """Nothing failed, and nothing was in error."""
        return self.summary.overall < Result.FAILED

    def to_json(self) -> dict[str, Any]:
        """Write Cerbos's ``TestResults`` in its JSON form."""
        suites = [suite.to_json() for suite in self.suites]
        return _set({"suites": suites}) | {"summary": self.summary.to_json()}


# -- values ------------------------------------------------------------------------------------------------


def output_json(output: Output) -> dict[str, Any]:
    """Write an output as Cerbos does: with its value, or with the error that kept it from having one."""
    if output.error:
        return {"src": output.src, "action": output.action, "error": output.error}
    return {"src": output.src, "val": plain(output.value), "action": output.action}


def plain(value: JsonValue) -> Any:
    """Return a JSON value as protobuf writes it: keys sorted, whole numbers without a fraction."""
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return _whole(value)
    return value


def _whole(value: float) -> int:
    """Return a whole number with the digits of its shortest form: 12345678901234567000, not …567168."""
    digits, _, exponent = repr(value).partition("e")
    mantissa, _, fraction = digits.partition(".")
    fraction = fraction.rstrip("0")
    power: int = 10 ** (int(exponent or 0) - len(fraction))
    return int(mantissa + fraction) * power


def json_line(value: JsonValue | Unset) -> str:
    """Write a JSON value on one line, without blanks."""
    shown = None if value is UNSET else plain(value)
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _set(members: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty, as protobuf does."""
    return {name: value for name, value in members.items() if value}
