"""The variables and constants of a policy: imported and local ones put together, checked, put in order.

A variable may refer to other variables and to constants. Definitions are sorted so that each comes after what
it refers to (names decide where that leaves a choice); a policy keeps only the ones that its conditions and
outputs reach. Messages are Cerbos's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from engine.document import did_you_mean
from engine.rules import NOTHING, Namespace, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.document import Document, Path
    from engine.model import JsonValue
    from engine.module import Module
    from engine.rules import Clause

INVALID_VARIABLE_NAME = "invalid variable name"
INVALID_CONSTANT_NAME = "invalid constant name"
VARIABLE_REDEFINED = "variable redefined"
CONSTANT_REDEFINED = "constant redefined"
UNDEFINED_VARIABLE = "undefined variable"
UNDEFINED_CONSTANT = "undefined constant"
CYCLE = "cyclical variable definitions"

IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*", re.ASCII)
RESERVED = frozenset(("true", "false", "in", "null"))


def identifier_fault(name: str) -> str:
    """Say why *name* cannot be selected in CEL, empty when it can."""
    if name in RESERVED:
        return f'"{name}" is a reserved keyword and can\'t be used as an identifier'
    return "" if IDENTIFIER.fullmatch(name) else f'"{name}" is not a valid identifier'


@dataclass(frozen=True, slots=True)
class Definition:
    """One variable or constant: where it stands, and what it is (``None`` for what does not compile)."""

    document: Document
    path: Path
    value: Any
    source: str

    @property
    def place(self) -> str:
        """``file:line:column``."""
        line, column = self.document.place(self.path)
        return f"{self.document.file}:{line}:{column}"


@dataclass(slots=True)
class Scope:
    """The definitions that one policy sees, by name; a name may have several, which is a fault."""

    module: Module
    constants: dict[str, list[Definition]] = field(default_factory=dict)
    variables: dict[str, list[Definition]] = field(default_factory=dict)
    _parameters: dict[frozenset[str], Parameters] = field(default_factory=dict)
    _order: tuple[str, ...] = ()

    def define_constants(self, values: Mapping[str, JsonValue], path: Path, source: str) -> None:
        """Add constants that stand in the policy itself."""
        for name, value in values.items():
            self._check_name(name, (*path, name), INVALID_CONSTANT_NAME)
            definition = Definition(self.module.document, (*path, name), value, source)
            self.constants.setdefault(name, []).append(definition)

    def define_variables(self, texts: Mapping[str, str], path: Path, source: str) -> None:
        """Add variables that stand in the policy itself, and compile them."""
        for name, text in texts.items():
            here = (*path, name)
            self._check_name(name, here, INVALID_VARIABLE_NAME)
            clause = self.module.clause(text, here, key=False)
            definition = Definition(self.module.document, here, clause, source)
            self.variables.setdefault(name, []).append(definition)

    def import_from(self, other: Scope, name: str) -> None:
        """Add everything that an exported set defines."""
        source = f"import '{name}'"
        for mine, theirs in ((self.constants, other.constants), (self.variables, other.variables)):
            for key, definitions in theirs.items():
                mine.setdefault(key, []).extend(
                    Definition(found.document, found.path, found.value, source) for found in definitions
                )

    def resolve(self) -> None:
        """Check that names are unique and references lead somewhere, and put the variables in order."""
        self._report_redefined(self.constants, CONSTANT_REDEFINED, "Constant")
        self._report_redefined(self.variables, VARIABLE_REDEFINED, "Variable")
        references = {name: self._references(name) for name in self.variables}
        self._order = tuple(self._sorted(references))

    def parameters(self, clauses: Iterable[Clause]) -> Parameters:
        """Return what *clauses* need: the variables they reach, the constants those reach."""
        variables: set[str] = set()
        constants: set[str] = set()
        for clause in clauses:
            self._use(clause, variables, constants)
        used = frozenset((*(f"V.{name}" for name in variables), *(f"C.{name}" for name in constants)))
        if not used:
            return NOTHING
        if used not in self._parameters:
            self._parameters[used] = Parameters(
                Namespace({name: self.constants[name][-1].value for name in sorted(constants)}),
                tuple((name, self.variables[name][-1].value) for name in self._order if name in variables),
            )
        return self._parameters[used]

    def check_references(self, clause: Clause) -> None:
        """Report names in a condition or output that are not defined."""
        for word, names, known, kind in (
            ("constant", clause.constants, self.constants, UNDEFINED_CONSTANT),
            ("variable", clause.variables, self.variables, UNDEFINED_VARIABLE),
        ):
            for name in names:
                if name not in known:
                    hint = did_you_mean(name, known)
                    self.module.report(kind, f"Undefined {word} '{name}'", clause.path, key=True, hint=hint)

    # -- checks --------------------------------------------------------------------------------------------

    def _check_name(self, name: str, path: Path, kind: str) -> None:
        if message := identifier_fault(name):
            self.module.report(kind, message, path, key=True)

    def _report_redefined(self, known: Mapping[str, list[Definition]], kind: str, word: str) -> None:
        for name, definitions in known.items():
            if len(definitions) > 1:
                places = _listed([f"{found.source} ({found.place})" for found in definitions])
                self.module.report(kind, f"{word} '{name}' has multiple definitions in {places}")

    def _references(self, name: str) -> frozenset[str]:
        """Return the variables that a variable refers to, and report those it cannot refer to."""
        definition = self.variables[name][-1]
        if definition.value is None:
            return frozenset()
        for constant in definition.value.constants:
            if constant not in self.constants:
                message = f"Undefined constant '{constant}' referenced in variable '{name}'"
                self._report_at(
                    definition, UNDEFINED_CONSTANT, message, did_you_mean(constant, self.constants)
                )
        found = definition.value.variables
        for variable in found:
            if variable == name:
                self._report_at(definition, CYCLE, f"Variable '{name}' references itself")
            elif variable not in self.variables:
                message = f"Undefined variable '{variable}' referenced in variable '{name}'"
                self._report_at(
                    definition, UNDEFINED_VARIABLE, message, did_you_mean(variable, self.variables)
                )
        return frozenset(other for other in found if other != name and other in self.variables)

    def _report_at(self, definition: Definition, kind: str, message: str, hint: str = "") -> None:
        self.module.report(kind, message, definition.path, document=definition.document, hint=hint)

    # -- order ---------------------------------------------------------------------------------------------

    def _sorted(self, references: Mapping[str, frozenset[str]]) -> Iterator[str]:
        """Yield names so that each comes after what it refers to; report what goes in circles."""
        sorter = TopologicalSorter(references)
        try:
            sorter.prepare()
        except CycleError:
            self._report_cycles(references)
            return
        while sorter.is_active():
            ready = sorted(sorter.get_ready())
            sorter.done(*ready)
            yield from ready

    def _report_cycles(self, references: Mapping[str, frozenset[str]]) -> None:
        for cycle in _cycles(references):
            places = [f"'{name}' ({self.variables[name][-1].place})" for name in cycle]
            self._report_at(self.variables[cycle[0]][-1], CYCLE, f"Variables {_listed(places)} form a cycle")

    # -- use -----------------------------------------------------------------------------------------------

    def _use(self, clause: Clause, variables: set[str], constants: set[str]) -> None:
        """Add what *clause* refers to, and what that refers to in turn."""
        waiting = [clause]
        while waiting:
            clause = waiting.pop()
            constants.update(name for name in clause.constants if name in self.constants)
            for name in clause.variables:
                found = self._clause(name)
                if found is not None and name not in variables:
                    variables.add(name)
                    waiting.append(found)

    def _clause(self, name: str) -> Clause | None:
        found = self.variables.get(name)
        return found[-1].value if found else None


def _listed(words: list[str]) -> str:
    """Join words as in a sentence: ``a``, ``a and b``, ``a, b, and c``."""
    if len(words) < 3:
        return " and ".join(words)
    return f"{', '.join(words[:-1])}, and {words[-1]}"


def _cycles(graph: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Return the groups of names that reach each other, each sorted (the strongly connected components)."""
    reach = {name: _reachable(name, graph) for name in graph}
    groups = {
        frozenset(other for other in reach[name] if other in reach and name in reach[other])
        for name in graph
        if name in reach[name]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(name: str, graph: Mapping[str, frozenset[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in graph.get(waiting.pop(), ()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found
