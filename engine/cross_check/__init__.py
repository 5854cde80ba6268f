"""``--cross-check``: every expression that a check evaluates is evaluated again, by cel-python.

The policies are compiled in an environment whose expressions report each of their evaluations. So what is
compared is what the engine computes on its way to a decision: conditions, conditions of derived roles,
variables and outputs, with the very values that they see.

The extra ``cross-check`` brings cel-python along.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from engine.cel import EvaluationError, RecordValue
from engine.cel.nodes import Entry, Node, Select
from engine.cel.records import readers
from engine.expressions import ACTION_FIELD, IDENTIFIERS, RECORDS, RUNTIME
from engine.literals import literal
from engine.observed import Observer, observed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.cross_check.cel_python import Program
    from engine.rules import Clause, RuleTable

MISSING = "cel-python is not there: install it with `pip install 'extauthz[cross-check]'`"


def is_available() -> bool:
    """Tell whether cel-python is installed."""
    return importlib.util.find_spec("celpy") is not None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two answers to one expression: *ours* and *theirs* are values as CEL text, or ``error: ...``."""

    place: str
    """``file:line:column`` of the expression; empty when it is not known."""

    expression: str
    inputs: Mapping[str, str]
    """What the expression refers to, as CEL text, by path (``R.attr.amount``)."""

    ours: str
    theirs: str

    def __str__(self) -> str:
        saw = "".join(f"\n  {path} = {value}" for path, value in self.inputs.items())
        return (
            f"{self.place}: `{self.expression}`\n  extauthz:   {self.ours}\n  cel-python: {self.theirs}{saw}"
        )


@dataclass(frozen=True, slots=True)
class CrossCheckReport:
    """How far two implementations of CEL agree."""

    compared: int
    """Evaluations that were compared."""

    expressions: int
    """Expressions of which at least one evaluation was compared."""

    not_compared: Mapping[str, int]
    """Evaluations that could not be compared, by reason."""

    disagreements: tuple[Disagreement, ...]
    """One for each expression and pair of answers."""

    @property
    def ok(self) -> bool:
        """Nothing was answered differently."""
        return not self.disagreements

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "compared": self.compared,
            "expressions": self.expressions,
            "notCompared": dict(self.not_compared),
            "disagreements": [
                {
                    "place": found.place,
                    "expression": found.expression,
                    "inputs": dict(found.inputs),
                    "ours": found.ours,
                    "theirs": found.theirs,
                }
                for found in self.disagreements
            ],
        }


class CrossCheck(Observer):
    """Compares what a table evaluates with what cel-python says.

    Raises:
        ModuleNotFoundError: cel-python is not installed (:func:`is_available`).

    """

    def __init__(self) -> None:
        from engine.cross_check import cel_python  # noqa: PLC0415 - an extra

        self._second = cel_python
        self._programs: dict[str, Program | str] = {}
        self._compared: Counter[str] = Counter()
        self._not_compared: Counter[str] = Counter()
        self._found: dict[tuple[Clause, str, str], Disagreement] = {}

    def table(self, table: RuleTable) -> RuleTable:
        """Return a table that decides as *table* does; whatever it evaluates is compared."""
        return observed(table, self)

    @property
    def report(self) -> CrossCheckReport:
        """What was found until now."""
        found = sorted(self._found.values(), key=lambda one: (one.place, one.ours, one.theirs))
        skipped = dict(sorted(self._not_compared.items(), key=lambda item: (-item[1], item[0])))
        return CrossCheckReport(self._compared.total(), len(self._compared), skipped, tuple(found))

    def evaluated(self, clause: Clause, activation: Any, result: Any) -> None:
        """Ask cel-python too."""
        try:
            with self._second.contained():
                program = self._program(clause)
                variables = {name: _variable(name, activation) for name in clause.expression.identifiers}
                theirs = self._answer(program, variables, result)
        except self._second.NotComparable as error:
            self._not_compared[str(error)] += 1
            return
        self._compared[clause.text] += 1
        if not same(result, theirs):
            self._note(clause, variables, _shown(result), _shown(theirs))

    def _program(self, clause: Clause) -> Program:
        found = self._programs.get(clause.text)
        if found is None:
            found = self._programs[clause.text] = self._translated(clause)
        if isinstance(found, str):
            raise self._second.NotComparable(found)
        return found

    def _translated(self, clause: Clause) -> Program | str:
        if _tests_record_fields(clause.expression.nodes):
            return "cel-python cannot tell whether a field of a record is set"
        try:
            return self._second.Program(clause.text)
        except self._second.NotComparable as error:
            return str(error)

    def _answer(self, program: Program, variables: Mapping[str, Any], ours: Any) -> Any:
        if isinstance(ours, RecordValue):
            raise self._second.NotComparable("cel-python has no records")
        failed = isinstance(ours, EvaluationError)
        if failed and LIMITS.search(str(ours)):
            raise self._second.NotComparable("cel-python has no limits")
        try:
            theirs = program.evaluate(variables)
        except self._second.SecondError as error:
            return EvaluationError(str(error))
        loose = [why for name, why in self._second.LOOSE.items() if name in program.calls]
        if failed and loose:
            raise self._second.NotComparable(loose[0])
        return theirs

    def _note(self, clause: Clause, variables: Mapping[str, Any], ours: str, theirs: str) -> None:
        if (clause, ours, theirs) not in self._found:
            inputs = {".".join(path): _at(variables, path) for path in sorted(clause.expression.references)}
            found = Disagreement(clause.place, clause.text, inputs, ours, theirs)
            self._found[clause, ours, theirs] = found


LIMITS = re.compile(r"more than|longer than|larger than|too (?:deep|long|large)|at most")
"""Failures by which an evaluation is cut off, so that hostile input cannot make it take long."""


_READERS = readers(
    tuple(
        replace(record, fields={**record.fields, **ACTION_FIELD}) if record.name == RUNTIME.name else record
        for record in RECORDS
    )
)


def _tests_record_fields(root: Node) -> bool:
    """Tell whether an expression asks by ``has`` for a field of a record (``has(P.scope)``)."""
    return any(
        isinstance(node, Select) and node.test_only and node.operand.type.name in _READERS
        for node in _nodes(root)
    )


def _nodes(root: Any) -> Iterator[Any]:
    """Yield a node and all below it; the fields of a node are nodes, tuples of them, or plain values."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        values = [getattr(node, field.name) for field in fields(node)]
        inner = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
        waiting += [item for item in inner if isinstance(item, (Node, Entry))]


def _variable(name: str, activation: Any) -> Any:
    """Return a variable of an activation as a value of CEL."""
    value = getattr(activation, name)
    record = IDENTIFIERS.get(name)
    return RecordValue(record, _READERS[record], value) if record in _READERS else value


def _at(variables: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """Return what a reference leads to as CEL text, as far as it leads anywhere."""
    found: Any = variables
    for step in path:
        try:
            found = found[step]
        except (KeyError, TypeError, EvaluationError):
            return "not there"
    return literal(found)


def _shown(value: Any) -> str:
    return f"error: {value}" if isinstance(value, EvaluationError) else literal(value)


def same(ours: Any, theirs: Any) -> bool:
    """Tell whether two answers are one: the same type and value, or both a failure."""
    if type(ours) is not type(theirs):
        failures = isinstance(ours, EvaluationError) and isinstance(theirs, EvaluationError)
        return failures or (isinstance(ours, tuple) and same(list(ours), theirs))
    if isinstance(ours, EvaluationError):
        return True
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    return bool(ours == theirs) or (ours != ours and theirs != theirs)  # noqa: PLR0124 - NaN
