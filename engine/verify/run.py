"""Suites to results: one question per pair of principal and resource, its answer against the expected one.

How a pair is judged is Cerbos's (``internal/verify/run_test_suite.go``): the effect first; only where it is
as expected, the outputs that the test names.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from engine.cel import Timestamp
from engine.check import check
from engine.model import Effect
from engine.verify.filters import NO_ACTIONS, Selection, Sieve
from engine.verify.matrix import PairTest, check_names, check_suite_groups, expand, same_value
from engine.verify.results import (
    ActionResult,
    CaseResult,
    Details,
    Failure,
    OutputFailure,
    PrincipalResult,
    ResourceResult,
    Result,
    Success,
    SuiteResult,
    Summary,
    TestResults,
    Trace,
)
from engine.verify.suites import BrokenSuite, Options, Suite, SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from engine.explain import Explanation
    from engine.model import CheckInput, Decision, JsonValue, Output
    from engine.rules import RuleTable, Settings
    from engine.verify.suites import Unset

NO_NOW = "a policy used a time-based condition, but `now` was not provided in the test options"

_BEGINNING_OF_TIME = Timestamp(-62_135_596_800 * 1_000_000_000)
"""What ``now()`` says in a test that does not say: Go's zero time."""


@dataclass(frozen=True, slots=True)
class Config:
    """How tests are run.

    *batching* off asks for each action by itself. *strict* turns every test's evaluation strict. *traced*
    says which decisions are explained in the results; to explain is slower than to decide.
    """

    selection: Selection = field(default_factory=Selection)
    batching: bool = True
    strict: bool = False
    traced: Literal["none", "failures", "all"] = "none"


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One question that a suite asks, with all that it takes to ask it again.

    *table* answers by the settings of the test. *now* is ``None`` when the test does not say what time it is.
    """

    suite: str
    """The file of the suite."""

    test: PairTest
    input: CheckInput
    table: RuleTable
    now: Timestamp | None

    def check(self) -> tuple[Decision, bool]:
        """Ask, and tell whether the time was asked for although the test does not give it."""
        if self.now is not None:
            return check(self.table, self.input, now=self.now), False
        clock = _Clock()
        return check(self.table, self.input, now=clock), clock.used

    def explain(self) -> Explanation:
        """Ask for the whole way to the decision."""
        from engine.explain import explain  # noqa: PLC0415 - most runs explain nothing

        return explain(self.table, self.input, now=self.time)

    @property
    def time(self) -> Timestamp:
        """What ``now()`` says."""
        return self.now or _BEGINNING_OF_TIME


class _Clock:
    """Tells no time, and notices that it was asked."""

    def __init__(self) -> None:
        self.used = False

    def __call__(self) -> Timestamp:
        self.used = True
        return _BEGINNING_OF_TIME


# -- running -----------------------------------------------------------------------------------------------


def run(table: RuleTable, suites: Iterable[Suite | BrokenSuite], config: Config | None = None) -> TestResults:
    """Run suites one after the other.

    Raises:
        FilterError: the pattern of the selection is no regular expression.

    """
    runner = Runner(table, config or Config())
    return TestResults(tuple(runner.run(suite) for suite in suites))


class Runner:
    """Runs suites on one table."""

    def __init__(self, table: RuleTable, config: Config) -> None:
        self._config = config
        self._sieve = Sieve(config.selection)
        self._tables = Tables(table, strict=config.strict)

    def run(self, suite: Suite | BrokenSuite) -> SuiteResult:
        """Run one suite; what is wrong with it becomes part of the result."""
        if isinstance(suite, BrokenSuite):
            return _errored(suite.file, suite.name, suite.description, suite.error, suite)
        try:
            check_suite_groups(suite)
            if suite.skip:
                return _skipped(suite)
            tests = _tests(suite)
        except SuiteError as error:
            return _errored(suite.file, suite.name, suite.description, error.text)
        cases = tuple(_cases(tests, lambda test: self._actions(suite, test)))
        summary = Summary.of(action.details for case in cases for _, _, action in case.actions())
        return SuiteResult(suite.file, suite.name, summary, suite.description, cases=cases)

    def questions(self, suite: Suite | BrokenSuite) -> Iterator[Question]:
        """Yield the questions of a suite, in the order in which :meth:`run` asks them.

        A suite that cannot be run has none.
        """
        if isinstance(suite, BrokenSuite) or suite.skip:
            return
        try:
            check_suite_groups(suite)
            tests = _tests(suite)
        except SuiteError:
            return
        for test in tests:
            if self._sieve.reason(suite.name, test) is None:
                yield from self._asked(suite, test, self._chosen(test))

    def _chosen(self, test: PairTest) -> tuple[str, ...]:
        return tuple(filter(self._sieve.asks_for, test.input.actions))

    def _asked(self, suite: Suite, test: PairTest, actions: tuple[str, ...]) -> Iterator[Question]:
        table = self._tables.table(test.options)
        now = test.options.now if test.options else None
        for batch in [actions] if self._config.batching else [(action,) for action in actions]:
            yield Question(suite.file, test, test.input._replace(actions=batch), table, now)

    def _actions(self, suite: Suite, test: PairTest) -> Iterator[ActionResult]:
        reason = self._sieve.reason(suite.name, test)
        if reason is not None:
            details = Details(Result.SKIPPED, skip_reason=reason)
            yield from (ActionResult(action, details) for action in test.input.actions)
            return
        chosen = self._chosen(test)
        for question in self._asked(suite, test, chosen):
            yield from self._answers(question)
        left_out = Details(Result.SKIPPED, skip_reason=NO_ACTIONS)
        yield from (ActionResult(name, left_out) for name in test.input.actions if name not in chosen)

    def _answers(self, question: Question) -> Iterator[ActionResult]:
        decision, asked_for_time = question.check()
        judged = {
            action: Details(Result.ERRORED, error=NO_NOW)
            if asked_for_time
            else _judged(question.test, action, decision)
            for action in question.input.actions
        }
        traces = _traces(question) if self._wants_traces(judged.values()) else {}
        for action, details in judged.items():
            trace = traces.get(action)
            yield ActionResult(action, replace(details, trace=trace) if trace else details)

    def _wants_traces(self, judged: Iterable[Details]) -> bool:
        if self._config.traced == "failures":
            return any(details.result > Result.PASSED for details in judged)
        return self._config.traced == "all"


def _traces(question: Question) -> dict[str, Trace]:
    explanation = question.explain()
    data = explanation.to_json()["actions"]
    return {
        one.action: Trace(written, replace(explanation, actions=(one,)).to_text())
        for one, written in zip(explanation.actions, data, strict=True)
    }


class Tables:
    """The same policies under the settings of each test."""

    def __init__(self, table: RuleTable, *, strict: bool) -> None:
        settings = table.settings
        self._plain = table.with_settings(replace(settings, evaluation="strict")) if strict else table
        self._known: dict[Options, RuleTable] = {}

    def table(self, options: Options | None) -> RuleTable:
        """Return the table that answers as *options* say."""
        if options is None:
            return self._plain
        found = self._known.get(options)
        if found is None:
            settings = _settings(self._plain.settings, options)
            found = self._known[options] = self._plain.with_settings(settings)
        return found


def _settings(settings: Settings, options: Options) -> Settings:
    return replace(
        settings,
        evaluation="strict" if options.strict_evaluation else settings.evaluation,
        default_policy_version=options.default_policy_version or settings.default_policy_version,
        default_scope=options.default_scope or settings.default_scope,
        lenient_scope_search=options.lenient_scope_search or settings.lenient_scope_search,
        globals=options.globals or settings.globals,
    )


def _tests(suite: Suite) -> list[PairTest]:
    check_names(suite)
    try:
        return expand(suite)
    except SuiteError as error:
        raise SuiteError(f"Failed to load the test suite: {error.text}") from None


def _cases(
    tests: list[PairTest], actions: Callable[[PairTest], Iterator[ActionResult]]
) -> Iterator[CaseResult]:
    """Put results into the order and nesting of the definitions."""
    for table, of_table in groupby(tests, key=lambda test: test.table):
        principals = []
        for principal, of_principal in groupby(of_table, key=lambda test: test.principal):
            resources = [ResourceResult(test.resource, tuple(actions(test))) for test in of_principal]
            principals.append(PrincipalResult(principal, tuple(resources)))
        yield CaseResult(table.name, tuple(principals))


def _errored(
    file: str, name: str, description: str, error: str, broken: BrokenSuite | None = None
) -> SuiteResult:
    faults = broken.faults if broken else ()
    return SuiteResult(file, name, Summary(Result.ERRORED), description, error, faults=faults)


def _skipped(suite: Suite) -> SuiteResult:
    summary = Summary(Result.SKIPPED)
    return SuiteResult(suite.file, suite.name, summary, suite.description, skip_reason=suite.skip_reason)


# -- judging -----------------------------------------------------------------------------------------------


def _judged(test: PairTest, action: str, decision: Decision) -> Details:
    expected = test.expected.effects.get(action, Effect.DENY)
    found = decision.actions.get(action)
    if found is None:
        return Details(Result.ERRORED, error=f'no result for action "{action}"')
    if found.effect is not expected:
        return Details(Result.FAILED, failure=Failure(expected, found.effect))
    outputs = tuple(output for output in decision.outputs if output.action == action)
    failures = _output_failures(test.expected.outputs.get(action, {}), outputs)
    if failures:
        return Details(Result.FAILED, failure=Failure(expected, found.effect, failures))
    return Details(Result.PASSED, success=Success(found.effect, outputs))


def _output_failures(
    expected: Mapping[str, JsonValue | Unset], outputs: tuple[Output, ...]
) -> tuple[OutputFailure, ...]:
    by_source = {output.src: output for output in outputs}  # of several, the last one counts
    failures = (_output_failure(source, value, by_source.get(source)) for source, value in expected.items())
    return tuple(failure for failure in failures if failure is not None)


def _output_failure(source: str, expected: JsonValue | Unset, found: Output | None) -> OutputFailure | None:
    if found is None:
        return OutputFailure(source, "missing", expected)
    if found.error:
        return OutputFailure(source, "errored", expected, error=found.error)
    if same_value(expected, found.value):
        return None
    return OutputFailure(source, "mismatched", expected, found.value)
