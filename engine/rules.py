"""The rule table: every compiled rule, indexed, immutable.

A check looks up one :class:`~engine.targets.Target` for the resource (kind, version, scope) and asks it which
rows concern an action and a role, scope by scope.

Rules that need explaining are from Cerbos (``internal/ruletable``), with these differences, all on the safe
side: a role policy applies to its scope whether or not the scope has rules for the kind, and its resource
patterns match the kind as it was given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from engine import names
from engine.cel import EvaluationError
from engine.conditions import clauses_of
from engine.model import NO_MATCH, Effect, Evaluation, JsonValue
from engine.patched import Patched
from engine.policy import PrincipalPolicy, ResourcePolicy, RolePolicy, ScopePermissions
from engine.targets import Memo, Stage, Target

if TYPE_CHECKING:
    from engine.cel import Expression
    from engine.conditions import Match
    from engine.document import Document, Fault, Path
    from engine.globs import Matcher
    from engine.policy import Policy
    from engine.schema import AttachedSchemas, Schemas
    from engine.targets import Selection

Outcome = bool | None
"""Whether a condition holds; ``None``: an error left it undecided (in the evaluation mode ``safe``)."""

Condition = Callable[[Any], Outcome]
"""A compiled condition, called with the activation (:class:`engine.check.Activation`)."""


class Namespace(dict[str, Any]):
    """The values behind ``V``, ``C`` and ``G``: a name that is not there is an error of evaluation."""

    __slots__ = ()

    def __missing__(self, name: str) -> Any:
        raise EvaluationError(f"undefined field '{name}'")


def place_of(document: Document, path: Path) -> str:
    """Return ``file:line:column`` of what stands at *path*; the text is read again for it."""
    place = document.place(path)
    document.forget_nodes()
    return f"{document.file}:{place.line}:{place.column}"


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One compiled expression and where it stands in its policy."""

    expression: Expression
    document: Document
    path: Path
    constants: tuple[str, ...] = ()
    """The constants that it refers to."""

    variables: tuple[str, ...] = ()
    """The variables that it refers to."""

    @property
    def text(self) -> str:
        """The expression as the author wrote it."""
        return self.expression.text

    @property
    def place(self) -> str:
        """``file:line:column`` of the expression."""
        return place_of(self.document, self.path)


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """What the expressions of one policy see besides the request: its constants, its variables in order."""

    constants: Namespace
    variables: tuple[tuple[str, Clause], ...] = ()


NOTHING = Parameters(Namespace())
"""Shared by all policies whose expressions need neither variables nor constants."""


@dataclass(frozen=True, slots=True, eq=False)
class DerivedRole:
    """A derived role as the rules of one resource policy refer to it."""

    name: str
    parents: frozenset[str]
    condition: Condition | None
    parameters: Parameters
    document: Document
    path: Path
    match: Match | None = None
    """What *condition* was made from."""

    reads_runtime: bool = False
    """The condition reads ``runtime``, so what it says depends on the scope it is asked in."""

    @property
    def place(self) -> str:
        """``file:line:column`` of the definition."""
        return place_of(self.document, self.path)

    def has_parent(self, roles: Iterable[str]) -> bool:
        """Tell whether one of *roles* may take this role on; parents are literal, but ``*`` is any role."""
        return "*" in self.parents or not self.parents.isdisjoint(roles)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One rule for one way of holding it: by static role, or by one derived role.

    *effect* is ``None`` for a row that only speaks (the unconditional entry of a role policy).

    A row may say something else than its rule. Where the scopes above have to consent, and in role policies,
    a rule that allows on a condition becomes a row that denies when the condition is not met: then *effect*
    differs from *authored_effect*, and *match* is the author's condition inside of a ``None_``.
    """

    name: str
    source: str
    policy: str
    scope: str
    effect: Effect | None
    condition: Condition | None
    parameters: Parameters
    document: Document
    path: Path
    """Where the rule stands in *document*."""

    match: Match | None = None
    """What *condition* was made from."""

    authored_effect: Effect | None = None
    """What the author wrote; ``None`` where nothing is written: what a role policy does not list."""

    derived_role: DerivedRole | None = None
    rule_activated: Clause | None = None
    condition_not_met: Clause | None = None
    from_role_policy: bool = False
    always: bool = False
    """There is nothing to evaluate: no condition, no derived role, no variables that might fail."""

    @property
    def speaks(self) -> bool:
        """The rule has an output."""
        return self.rule_activated is not None or self.condition_not_met is not None

    @property
    def place(self) -> str:
        """``file:line:column`` of the rule."""
        return place_of(self.document, self.path)

    @property
    def clauses(self) -> Iterator[Clause]:
        """All expressions that may be evaluated when the row is looked at."""
        yield from clauses_of(self.match)
        yield from (clause for _, clause in self.parameters.variables)
        yield from (clause for clause in (self.rule_activated, self.condition_not_met) if clause is not None)
        if self.derived_role is not None:
            yield from clauses_of(self.derived_role.match)
            yield from (clause for _, clause in self.derived_role.parameters.variables)


@dataclass(frozen=True, slots=True, eq=False)
class Selector:
    """Literal strings and globs that a string is matched against."""

    literals: frozenset[str]
    globs: tuple[Matcher, ...] = ()

    def __call__(self, text: str) -> bool:
        """Tell whether *text* is one of them."""
        return text in self.literals or any(matches(text) for matches in self.globs)

    def count(self, texts: tuple[str, ...]) -> int:
        """Return how many of them match one of *texts*."""
        return len(self.literals.intersection(texts)) + sum(any(map(glob, texts)) for glob in self.globs)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """The rows of one rule of a resource policy, and what selects them."""

    actions: Selector
    rows: tuple[tuple[Selector, Row], ...]


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalRule:
    """One action of a principal policy."""

    resource: Callable[[str], bool]
    action: Callable[[str], bool]
    row: Row


@dataclass(frozen=True, slots=True, eq=False)
class RoleRule:
    """One entry of a role policy: *row* denies (or only speaks) when the entry permits the action."""

    resource: Matcher
    actions: Selector
    row: Row


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPolicy:
    """What one policy contributes to the table; *rules* are of the type that its kind has."""

    policy: Policy
    key: str
    scope: str
    version: str
    name: str
    """The kind (as it stands in the key), the principal or the role that the policy is about."""

    rules: tuple[Any, ...] = ()
    derived_roles: tuple[DerivedRole, ...] = ()
    parent_roles: tuple[str, ...] = ()
    refusal: Row | None = None
    """For a role policy: the row that denies what it does not list."""

    @property
    def rows(self) -> Iterator[Row]:
        """All rows that the policy may contribute."""
        for rule in self.rules:
            yield from (row for _, row in rule.rows) if isinstance(rule, Rule) else (rule.row,)
        if self.refusal is not None:
            yield self.refusal


SchemaEnforcement = Literal["none", "warn", "reject"]
"""What becomes of attributes that do not keep to their schema: nothing, a report, or a denial."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a table answers, whatever its policies: Cerbos's ``engine`` and ``schema`` blocks.

    *evaluation* is what a check does that does not say how it is to be evaluated. *runtime_action* is decided
    when policies are compiled; all else when a question is asked.
    """

    evaluation: Evaluation = "lenient"
    default_policy_version: str = names.DEFAULT_VERSION
    default_scope: str = ""
    lenient_scope_search: bool = False
    globals: Mapping[str, JsonValue] = field(default_factory=dict)
    schema_enforcement: SchemaEnforcement = "none"
    runtime_action: bool = False
    """Expressions may read ``runtime.action``; Cerbos does not know it."""


class RuleTable:
    """Compiled policies, indexed. A table never changes; a new state of the store is a new table."""

    def __init__(
        self,
        policies: Iterable[CompiledPolicy],
        settings: Settings,
        schemas: Schemas | None = None,
        warnings: tuple[Fault, ...] = (),
    ) -> None:
        self.settings = settings
        self.warnings = warnings
        """What looks like a mistake in the policies; nothing that keeps them from being used."""
        self._schemas = schemas
        self.globals = Namespace(settings.globals)
        self.policies = Patched({policy.key: policy for policy in policies})
        self._resources = Patched(_by_subject(self.policies.values(), ResourcePolicy))
        self._principals = Patched(_by_subject(self.policies.values(), PrincipalPolicy))
        self._roles: dict[tuple[str, str], dict[str, CompiledPolicy]] = {}
        self.principal_ids: set[str] = set()
        self._principal_places: set[tuple[str, str]] = set()
        """The versions and scopes in which there is any principal policy."""
        self.scope_permissions: dict[str, ScopePermissions] = {}
        self._scopes: dict[str, set[str]] = {"resource": set(), "principal": set()}
        self._parents: dict[str, dict[str, tuple[str, ...]]] = {}
        for policy in self.policies.values():
            _INDEX[type(policy.policy.body).__name__](self, policy)
        self._close_parents()
        self._memo = Memo()
        self.attributes = self._attached()
        """What is asked of attributes, by kind and version; empty when that is not enforced."""
        self.reads_action = self._asks_for_action(self.policies.values())
        """What is found out for one action may not hold for another."""
        self.is_observed = False
        """Conditions have to be asked as they are: someone listens (:mod:`engine.observed`)."""

    def _asks_for_action(self, policies: Iterable[CompiledPolicy]) -> bool:
        return self.settings.runtime_action and any(
            "runtime" in clause.expression.identifiers
            for policy in policies
            for row in policy.rows
            for clause in row.clauses
        )

    def with_settings(self, settings: Settings) -> RuleTable:
        """Return a table of the same compiled policies that answers by other *settings*; this is cheap.

        Raises:
            ValueError: the settings differ in something that is decided when policies are compiled.

        """
        if settings.runtime_action != self.settings.runtime_action:
            raise ValueError("`runtime_action` cannot be changed without compiling the policies again")
        table = copy.copy(self)
        table.settings = settings
        table.globals = Namespace(settings.globals)
        table._memo = Memo()  # noqa: SLF001 - of the same class; a chain of scopes depends on the settings
        table.attributes = table._attached()  # noqa: SLF001 - of the same class
        return table

    def replaced(self, policies: Iterable[CompiledPolicy], warnings: tuple[Fault, ...]) -> RuleTable:
        """Return a table in which *policies* stand in for those with the same keys; this is cheap.

        What they say to other policies has to be the same as before (:func:`engine.library.outline`).
        """
        table = copy.copy(self)
        table.warnings = warnings
        table._memo = Memo()  # noqa: SLF001 - of the same class; targets hold rules
        table._replace(tuple(policies))
        return table

    def _replace(self, policies: tuple[CompiledPolicy, ...]) -> None:
        """Replace policies in the indices; those that are shared with another table stay as they are."""
        self.policies = self.policies.patched({policy.key: policy for policy in policies})
        self._resources = self._resources.patched(_by_subject(policies, ResourcePolicy))
        self._principals = self._principals.patched(_by_subject(policies, PrincipalPolicy))
        of_roles = [policy for policy in policies if isinstance(policy.policy.body, RolePolicy)]
        if of_roles:
            self._roles = {place: dict(roles) for place, roles in self._roles.items()}
        for policy in of_roles:
            self._roles[policy.version, policy.scope][policy.name] = policy
        self.reads_action = self.reads_action or self._asks_for_action(policies)

    def with_policies(self, policies: Iterable[CompiledPolicy]) -> RuleTable:
        """Return a table of other compiled policies with the same settings and schemas."""
        return RuleTable(policies, self.settings, self._schemas, self.warnings)

    def _attached(self) -> Mapping[tuple[str, str], AttachedSchemas]:
        """Return what the root policies ask of attributes: they speak for all scopes, as in Cerbos."""
        if self._schemas is None or self.settings.schema_enforcement == "none":
            return {}
        found = {}
        for (kind, version, scope), policy in self._resources.items():
            body: Any = policy.policy.body
            attached = self._schemas.attached(body.schemas) if body.schemas and not scope else None
            if attached is not None:
                found[kind, version] = attached
        return found

    # -- building ------------------------------------------------------------------------------------------

    def index_resource(self, policy: CompiledPolicy) -> None:
        """Note where a resource policy is; called while the table is built."""
        self._note_scope("resource", policy)

    def index_principal(self, policy: CompiledPolicy) -> None:
        """Note where a principal policy is; called while the table is built."""
        self.principal_ids.add(policy.name)
        self._principal_places.add((policy.version, policy.scope))
        self._note_scope("principal", policy)

    def index_role(self, policy: CompiledPolicy) -> None:
        """Add a role policy; called while the table is built."""
        self._roles.setdefault((policy.version, policy.scope), {})[policy.name] = policy
        self._scopes["resource"].add(policy.scope)
        direct = self._parents.setdefault(policy.scope, {})
        direct[policy.name] = (*direct.get(policy.name, ()), *policy.parent_roles)

    def _note_scope(self, kind: str, policy: CompiledPolicy) -> None:
        self._scopes[kind].add(policy.scope)
        body: Any = policy.policy.body
        if body.scope_permissions is not ScopePermissions.UNSPECIFIED:
            self.scope_permissions[policy.scope] = body.scope_permissions

    def _close_parents(self) -> None:
        for direct in self._parents.values():
            closures = {role: _closure(role, direct) for role in direct}
            direct.update(closures)

    # -- asking --------------------------------------------------------------------------------------------

    def target(self, kind: str, version: str, scope: str) -> Target | None:
        """Return what concerns resources of *kind*, ``None`` when no scope of the chain has any policy."""
        key = (kind, version, scope)
        found = self._memo.targets.get(key)
        if found is None:
            chain = self.chain("resource", scope)
            if not chain:
                return None
            found = self._resource_target(kind, version, scope, chain)
            if found.exists:
                self._remember(key, found)
        return found

    def principal_target(
        self, principal: str, version: str, scope: str, kind: str, rule_version: str
    ) -> Target | None:
        """Return the principal policies for *principal* about *kind*, ``None`` when there are none.

        The policies are those of *rule_version*, the resource's version, as in Cerbos; *version* is the
        principal's, which only names the policy in the answer, if anyone has one of that version.
        """
        if principal not in self.principal_ids:
            return None
        key = (principal, version, scope, kind, rule_version)
        found = self._memo.targets.get(key)
        if found is None:
            chain = self.chain("principal", scope)
            stages = self._principal_stages(principal, rule_version, chain, kind)
            known = any((version, one) in self._principal_places for one in chain)
            name = names.principal_key(principal, version, chain[0]) if known else NO_MATCH
            found = Target(name, stages, {}, exists=False, memo=self._memo)
            self._remember(key, found)
        return found

    def knows_principals(self, version: str, scope: str) -> bool:
        """Tell whether any principal has a policy of *version* in a scope that is searched for *scope*.

        Where no policy is about the resource, Cerbos asks no principal policy either, unless there is one of
        the principal's own version (whoever it may be about).
        """
        return any((version, one) in self._principal_places for one in self.chain("principal", scope))

    def _remember(self, key: tuple[str, ...], target: Target) -> None:
        if self._memo.room(sum(map(len, key)), len(target.stages)):
            self._memo.targets[key] = target

    def chain(self, kind: str, scope: str) -> tuple[str, ...]:
        """Return the scopes that are searched for *scope*, leaf first.

        There are none when the search is strict and no policy of the kind has exactly this scope.
        """
        known = self._scopes[kind]
        if scope in known:
            return (scope, *(one for one in names.ancestors(scope) if one in known))
        if not self.settings.lenient_scope_search:
            return ()
        # A request may name a scope as long as it likes: what is longer than any known one is not looked at.
        reach = max(map(len, known), default=0) + 1
        return tuple(one for one in names.ancestors(scope[:reach]) if one in known)

    def _resource_target(self, kind: str, version: str, scope: str, chain: tuple[str, ...]) -> Target:
        safe_kind = names.sanitised(kind)
        found = [self._resources.get((safe_kind, version, one)) for one in chain]
        stages = tuple(
            self._resource_stage(policy, kind, version, one, _keys(found[index:]))
            for index, (policy, one) in enumerate(zip(found, chain, strict=True))
        )
        key = names.resource_key(kind, version, chain[0])
        exists = any(found) or any(self._narrowed(kind, version, one) for one in chain)
        return Target(
            key,
            stages,
            self._parents.get(scope, {}),
            exists=exists,
            memo=self._memo,
            attributes=self.attributes.get((safe_kind, version)),
        )

    def _narrowed(self, kind: str, version: str, scope: str) -> bool:
        policies = self._roles.get((version, scope), {}).values()
        return any(rule.resource(kind) for policy in policies for rule in policy.rules)

    def _resource_stage(
        self, policy: CompiledPolicy | None, kind: str, version: str, scope: str, policies: tuple[str, ...]
    ) -> Stage:
        rules: tuple[Rule, ...] = policy.rules if policy else ()
        narrowing = self._roles.get((version, scope), {})

        def select(action: str) -> Selection:
            fitting = [(rule.rows, count) for rule in rules if (count := rule.actions.count((action,)))]

            def selected(roles: tuple[str, ...]) -> tuple[Row, ...]:
                limits = [row for role in roles for row in _role_rows(narrowing.get(role), kind, action)]
                return (*limits, *(row for rows, count in fitting for row in _rule_rows(rows, count, roles)))

            return selected

        return Stage(
            scope,
            select,
            policy=policy,
            role_policies=narrowing,
            consent=self._consent(scope),
            policies=policies,
        )

    def _principal_stages(
        self, principal: str, version: str, chain: tuple[str, ...], kind: str
    ) -> tuple[Stage, ...]:
        found = [self._principals.get((principal, version, scope)) for scope in chain]
        return tuple(
            self._principal_stage(policy, scope, kind, _keys(found[index:]))
            for index, (policy, scope) in enumerate(zip(found, chain, strict=True))
        )

    def _principal_stage(
        self, policy: CompiledPolicy | None, scope: str, kind: str, policies: tuple[str, ...]
    ) -> Stage:
        rules: tuple[PrincipalRule, ...] = policy.rules if policy else ()
        concerned = [rule for rule in rules if rule.resource(kind)]

        def select(action: str) -> Selection:
            selected = tuple(rule.row for rule in concerned if rule.action(action))
            return lambda _: selected

        consent = self._consent(scope)
        return Stage(scope, select, policy=policy, role_policies={}, consent=consent, policies=policies)

    def _consent(self, scope: str) -> bool:
        return self.scope_permissions.get(scope) is ScopePermissions.REQUIRE_PARENTAL_CONSENT


_INDEX: Mapping[str, Callable[[RuleTable, CompiledPolicy], None]] = {
    "ResourcePolicy": RuleTable.index_resource,
    "PrincipalPolicy": RuleTable.index_principal,
    "RolePolicy": RuleTable.index_role,
}


def _by_subject(
    policies: Iterable[CompiledPolicy], kind: type[ResourcePolicy | PrincipalPolicy]
) -> dict[tuple[str, str, str], CompiledPolicy]:
    """Return the policies of a *kind* by name, version and scope of what they are about."""
    return {
        (policy.name, policy.version, policy.scope): policy
        for policy in policies
        if isinstance(policy.policy.body, kind)
    }


def _keys(policies: Iterable[CompiledPolicy | None]) -> tuple[str, ...]:
    return tuple(policy.key for policy in policies if policy is not None)


def _closure(role: str, direct: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return *role* and all roles reachable through parents, in the order they are found."""
    found = {role: None}
    waiting = [role]
    while waiting:
        for parent in direct.get(waiting.pop(), ()):
            if parent not in found:
                found[parent] = None
                waiting.append(parent)
    return tuple(found)


def _rule_rows(rows: tuple[tuple[Selector, Row], ...], actions: int, roles: tuple[str, ...]) -> Iterable[Row]:
    """Return those of a rule's *rows* that concern a holder of one of *roles*; *actions* of the rule fit.

    In Cerbos a rule has a row for each pair of an action and a role that it names: where several pairs fit,
    it speaks as often.
    """
    held = ((row, actions * selects.count(roles)) for selects, row in rows)
    return (row for row, pairs in held for _ in range(pairs if row.speaks else min(pairs, 1)))


def _role_rows(policy: CompiledPolicy | None, kind: str, action: str) -> Iterable[Row]:
    """Return the rows by which a role policy narrows its role.

    What it does not list is refused; of what it lists, every entry that lists it has to agree. An entry that
    has nothing against it and nothing to say leaves no trace.
    """
    if policy is None:
        return ()
    rules: tuple[RoleRule, ...] = policy.rules
    listed = [rule.row for rule in rules if rule.resource(kind) and rule.actions(action)]
    if not listed:
        return [policy.refusal] if policy.refusal else []
    return [row for row in listed if row.effect is not None or row.rule_activated is not None]
