"""Tables to single tests: every principal for every resource, with what is expected of each pair.

The order and the words of the complaints are Cerbos's (``internal/verify/test_matrix.go``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.model import NO_AUX_DATA, CheckInput, Effect
from engine.verify.loading import check_groups
from engine.verify.suites import SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engine.model import AuxData, JsonValue, Principal, Resource
    from engine.verify.suites import Expectation, Options, Suite, SuiteTest, Unset

MOST_PAIRS = 200_000
"""How many pairs of a principal and a resource one test may have."""

Pair = tuple[str, str]
Outputs = dict[str, dict[str, "JsonValue | Unset"]]
"""By action and source."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of one pair; an action that is not there is to be denied."""

    effects: Mapping[str, Effect] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, JsonValue | Unset]] = field(default_factory=dict)


NOTHING_EXPECTED = Expected()


@dataclass(frozen=True, slots=True, eq=False)
class PairTest:
    """One pair of a principal and a resource, and the answers expected for it."""

    table: SuiteTest
    principal: str
    """The name of the fixture."""

    resource: str
    """The name of the fixture."""

    input: CheckInput
    expected: Expected
    options: Options | None


def expand(suite: Suite) -> list[PairTest]:
    """Return the single tests of a suite, in the order of its definitions.

    Raises:
        SuiteError: the suite contradicts itself, or refers to something that is not there.

    """
    lookup = Lookup(suite)
    return [test for table in suite.tests for test in _tests(table, lookup)]


def check_suite_groups(suite: Suite) -> None:
    """Check that the members of the suite's groups are there.

    Raises:
        SuiteError: naming the first one that is not.

    """
    lookup = Lookup(suite)
    for kind, groups, exists in (
        ("principal", suite.principal_groups, lookup.has_principal),
        ("resource", suite.resource_groups, lookup.has_resource),
    ):
        try:
            check_groups(groups, exists)
        except SuiteError as error:
            raise SuiteError(f"Invalid {kind} groups in test suite: {error.text}") from None


def check_names(suite: Suite) -> None:
    """Check that no two tests have the same name.

    Raises:
        SuiteError: naming those that do.

    """
    seen: set[str] = set()
    repeated = []
    for table in suite.tests:
        if table.name in seen:
            repeated.append(f"another test named {table.name} already exists")
        seen.add(table.name)
    if repeated:
        raise SuiteError(f"Invalid test suite: {'; '.join(repeated)}")


class Lookup:
    """Finds fixtures by name: first in the suite, then beside it."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite

    def has_principal(self, name: str) -> bool:
        """Tell whether there is such a principal."""
        return name in self.suite.principals or name in self.suite.shared.principals

    def has_resource(self, name: str) -> bool:
        """Tell whether there is such a resource."""
        return name in self.suite.resources or name in self.suite.shared.resources

    def principal(self, name: str) -> Principal:
        """Return the principal called *name*."""
        found: Principal = self._fixture("principals", name, "principal")
        return found

    def resource(self, name: str) -> Resource:
        """Return the resource called *name*."""
        found: Resource = self._fixture("resources", name, "resource")
        return found

    def aux_data(self, name: str) -> AuxData:
        """Return the auxiliary data called *name*; no name means none."""
        found: AuxData = self._fixture("aux_data", name, "auxData") if name else NO_AUX_DATA
        return found

    def principal_group(self, name: str) -> tuple[str, ...]:
        """Return the members of a group of principals."""
        found: tuple[str, ...] = self._fixture("principal_groups", name, "principal group")
        return found

    def resource_group(self, name: str) -> tuple[str, ...]:
        """Return the members of a group of resources."""
        # Cerbos calls a missing group of resources one of principals; its word is kept.
        found: tuple[str, ...] = self._fixture("resource_groups", name, "principal group")
        return found

    def _fixture(self, kind: str, name: str, word: str) -> Any:
        for place in (self.suite, self.suite.shared):
            fixtures: Mapping[str, Any] = getattr(place, kind)
            if name in fixtures:
                return fixtures[name]
        raise SuiteError(f'{word} "{name}" not found')


def _tests(table: SuiteTest, lookup: Lookup) -> Iterator[PairTest]:
    try:
        for (principal, resource), expected in _matrix(table, lookup):
            yield PairTest(
                table,
                principal,
                resource,
                CheckInput(
                    lookup.principal(principal),
                    lookup.resource(resource),
                    table.input.actions,
                    lookup.aux_data(table.input.aux_data),
                ),
                expected,
                table.options or lookup.suite.options,
            )
    except SuiteError as error:
        raise SuiteError(f'invalid test "{table.name}": {error.text}') from None


def _matrix(table: SuiteTest, lookup: Lookup) -> list[tuple[Pair, Expected]]:
    expectations = _expectations(table, lookup)
    asked = table.input
    pairs = _pairs(
        _collected(asked.principals, asked.principal_groups, lookup.principal_group),
        _collected(asked.resources, asked.resource_groups, lookup.resource_group),
    )
    matrix = [(pair, expectations.pop(pair, NOTHING_EXPECTED)) for pair in pairs]
    for principal, resource in expectations:
        message = (
            f'found an expectation for principal "{principal}" and resource "{resource}", '
            "but at least one of these is not present in input"
        )
        raise SuiteError(message)
    return matrix


def _pairs(principals: tuple[str, ...], resources: tuple[str, ...]) -> list[Pair]:
    if len(principals) * len(resources) > MOST_PAIRS:
        message = (
            f"{len(principals)} principals and {len(resources)} resources are more than {MOST_PAIRS} pairs"
        )
        raise SuiteError(message)
    return [(principal, resource) for principal in principals for resource in resources]


def _expectations(table: SuiteTest, lookup: Lookup) -> dict[Pair, Expected]:
    found: dict[Pair, tuple[dict[str, Effect], Outputs]] = {}
    for expectation in table.expected:
        outputs = _outputs(expectation)
        unasked = sorted(outputs.keys() - set(table.input.actions))
        if unasked:
            _refuse_actions("output expectations for actions that are not", unasked)
        for pair in _expected_pairs(expectation, lookup):
            unasked = sorted(expectation.actions.keys() - set(table.input.actions))
            if unasked:
                _refuse_actions("expectations for actions that do not exist", unasked)
            effects, known_outputs = found.setdefault(pair, ({}, {}))
            _merge_effects(pair, effects, expectation.actions)
            _merge_outputs(pair, known_outputs, outputs)
    return {pair: Expected(effects, outputs) for pair, (effects, outputs) in found.items()}


def _refuse_actions(what: str, actions: list[str]) -> None:
    raise SuiteError(f"found {what} in the input actions list: [{','.join(actions)}]")


def _expected_pairs(expectation: Expectation, lookup: Lookup) -> list[Pair]:
    principals = (expectation.principal,) if expectation.principal else expectation.principals
    resources = (expectation.resource,) if expectation.resource else expectation.resources
    return _pairs(
        _collected(principals, expectation.principal_groups, lookup.principal_group),
        _collected(resources, expectation.resource_groups, lookup.resource_group),
    )


def _collected(
    names: tuple[str, ...], groups: tuple[str, ...], members: Callable[[str], tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the names, then the members of the groups, each once."""
    return tuple(dict.fromkeys((*names, *(name for group in groups for name in members(group)))))


def _outputs(expectation: Expectation) -> Outputs:
    return {
        entry.action: {output.source: output.value for output in entry.expected}
        for entry in expectation.outputs
    }


def _merge_effects(pair: Pair, known: dict[str, Effect], more: Mapping[str, Effect]) -> None:
    for action, effect in more.items():
        if known.setdefault(action, effect) is not effect:
            message = (
                f'found inconsistent expectations for principal "{pair[0]}" '
                f'performing action "{action}" on resource "{pair[1]}"'
            )
            raise SuiteError(message)


def _merge_outputs(pair: Pair, known: Outputs, more: Outputs) -> None:
    for action, outputs in more.items():
        entries = known.setdefault(action, {})
        for source, value in outputs.items():
            if source in entries and not same_value(entries[source], value):
                message = (
                    f'found inconsistent expectations for output "{source}" from principal "{pair[0]}" '
                    f'performing action "{action}" on resource "{pair[1]}"'
                )
                raise SuiteError(message)
            entries[source] = value


def same_value(first: JsonValue, second: JsonValue) -> bool:
    """Tell whether two JSON values are the same; unlike in Python, ``true`` is not 1."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_value(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same_value, first, second))
    equal: bool = first == second
    return equal
