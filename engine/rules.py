"""The rule table: every compiled rule, indexed, immutable.

A check looks up one :class:`Target` for the resource (kind, version, scope) and asks its stages, leaf scope
first, for the rows of an action and a role. Which rows those are does not depend on anything else in the
request, so the answer is remembered; what is remembered is bounded, because actions and roles may come from a
hostile client.

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
from engine.model import NO_MATCH, ActionDecision, Effect, Evaluation, JsonValue
from engine.policy import ScopePermissions

if TYPE_CHECKING:
    from engine.cel import Expression
    from engine.conditions import Match
    from engine.document import Document, Fault, Path
    from engine.globs import Matcher
    from engine.policy import Policy
    from engine.schema import AttachedSchemas, Schemas

Outcome = bool | None
"""Whether a condition holds; ``None``: an error left it undecided (in the evaluation mode ``safe``)."""

Condition = Callable[[Any], Outcome]
"""A compiled condition, called with the activation (:class:`engine.check.Activation`)."""

REMEMBERED = 65_536
"""How many targets, steps and rows of steps a table remembers before it starts over: a few megabytes."""

LONGEST_REMEMBERED = 4096
"""What has longer names than these together is looked up each time."""

CHARACTERS = 16
"""So many characters of a key count as much as one of what is remembered under it."""


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


class Stage:
    """One scope on the way from a target's leaf to the root, with the rules that stand in it."""

    __slots__ = ("_select", "consent", "derived_roles", "policies", "scope")

    def __init__(
        self,
        scope: str,
        select: Callable[[str, tuple[str, ...]], tuple[Row, ...]],
        *,
        derived_roles: tuple[DerivedRole, ...],
        consent: bool,
        policies: tuple[str, ...],
    ) -> None:
        self.scope = scope
        self.derived_roles = derived_roles
        self.consent = consent
        """An allow in this scope needs the consent of a scope above it."""
        self.policies = policies
        """The keys of the target's policies in this scope and the scopes above it."""
        self._select = select

    def rows(self, action: str, roles: tuple[str, ...]) -> tuple[Row, ...]:
        """Return the rows that concern *action* and a holder of one of *roles*, in order."""
        return self._select(action, roles)


class Step:
    """What one role of a principal meets in one scope on the question of one action."""

    __slots__ = ("consent", "derived_roles", "policies", "rows", "stage")

    def __init__(self, stage: Stage, rows: tuple[Row, ...], derived_roles: tuple[DerivedRole, ...]) -> None:
        self.stage = stage
        self.rows = rows
        self.derived_roles = derived_roles
        """The ones of the scope that a holder of the principal's roles may take on."""
        self.consent = stage.consent
        self.policies = self._policies(rows)
        """The keys of the policies that are looked at: those of the rows, and of a row's policy those above."""

    def looked_at(self, last: Row) -> tuple[str, ...]:
        """Return the keys of the policies that are looked at until *last* settles the matter."""
        if len(self.policies) == 1:
            return self.policies
        return self._policies(self.rows[: self.rows.index(last) + 1])

    def _policies(self, rows: tuple[Row, ...]) -> tuple[str, ...]:
        keys = {row.policy for row in rows}
        if any(not row.from_role_policy for row in rows):
            keys.update(self.stage.policies)
        return tuple(sorted(keys))


Way = tuple[Step, ...]
"""The steps of one role, leaf first."""


class Target:
    """Everything a table says about one kind of resource in one version and scope."""

    __slots__ = ("_decisions", "_memo", "_parents", "_ways", "attributes", "default", "exists", "key", "stages")

    def __init__(
        self,
        key: str,
        stages: tuple[Stage, ...],
        parents: Mapping[str, tuple[str, ...]],
        *,
        exists: bool,
        memo: Memo,
        attributes: AttachedSchemas | None = None,
    ) -> None:
        self.key = key
        self.attributes = attributes
        """What the root policy for the kind asks of attributes, if that is enforced."""
        self.stages = stages
        self.exists = exists
        """A resource policy for the kind stands in one of the scopes."""
        self.default = ActionDecision(Effect.DENY, key if exists else NO_MATCH)
        self._parents = parents
        self._memo = memo
        self._ways: dict[tuple[str, tuple[str, ...]], tuple[Way, ...]] = {}
        self._decisions: dict[Row, ActionDecision] = {}

    def role_set(self, role: str) -> tuple[str, ...]:
        """Return *role* and, by the role policies of the target's scope, its parents."""
        return self._parents.get(role) or (role,)

    def all_roles(self, roles: Iterable[str]) -> frozenset[str]:
        """Return *roles* and all their parents."""
        return frozenset(found for role in roles for found in self.role_set(role))

    def rows(self, index: int, action: str, role: str) -> tuple[Row, ...]:
        """Return the rows of the stage at *index* that concern *action* and *role* or a parent of it."""
        return self.stages[index].rows(action, self.role_set(role))

    def derived_roles(self, index: int, roles: tuple[str, ...]) -> tuple[DerivedRole, ...]:
        """Return the derived roles of the stage at *index* that a holder of *roles* may take on."""
        held = self.all_roles(roles)
        return tuple(role for role in self.stages[index].derived_roles if role.has_parent(held))

    def ways(self, action: str, roles: tuple[str, ...]) -> tuple[Way, ...]:
        """Return what each of *roles* meets on the question of *action*, in order; often remembered.

        Steps at which there is nothing are left out.
        """
        key = (action, roles)
        found = self._ways.get(key)
        if found is None:
            found = self._found(action, roles)
            if self._memo.room(len(action) + sum(map(len, roles)), _size(found)):
                self._ways[key] = found
        return found

    def _found(self, action: str, roles: tuple[str, ...]) -> tuple[Way, ...]:
        derived = [self.derived_roles(index, roles) for index in range(len(self.stages))]
        ways = [
            [
                Step(stage, self.rows(index, action, role), derived[index])
                for index, stage in enumerate(self.stages)
            ]
            for role in roles
        ]
        return tuple(tuple(step for step in way if step.rows or step.derived_roles) for way in ways)

    @property
    def remembered(self) -> int:
        """How many steps and rows of steps the target holds."""
        return sum(map(_size, self._ways.values()))

    def decision(self, row: Row) -> ActionDecision:
        """Return the decision that *row* leads to; a role policy's denial is reported as its own."""
        found = self._decisions.get(row)
        if found is None:
            policy = row.policy if row.from_role_policy else self.key
            effect = Effect.DENY if row.effect is None else row.effect
            found = self._decisions[row] = ActionDecision(effect, policy, row.scope, row.name)
        return found


def _size(ways: tuple[Way, ...]) -> int:
    return sum(1 + len(step.rows) for way in ways for step in way)


class Memo:
    """Counts what targets remember; when there is too much, everything is forgotten."""

    __slots__ = ("_count", "targets")

    def __init__(self) -> None:
        self.targets: dict[tuple[str, ...], Target] = {}
        self._count = 0

    def room(self, characters: int, size: int) -> bool:
        """Count *size* more, under a key of so many *characters*; on overflow start over and say no."""
        if characters > LONGEST_REMEMBERED:
            return False
        self._count += 1 + size + characters // CHARACTERS
        if self._count <= REMEMBERED:
            return True
        self._count = 0
        self.targets = {}
        return False


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
        self.policies = {policy.key: policy for policy in policies}
        self._resources: dict[tuple[str, str, str], CompiledPolicy] = {}
        self._principals: dict[tuple[str, str, str], CompiledPolicy] = {}
        self._roles: dict[tuple[str, str], dict[str, CompiledPolicy]] = {}
        self.principal_ids: set[str] = set()
        self.scope_permissions: dict[str, ScopePermissions] = {}
        self._scopes: dict[str, set[str]] = {"resource": set(), "principal": set()}
        self._parents: dict[str, dict[str, tuple[str, ...]]] = {}
        for policy in self.policies.values():
            _INDEX[type(policy.policy.body).__name__](self, policy)
        self._close_parents()
        self._memo = Memo()
        self.attributes = self._attached()
        """What is asked of attributes, by kind and version; empty when that is not enforced."""
        self.reads_action = settings.runtime_action and any(
            "runtime" in clause.expression.identifiers
            for policy in self.policies.values()
            for row in policy.rows
            for clause in row.clauses
        )
        """What is found out for one action may not hold for another."""

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
        """Add a resource policy; called while the table is built."""
        self._resources[policy.name, policy.version, policy.scope] = policy
        self._note_scope("resource", policy)

    def index_principal(self, policy: CompiledPolicy) -> None:
        """Add a principal policy; called while the table is built."""
        self._principals[policy.name, policy.version, policy.scope] = policy
        self.principal_ids.add(policy.name)
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
        principal's, which only names the policy in the answer.
        """
        if principal not in self.principal_ids:
            return None
        key = (principal, version, scope, kind, rule_version)
        found = self._memo.targets.get(key)
        if found is None:
            chain = self.chain("principal", scope)
            stages = self._principal_stages(principal, rule_version, chain, kind)
            name = names.principal_key(principal, version, chain[0]) if chain else NO_MATCH
            found = Target(name, stages, {}, exists=False, memo=self._memo)
            self._remember(key, found)
        return found

    def _remember(self, key: tuple[str, ...], target: Target) -> None:
        if self._memo.room(sum(map(len, key)), len(target.stages)):
            self._memo.targets[key] = target

    def chain(self, kind: str, scope: str) -> tuple[str, ...]:
        """Return the scopes that are searched for *scope*, leaf first.

        There are none when the search is strict and no policy of the kind has exactly this scope.
        """
        known = self._scopes[kind]
        above = tuple(one for one in names.ancestors(scope) if one in known)
        if scope in known:
            return (scope, *above)
        return above if self.settings.lenient_scope_search else ()

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

        def select(action: str, roles: tuple[str, ...]) -> tuple[Row, ...]:
            limits = [row for role in roles for row in _role_rows(narrowing.get(role), kind, action)]
            return (*limits, *(row for rule in rules for row in _rule_rows(rule, action, roles)))

        return Stage(
            scope,
            select,
            derived_roles=policy.derived_roles if policy else (),
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

        def select(action: str, _roles: tuple[str, ...]) -> tuple[Row, ...]:
            return tuple(rule.row for rule in concerned if rule.action(action))

        return Stage(scope, select, derived_roles=(), consent=self._consent(scope), policies=policies)

    def _consent(self, scope: str) -> bool:
        return self.scope_permissions.get(scope) is ScopePermissions.REQUIRE_PARENTAL_CONSENT


_INDEX: Mapping[str, Callable[[RuleTable, CompiledPolicy], None]] = {
    "ResourcePolicy": RuleTable.index_resource,
    "PrincipalPolicy": RuleTable.index_principal,
    "RolePolicy": RuleTable.index_role,
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


def _rule_rows(rule: Rule, action: str, roles: tuple[str, ...]) -> Iterable[Row]:
    if not rule.actions(action):
        return ()
    return (row for selects, row in rule.rows if any(selects(role) for role in roles))


def _role_rows(policy: CompiledPolicy | None, kind: str, action: str) -> Iterable[Row]:
    """Return the rows by which a role policy narrows its role.

    What it does not list is refused; of what it lists, every entry that lists it has to agree.
    """
    if policy is None:
        return ()
    rules: tuple[RoleRule, ...] = policy.rules
    listed = [rule.row for rule in rules if rule.resource(kind) and rule.actions(action)]
    return listed or ([policy.refusal] if policy.refusal else [])
