"""Policies to a rule table, with the faults of all files reported at once.

A policy is compiled together with the sets it imports. What a policy compiled to is kept, and used again as
long as neither its file nor an imported one has changed: after an edit only the policies concerned are
compiled.

Kinds of faults and their wording are Cerbos's (``internal/compile/errors.go``).
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from engine import names
from engine import policy as p
from engine.advice import Adviser, Subject, attached
from engine.advice.uses import uses
from engine.cel.environment import KeptPrograms
from engine.conditions import condition_of, inverted, match_of
from engine.definitions import Scope
from engine.document import Fault, did_you_mean
from engine.expressions import environment
from engine.globs import Matcher, is_literal, matcher, rule_matcher
from engine.library import BODY_NAMES, Library, kind_matcher, needs_consent, outline
from engine.load import PolicyError
from engine.model import Effect
from engine.module import Module
from engine.rules import (
    NOTHING,
    CompiledPolicy,
    DerivedRole,
    PrincipalRule,
    RoleRule,
    Row,
    Rule,
    RuleTable,
    Selector,
    Settings,
)
from engine.schema import Schemas, schema_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from engine.advice.warnings import Attached
    from engine.cel import Environment
    from engine.conditions import Match
    from engine.document import Document, Path
    from engine.rules import Clause, Condition, Parameters

IMPORT_NOT_FOUND = "import not found"
UNKNOWN_DERIVED_ROLE = "unknown derived role"
AMBIGUOUS_DERIVED_ROLE = "ambiguous derived role"
INVALID_RULE = "invalid resource rule"
EMPTY_OUTPUT = "empty output"
SCRIPTS = "scripts in conditions are no longer supported"


def compile_policies(
    policies: Iterable[p.Policy],
    settings: Settings | None = None,
    schemas: Mapping[str, bytes] | None = None,
) -> RuleTable:
    """Compile *policies* to a rule table; *schemas* are the store's files below ``_schemas/``.

    Raises:
        PolicyError: with every fault of every file.

    """
    return Compiler(settings or Settings()).compile(policies, schemas)


def environment_of(settings: Settings) -> Environment:
    """Make the environment that a compiler with *settings* compiles expressions in."""
    # Where schemas are enforced, what expressions do with attributes is asked of nearly all of them.
    inspect = uses if settings.schema_enforcement != "none" else None
    return environment(runtime_action=settings.runtime_action, inspect=inspect)


class Judgements(KeptPrograms, Protocol):
    """Remembers of which policies there was nothing to say: no fault, no warning."""

    def is_sound(self, policy: p.Policy, contents: Iterable[bytes | None]) -> bool:
        """Tell whether that was so of a policy with *contents*: its file's, then those of what it imports."""

    def note_sound(self, contents: Iterable[bytes | None]) -> None:
        """Remember it."""


class Compiler:
    """Compiles the states of a store one after the other, each time only what has changed."""

    def __init__(self, settings: Settings, *, schemas: Schemas | None = None) -> None:
        self._settings = settings
        self.environment = environment_of(settings)
        """What expressions are compiled in."""
        self._kept: dict[p.Policy, _Kept] = {}
        """What the policies of the last state came to."""
        self._schemas = schemas or Schemas()
        self._adviser = Adviser()
        self._last: _Compiled | None = None
        """The last state that had no faults."""

    def compile(
        self,
        policies: Iterable[p.Policy],
        schemas: Mapping[str, bytes] | None = None,
        judgements: Judgements | None = None,
    ) -> RuleTable:
        """Compile *policies* to a rule table; disabled ones are treated as not there.

        *schemas* are the store's files below ``_schemas/``, by their paths. What *judgements* say is sound is
        compiled when it is first asked.

        Raises:
            PolicyError: with every fault of every file.

        """
        self._last = None
        library = Library(policies)
        state = _State(library, self._settings, self.environment, self._kept, judgements)
        results = [state.result(policy) for policy in library.policies]
        self._kept = state.kept
        self._schemas = self._schemas.updated(schemas or {})
        faults = dict.fromkeys(library.faults)
        unused: list[Fault] = []
        used = _used_sets(library)
        for policy, found in zip(library.policies, results, strict=True):
            for fault in found.faults:
                if policy.key in used or fault.kind == IMPORT_NOT_FOUND:
                    faults[fault] = None
                else:
                    unused.append(fault)
        faults.update(dict.fromkeys(self._schema_faults(library.policies)))
        for policy in library.policies:
            policy.document.forget_nodes()
        if faults:
            raise PolicyError(faults)
        compiled = (found.compiled for found in results if found.compiled)
        subjects = map(functools.partial(self._subject, library), library.policies, results)
        warnings = sorted((*unused, *self._adviser.warnings(subjects)))
        for policy in library.policies:
            policy.document.forget_nodes()
        table = RuleTable(compiled, self._settings, self._schemas, tuple(warnings))
        self._last = _Compiled(library, table, tuple(unused))
        if judgements is not None:
            self._note_sound(judgements, library.policies, results)
        return table

    def _note_sound(
        self, judgements: Judgements, policies: Iterable[p.Policy], results: Iterable[_Kept]
    ) -> None:
        for policy, found in zip(policies, results, strict=True):
            if not found.sound and _may_wait(policy, self._settings) and self._adviser.is_silent(policy):
                judgements.note_sound(_contents(policy, found.needs))

    def replaced(self, table: RuleTable, policies: Mapping[p.Policy, p.Policy]) -> RuleTable | None:
        """Return *table* with other policies in the place of some; this is fast.

        Returns ``None`` where there is more to it: *table* is not the last one that was made, something is
        wrong, or a difference matters to other policies. Then :meth:`compile` all of them.
        """
        last = self._last
        if last is None or last.table is not table:
            return None
        if any(outline(before) != outline(after) for before, after in policies.items()):
            return None
        policies = {before: after for before, after in policies.items() if not before.disabled}
        library, kept = last.library.replaced(policies), self._kept
        gone, concerned = _concerned(policies, kept)
        state = _State(library, self._settings, self.environment, kept)
        results = [state.result(policy) for policy in concerned]
        if any(found.faults for found in (*results, *(kept[policy] for policy in gone))):
            return None
        self._last = None  # should anything go wrong from here on, all of it is looked at again
        for policy in gone:
            del kept[policy]
        kept.update(state.kept)
        subjects = map(functools.partial(self._subject, library), concerned, results)
        warnings = sorted((*last.unused, *self._adviser.updated(gone, subjects)))
        for policy in concerned:
            policy.document.forget_nodes()
        table = table.replaced((found.compiled for found in results if found.compiled), tuple(warnings))
        self._last = _Compiled(library, table, last.unused)
        return table

    def _subject(self, library: Library, policy: p.Policy, found: _Kept) -> Subject:
        """Return what is to be looked at for mistakes; schemas only where they are enforced."""
        checked = self._settings.schema_enforcement != "none"
        asked = root_schemas(policy, library) if checked else None
        schemas = attached(asked, self._schemas) if asked else _NO_SCHEMAS
        return Subject(policy, found.compiled, found.roles, found.scope, schemas, found.sound)

    def _schema_faults(self, policies: Iterable[p.Policy]) -> Iterator[Fault]:
        """Yield what is wrong with the attribute schemas of all policies, also of those in a scope."""
        if self._settings.schema_enforcement == "none":
            return
        for policy in policies:
            if isinstance(policy.body, p.ResourcePolicy) and policy.body.schemas is not None:
                yield from schema_faults(policy, policy.body.schemas, self._schemas)


def _used_sets(library: Library) -> set[str]:
    """Return the keys of all policies but the sets that nothing imports.

    Cerbos does not compile those: what is wrong with them concerns no decision, so it is a warning.
    """
    used = {policy.key for policy in library.policies if not isinstance(policy.body, p.ImportedSet)}
    waiting = list(used)
    while waiting:
        policy = library.get(waiting.pop())
        for key in policy.imports if policy else ():
            if key not in used:
                used.add(key)
                waiting.append(key)
    return used


def _concerned(
    policies: Mapping[p.Policy, p.Policy], kept: Mapping[p.Policy, _Kept]
) -> tuple[Collection[p.Policy], Collection[p.Policy]]:
    """Return what has to be forgotten when policies are replaced, and what to be compiled again.

    A policy that imports a set is compiled again when the set is another one.
    """
    sets = {policy for policy in policies if isinstance(policy.body, p.ImportedSet)}
    importers = [
        policy
        for policy, found in (kept.items() if sets else ())
        if found.needs and policy not in policies and not sets.isdisjoint(found.needs)
    ]
    return {*policies, *importers}, [*policies.values(), *importers]


def root_schemas(policy: p.Policy, library: Library) -> p.Schemas | None:
    """Return the schemas for a resource policy: those of the policy without a scope, as in Cerbos."""
    body = policy.body
    if not isinstance(body, p.ResourcePolicy):
        return None
    root = library.get(names.resource_key(body.resource, body.version)) if body.scope else policy
    return root.body.schemas if root is not None and isinstance(root.body, p.ResourcePolicy) else None


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A state that had no faults, and what is wrong with sets that nothing imports."""

    library: Library
    table: RuleTable
    unused: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a policy came to, and the policies that it depends on."""

    faults: tuple[Fault, ...]
    needs: tuple[p.Policy | None, ...]
    scope: Scope
    compiled: CompiledPolicy | None = None
    roles: Mapping[str, DerivedRole] | None = None
    sound: bool = False
    """There is nothing to say of it, as was found at another time; it is compiled when it is first asked."""


def _may_wait(policy: p.Policy, settings: Settings) -> bool:
    """Tell whether a policy that is sound may be compiled later.

    Not where others look into it at once, or where schemas have a say in what is wrong with it.
    """
    return (
        type(policy.body) is p.ResourcePolicy
        and settings.schema_enforcement == "none"
        and not settings.runtime_action
    )


def _contents(policy: p.Policy, needs: Iterable[p.Policy | None]) -> Iterator[bytes | None]:
    """Yield all that decides whether a policy is sound."""
    yield policy.document.content
    for needed in needs:
        yield None if needed is None else needed.document.content


class _State:
    """One state of the store being compiled."""

    def __init__(
        self,
        library: Library,
        settings: Settings,
        environment: Environment,
        before: Mapping[p.Policy, _Kept],
        judgements: Judgements | None = None,
    ) -> None:
        self.library = library
        self.settings = settings
        self.environment = environment
        self.kept: dict[p.Policy, _Kept] = {}
        self._before = before
        self._judgements = judgements

    def result(self, policy: p.Policy) -> _Kept:
        """Compile a policy, or take what it came to before."""
        found = self.kept.get(policy)
        if found is None:
            needs = tuple(self._needs(policy)) if policy.imports else ()
            found = self._before.get(policy)
            if found is None or found.needs != needs:
                found = self._put_off(policy, needs) or self._compile(policy, needs)
            self.kept[policy] = found
        return found

    def imported(self, key: str) -> _Kept | None:
        """Return what the imported set with *key* came to."""
        policy = self.library.get(key)
        return None if policy is None else self.result(policy)

    def _needs(self, policy: p.Policy) -> Iterator[p.Policy | None]:
        for key in policy.imports:
            found = self.library.get(key)
            yield found
            if found is not None and isinstance(found.body, p.DerivedRoles):
                yield from self._needs(found)

    def _put_off(self, policy: p.Policy, needs: tuple[p.Policy | None, ...]) -> _Kept | None:
        """Compile a policy later, if it may be and is known to be sound."""
        known = self._judgements
        if known is None or not _may_wait(policy, self.settings):
            return None
        if not known.is_sound(policy, _contents(policy, needs)):
            return None
        made = functools.partial(_Unit, self, policy, known)
        return _Kept((), needs, made().scope, _Waiting.of(policy, made), sound=True)

    def _compile(self, policy: p.Policy, needs: tuple[p.Policy | None, ...]) -> _Kept:
        unit = _Unit(self, policy)
        unit.compile()
        return _Kept(tuple(unit.module.faults), needs, unit.scope, unit.compiled, unit.roles)


class _Unit:
    """One policy being compiled."""

    def __init__(self, state: _State, policy: p.Policy, programs: KeptPrograms | None = None) -> None:
        self.state = state
        self.policy = policy
        self.module = Module(policy, state.environment, programs)
        self.scope = Scope(self.module)
        self.root: Path = (BODY_NAMES[type(policy.body)],)
        self.compiled: CompiledPolicy | None = None
        self.roles: dict[str, DerivedRole] = {}

    def compile(self) -> None:
        """Compile it all."""
        self.define()
        _COMPILERS[type(self.policy.body)](self, self.policy.body)

    # -- definitions ---------------------------------------------------------------------------------------

    def define(self) -> None:
        """Put variables and constants together: imported ones, then the policy's own."""
        body, root = self.policy.body, self.root
        if isinstance(body, p.ExportConstants):
            self.scope.define_constants(body.definitions, (*root, "definitions"), "definitions")
        elif isinstance(body, p.ExportVariables):
            self.scope.define_variables(body.definitions, (*root, "definitions"), "definitions")
        else:
            for kind, imports in (
                ("constants", body.constants.imports),
                ("variables", body.variables.imports),
            ):
                self._import_sets(kind, imports)
            local = (*root, "constants", "local")
            self.scope.define_constants(body.constants.local, local, "policy local constants")
            local = (*root, "variables", "local")
            self.scope.define_variables(body.variables.local, local, "policy local variables")
            source = "deprecated top-level policy variables"
            self.scope.define_variables(self.policy.variables, ("variables",), source)
            self.scope.resolve()

    def _import_sets(self, kind: str, imports: Sequence[str]) -> None:
        key, cls = _SETS[kind]
        for index, name in enumerate(imports):
            found = self.state.imported(key(name))
            if found is not None:
                self.scope.import_from(found.scope, name)
                continue
            path = (*self.root, kind, "import", index)
            hint = did_you_mean(name, self.state.library.set_names(cls))
            message = f"{kind.capitalize()} import '{name}' cannot be found"
            self.module.report(IMPORT_NOT_FOUND, message, path, hint=hint)

    # -- expressions ---------------------------------------------------------------------------------------

    def condition(self, condition: p.Condition | None, path: Path, clauses: list[Clause]) -> Match | None:
        """Compile a condition; its expressions are added to *clauses*."""
        if condition is None:
            return None
        if condition.match is None:
            self.module.report(SCRIPTS, "Unsupported feature", path, key=True)
            return None
        found = self._match_clauses(condition.match, (*path, "match"))
        if any(clause is None for clause in found):
            return None
        complete = [clause for clause in found if clause is not None]
        clauses.extend(complete)
        in_order = iter(complete)
        return match_of(condition.match, lambda _: next(in_order))

    def _match_clauses(self, match: p.Match, path: Path) -> list[Clause | None]:
        """Compile the expressions of a condition, depth first, all of them even if some fail."""
        if isinstance(match, p.Expr):
            return [self.clause(match.text, (*path, "expr"))]
        here = (*path, _MATCH_NAMES[type(match)], "of")
        return [found for i, part in enumerate(match.of) for found in self._match_clauses(part, (*here, i))]

    def clause(self, text: str, path: Path) -> Clause | None:
        """Compile one expression of a condition or output, and check the names it refers to."""
        clause = self.module.clause(text, path, key=True)
        if clause is not None:
            self.scope.check_references(clause)
        return clause

    def output(self, output: p.OutputRule | None, path: Path, clauses: list[Clause]) -> _Said:
        """Compile the expressions of an output."""
        if output is None:
            return _Said()
        here = (*path, "output")
        when = (*here, "when")
        activated = (*when, "ruleActivated") if output.when.rule_activated else (*here, "expr")
        said = _Said(
            self.clause(output.rule_activated, activated) if output.rule_activated else None,
            self.clause(output.when.condition_not_met, (*when, "conditionNotMet"))
            if output.when.condition_not_met
            else None,
        )
        if not output.rule_activated and not output.when.condition_not_met:
            message = "output must have at least one expression"
            self.module.report(EMPTY_OUTPUT, message, here, key=True)
        clauses.extend(clause for clause in (said.rule_activated, said.condition_not_met) if clause)
        return said

    # -- derived roles -------------------------------------------------------------------------------------

    def imported_roles(self, body: p.ResourcePolicy) -> dict[str, list[_ImportedRole]]:
        """Return the roles of all imported sets, by name."""
        found: dict[str, list[_ImportedRole]] = {}
        for index, name in enumerate(body.import_derived_roles):
            path = (*self.root, "importDerivedRoles", index)
            imported = self.state.imported(names.derived_roles_key(name))
            if imported is None:
                hint = did_you_mean(name, self.state.library.set_names(p.DerivedRoles))
                message = f'Derived roles import "{name}" cannot be found'
                self.module.report(IMPORT_NOT_FOUND, message, path, hint=hint)
            elif imported.roles is not None:
                for role, derived in imported.roles.items():
                    file = imported.scope.module.file
                    found.setdefault(role, []).append(_ImportedRole(derived, name, file, path))
        return found

    def referenced_roles(self, body: p.ResourcePolicy) -> dict[str, DerivedRole]:
        """Return the derived roles that the rules refer to, and report those that are not there, or twice."""
        known = self.imported_roles(body)
        found: dict[str, DerivedRole] = {}
        refused: dict[str, Path] = {}  # by role: Cerbos reports each once, where it stands last
        for position, rule in enumerate(body.rules):
            for index, name in enumerate(rule.derived_roles):
                candidates = known.get(name, [])
                if len(candidates) == 1:
                    found[name] = candidates[0].role
                else:
                    refused[name] = (*self.root, "rules", position, "derivedRoles", index)
        for name, path in refused.items():
            self._refuse_role(name, known.get(name, []), known, path)
        return found

    def _refuse_role(
        self, name: str, candidates: Sequence[_ImportedRole], known: Mapping[str, Any], path: Path
    ) -> None:
        if not candidates:
            message = f'Derived role "{name}" is not defined in any imports'
            self.module.report(UNKNOWN_DERIVED_ROLE, message, path, hint=did_you_mean(name, known))
            return
        places = ((found, self.module.document.place(found.path)) for found in candidates)
        listed = ", ".join(
            f'{found.file} (imported as "{found.set_name}" at {place.line}:{place.column})'
            for found, place in places
        )
        message = f'Derived role "{name}" is defined in more than one import: {listed}'
        self.module.report(AMBIGUOUS_DERIVED_ROLE, message)


class _Waiting(CompiledPolicy):
    """A resource policy that is compiled when it is first asked for its rules."""

    __slots__ = ("_unit",)

    _unit: Callable[[], _Unit] | None
    """Begins to compile it: anew each time, should it fail for a passing reason; ``None`` when it is done."""

    _COMPILED = ("rules", "derived_roles")
    _one_at_a_time = threading.RLock()

    @classmethod
    def of(cls, policy: p.Policy, unit: Callable[[], _Unit]) -> _Waiting:
        """Make one of a resource policy that is known to be sound."""
        body: Any = policy.body
        made = cls.__new__(cls)
        known = {
            "policy": policy,
            "key": policy.key,
            "scope": body.scope,
            "version": body.version,
            "name": names.sanitised(body.resource),
            "parent_roles": (),
            "refusal": None,
            "_unit": unit,
        }
        for name, value in known.items():
            object.__setattr__(made, name, value)
        return made

    def __getattr__(self, name: str) -> Any:
        """Return what is not there yet: dataclasses keep their fields in slots, and those are empty."""
        if name not in self._COMPILED:
            raise AttributeError(name)
        with self._one_at_a_time:
            if self._unit is not None:
                self._compile(self._unit())
        return object.__getattribute__(self, name)

    def _compile(self, unit: _Unit) -> None:
        unit.compile()
        compiled = unit.compiled
        if compiled is None or unit.module.faults:
            raise PolicyError(unit.module.faults)  # not sound at all: nothing is decided by it
        for name in self._COMPILED:
            object.__setattr__(self, name, getattr(compiled, name))
        object.__setattr__(self, "_unit", None)


_NO_SCHEMAS: Mapping[str, Attached] = {}

_SETS: Mapping[str, tuple[Callable[[str], str], type[p.ImportedSet]]] = {
    "constants": (names.export_constants_key, p.ExportConstants),
    "variables": (names.export_variables_key, p.ExportVariables),
}
_MATCH_NAMES: Mapping[type, str] = {p.All: "all", p.Any_: "any", p.None_: "none"}


@dataclass(frozen=True, slots=True)
class _Said:
    """The compiled expressions of an output."""

    rule_activated: Clause | None = None
    condition_not_met: Clause | None = None

    @property
    def swapped(self) -> _Said:
        """For a rule that denies when the author's condition is not met."""
        return _Said(self.condition_not_met, self.rule_activated)


@dataclass(frozen=True, slots=True)
class _ImportedRole:
    """A derived role, and the import that brought it."""

    role: DerivedRole
    set_name: str
    file: str
    path: Path


# -- rules -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parts:
    """The compiled parts of a rule."""

    match: Match | None
    said: _Said
    clauses: tuple[Clause, ...] = ()
    effect: Effect | None = None
    authored_effect: Effect | None = None
    condition: Condition | None = None

    @classmethod
    def made(
        cls, effect: Effect | None, match: Match | None, said: _Said, authored: Effect | None = None
    ) -> _Parts:
        """Put together what rows are made of; *authored* is the effect that stands in the policy."""
        condition = None if match is None else condition_of(match)
        return cls(match, said, (), effect, authored, condition)

    def consenting(self, effect: Effect, body: p.Body) -> _Parts:
        """Where the scopes above have to consent, a conditional allow denies when its condition is not met.

        An allow without a condition stays, but only passes the question up. Outputs are not exchanged, as in
        Cerbos.
        """
        if effect is Effect.ALLOW and self.match is not None and needs_consent(body):
            return _Parts.made(Effect.DENY, inverted(self.match), self.said, effect)
        return _Parts.made(effect, self.match, self.said, effect)

    @property
    def narrowing(self) -> _Parts:
        """An entry of a role policy denies when its condition is not met; without one it only speaks."""
        if self.match is None:
            return _Parts.made(None, None, self.said, Effect.ALLOW)
        return _Parts.made(Effect.DENY, inverted(self.match), self.said.swapped, Effect.ALLOW)


_REFUSAL = _Parts.made(Effect.DENY, None, _Said())
"""What a role policy does to an action that it does not list."""


def _parts(unit: _Unit, rule: p.ResourceRule | p.PrincipalAction | p.RoleRule, path: Path) -> _Parts:
    clauses: list[Clause] = []
    match = unit.condition(rule.condition, (*path, "condition"), clauses)
    said = unit.output(rule.output, path, clauses)
    return _Parts(match, said, tuple(clauses))


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all rows of a rule have in common."""

    policy: str
    scope: str
    name: str
    parameters: Parameters
    document: Document
    path: Path
    from_role_policy: bool = False

    def row(self, part: _Parts, derived_role: DerivedRole | None = None) -> Row:
        """Make the row of one way of holding the rule."""
        return Row(
            name=self.name,
            source=names.rule_source(self.policy, self.name),
            policy=self.policy,
            scope=self.scope,
            effect=part.effect,
            condition=part.condition,
            parameters=self.parameters,
            document=self.document,
            path=self.path,
            match=part.match,
            authored_effect=part.authored_effect,
            derived_role=derived_role,
            rule_activated=part.said.rule_activated,
            condition_not_met=part.said.condition_not_met,
            from_role_policy=self.from_role_policy,
            always=part.condition is None and derived_role is None and not self.parameters.variables,
        )


@functools.lru_cache(maxsize=4096)
def selector(patterns: tuple[str, ...], glob: Callable[[str], Matcher] = rule_matcher) -> Selector:
    """Return what matches any of *patterns*."""
    literals = frozenset(pattern for pattern in patterns if is_literal(pattern))
    return Selector(literals, tuple(glob(pattern) for pattern in patterns if pattern not in literals))


def role_selector(patterns: tuple[str, ...]) -> Selector:
    """Return what matches any of the roles *patterns*; ``*`` makes the others superfluous."""
    return selector(("*",) if "*" in patterns else patterns)


# -- kinds of policies -------------------------------------------------------------------------------------


def _resource_policy(unit: _Unit, body: p.ResourcePolicy) -> None:
    derived_roles = unit.referenced_roles(body)
    path = (*unit.root, "rules")
    parts = [_parts(unit, rule, (*path, position)) for position, rule in enumerate(body.rules)]
    parameters = unit.scope.parameters(clause for part in parts for clause in part.clauses)
    rules = []
    for position, (rule, part) in enumerate(zip(body.rules, parts, strict=True)):
        name = names.resource_rule_name(rule.name, position + 1)
        if not rule.roles and not rule.derived_roles:
            message = f"Rule '{name}' does not specify any roles or derived roles to be matched"
            unit.module.report(INVALID_RULE, message, (*path, position))
        here = (*path, position)
        shared = _Shared(unit.policy.key, body.scope, name, parameters, unit.module.document, here)
        rules.append(_resource_rule(rule, part.consenting(rule.effect, body), shared, derived_roles))
    roles = tuple(derived_roles[name] for name in sorted(derived_roles))
    unit.compiled = CompiledPolicy(
        unit.policy,
        unit.policy.key,
        body.scope,
        body.version,
        names.sanitised(body.resource),
        tuple(rules),
        derived_roles=roles,
    )


def _resource_rule(
    rule: p.ResourceRule, part: _Parts, shared: _Shared, known: Mapping[str, DerivedRole]
) -> Rule:
    held = [(role_selector(rule.roles), shared.row(part))] if rule.roles else []
    derived = [known[role] for role in rule.derived_roles if role in known]
    held += [(role_selector(tuple(sorted(role.parents))), shared.row(part, role)) for role in derived]
    return Rule(selector(rule.actions), tuple(held))


def _principal_policy(unit: _Unit, body: p.PrincipalPolicy) -> None:
    numbered = [
        (position, rule, index, action)
        for position, rule in enumerate(body.rules)
        for index, action in enumerate(rule.actions)
    ]
    root = (*unit.root, "rules")
    parts = [_parts(unit, action, (*root, i, "actions", j)) for i, _, j, action in numbered]
    parameters = unit.scope.parameters(clause for part in parts for clause in part.clauses)
    rules = []
    for (position, rule, index, action), part in zip(numbered, parts, strict=True):
        name = names.principal_rule_name(action.name, rule.resource, index + 1)
        here = (*root, position, "actions", index)
        shared = _Shared(unit.policy.key, body.scope, name, parameters, unit.module.document, here)
        row = shared.row(part.consenting(action.effect, body))
        rules.append(PrincipalRule(kind_matcher(rule.resource), rule_matcher(action.action), row))
    unit.compiled = CompiledPolicy(
        unit.policy, unit.policy.key, body.scope, body.version, body.principal, tuple(rules)
    )


def _role_policy(unit: _Unit, body: p.RolePolicy) -> None:
    root = (*unit.root, "rules")
    parts = [_parts(unit, rule, (*root, position)) for position, rule in enumerate(body.rules)]
    parameters = unit.scope.parameters(clause for part in parts for clause in part.clauses)
    rules = []
    document = unit.module.document
    for position, (rule, part) in enumerate(zip(body.rules, parts, strict=True)):
        here = (*root, position)
        shared = _Shared(
            unit.policy.key, body.scope, rule.name, parameters, document, here, from_role_policy=True
        )
        resource, actions = kind_matcher(rule.resource), selector(rule.allow_actions, matcher)
        rules.append(RoleRule(resource, actions, shared.row(part.narrowing)))
    implied = _Shared(unit.policy.key, body.scope, "", NOTHING, document, unit.root, from_role_policy=True)
    unit.compiled = CompiledPolicy(
        unit.policy,
        unit.policy.key,
        body.scope,
        body.version,
        body.role,
        tuple(rules),
        parent_roles=body.parent_roles,
        refusal=implied.row(_REFUSAL),
    )


def _derived_roles(unit: _Unit, body: p.DerivedRoles) -> None:
    for position, definition in enumerate(body.definitions):
        clauses: list[Clause] = []
        path = (*unit.root, "definitions", position)
        match = unit.condition(definition.condition, (*path, "condition"), clauses)
        unit.roles[definition.name] = DerivedRole(
            definition.name,
            frozenset(definition.parent_roles),
            None if match is None else condition_of(match),
            unit.scope.parameters(clauses),
            unit.module.document,
            path,
            match,
            reads_runtime=any("runtime" in clause.expression.identifiers for clause in clauses),
        )


def _exported(_unit: _Unit, _body: p.Body) -> None:
    """Add nothing: a set of variables or constants is its definitions."""


_COMPILERS: Mapping[type, Callable[[_Unit, Any], None]] = {
    p.ResourcePolicy: _resource_policy,
    p.PrincipalPolicy: _principal_policy,
    p.RolePolicy: _role_policy,
    p.DerivedRoles: _derived_roles,
    p.ExportVariables: _exported,
    p.ExportConstants: _exported,
}
