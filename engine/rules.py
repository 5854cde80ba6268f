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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine import names
from engine.cel import EvaluationError
from engine.model import NO_MATCH, ActionDecision, Effect, Evaluation, JsonValue
from engine.policy import ScopePermissions

if TYPE_CHECKING:
    from engine.cel import Expression
    from engine.document import Document, Path
    from engine.globs import Matcher
    from engine.policy import Policy

Outcome = bool | None
"""Whether a condition holds; ``None``: an error left it undecided (in the evaluation mode ``safe``)."""

Condition = Callable[[Any], Outcome]
"""A compiled condition, called with the activation (:class:`engine.check.Activation`)."""

REMEMBERED = 8192
"""How many targets and row selections a table remembers before it starts over."""

LONGEST_REMEMBERED = 512
"""Longer actions, roles and kinds are looked up each time."""


class Namespace(dict[str, Any]):
    """The values behind ``V``, ``C`` and ``G``: a name that is not there is an error of evaluation."""

    __slots__ = ()

    def __missing__(self, name: str) -> Any:
        raise EvaluationError(f"undefined field '{name}'")


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
        place = self.document.place(self.path)
        self.document.forget_nodes()
        return f"{self.document.file}:{place.line}:{place.column}"


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
    reads_runtime: bool = False
    """The condition reads ``runtime``, so what it says depends on the scope it is asked in."""

    def has_parent(self, roles: Iterable[str]) -> bool:
        """Tell whether one of *roles* may take this role on; parents are literal, but ``*`` is any role."""
        return "*" in self.parents or not self.parents.isdisjoint(roles)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One rule for one way of holding it: by static role, or by one derived role.

    *effect* is ``None`` for a row that only speaks (the unconditional entry of a role policy).
    """

    name: str
    source: str
    policy: str
    scope: str
    effect: Effect | None
    condition: Condition | None
    parameters: Parameters
    derived_role: DerivedRole | None = None
    rule_activated: Clause | None = None
    condition_not_met: Clause | None = None
    from_role_policy: bool = False
    always: bool = False
    """There is nothing to evaluate: no condition, no derived role, no variables that might fail."""


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


@dataclass(frozen=True, slots=True)
class Settings:
    """How a table answers, whatever its policies: Cerbos's ``engine`` block."""

    evaluation: Evaluation = "lenient"
    default_policy_version: str = names.DEFAULT_VERSION
    default_scope: str = ""
    lenient_scope_search: bool = False
    globals: Mapping[str, JsonValue] = field(default_factory=dict)


class Stage:
    """One scope on the way from a target's leaf to the root, with the rules that stand in it."""

    __slots__ = ("_select", "consent", "derived_roles", "scope")

    def __init__(
        self,
        scope: str,
        select: Callable[[str, tuple[str, ...]], tuple[Row, ...]],
        derived_roles: tuple[DerivedRole, ...],
        consent: bool,
    ) -> None:
        self.scope = scope
        self.derived_roles = derived_roles
        self.consent = consent
        """An allow in this scope needs the consent of a scope above it."""
        self._select = select

    def rows(self, action: str, roles: tuple[str, ...]) -> tuple[Row, ...]:
        """Return the rows that concern *action* and a holder of one of *roles*, in order."""
        return self._select(action, roles)


class Target:
    """Everything a table says about one kind of resource in one version and scope."""

    __slots__ = (
        "_decisions",
        "_derived_roles",
        "_memo",
        "_parents",
        "_rows",
        "default",
        "exists",
        "key",
        "stages",
    )

    def __init__(
        self,
        key: str,
        stages: tuple[Stage, ...],
        parents: Mapping[str, tuple[str, ...]],
        *,
        exists: bool,
        memo: Memo,
    ) -> None:
        self.key = key
        self.stages = stages
        self.exists = exists
        """A resource policy for the kind stands in one of the scopes."""
        self.default = ActionDecision(Effect.DENY, key if exists else NO_MATCH)
        self._parents = parents
        self._memo = memo
        self._rows: dict[tuple[int, str, str], tuple[Row, ...]] = {}
        self._derived_roles: dict[tuple[int, tuple[str, ...]], tuple[DerivedRole, ...]] = {}
        self._decisions: dict[Row, ActionDecision] = {}

    def role_set(self, role: str) -> tuple[str, ...]:
        """Return *role* and, by the role policies of the target's scope, its parents."""
        return self._parents.get(role) or (role,)

    def all_roles(self, roles: Iterable[str]) -> frozenset[str]:
        """Return *roles* and all their parents."""
        return frozenset(found for role in roles for found in self.role_set(role))

    def rows(self, index: int, action: str, role: str) -> tuple[Row, ...]:
        """Return the rows of the stage at *index* for an action and one role of the principal."""
        key = (index, action, role)
        found = self._rows.get(key)
        if found is None:
            found = self.stages[index].rows(action, self.role_set(role))
            if len(action) + len(role) <= LONGEST_REMEMBERED and self._memo.room():
                self._rows[key] = found
        return found

    def derived_roles(self, index: int, roles: tuple[str, ...]) -> tuple[DerivedRole, ...]:
        """Return the derived roles of the stage at *index* that a holder of *roles* may take on."""
        key = (index, roles)
        found = self._derived_roles.get(key)
        if found is None:
            held = self.all_roles(roles)
            found = tuple(role for role in self.stages[index].derived_roles if role.has_parent(held))
            if sum(map(len, roles)) <= LONGEST_REMEMBERED and self._memo.room():
                self._derived_roles[key] = found
        return found

    @property
    def remembered(self) -> int:
        """How many selections the target holds."""
        return len(self._rows) + len(self._derived_roles)

    def decision(self, row: Row) -> ActionDecision:
        """Return the decision that *row* leads to; a role policy's denial is reported as its own."""
        found = self._decisions.get(row)
        if found is None:
            policy = row.policy if row.from_role_policy else self.key
            effect = Effect.DENY if row.effect is None else row.effect
            found = self._decisions[row] = ActionDecision(effect, policy, row.scope, row.name)
        return found


class Memo:
    """Counts what targets remember; when there is too much, everything is forgotten."""

    __slots__ = ("_count", "targets")

    def __init__(self) -> None:
        self.targets: dict[tuple[str, ...], Target] = {}
        self._count = 0

    def room(self) -> bool:
        """Count one more; on overflow start over and say no."""
        self._count += 1
        if self._count <= REMEMBERED:
            return True
        self._count = 0
        self.targets = {}
        return False


class RuleTable:
    """Compiled policies, indexed. A table never changes; a new state of the store is a new table."""

    def __init__(self, policies: Iterable[CompiledPolicy], settings: Settings) -> None:
        self.settings = settings
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
            stages = tuple(self._principal_stage(principal, rule_version, one, kind) for one in chain)
            name = names.principal_key(principal, version, chain[0]) if chain else NO_MATCH
            found = Target(name, stages, {}, exists=True, memo=self._memo)
            self._remember(key, found)
        return found

    def _remember(self, key: tuple[str, ...], target: Target) -> None:
        if sum(map(len, key)) <= LONGEST_REMEMBERED and self._memo.room():
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
            self._resource_stage(policy, kind, version, one) for policy, one in zip(found, chain, strict=True)
        )
        key = names.resource_key(kind, version, chain[0])
        exists = any(found) or any(self._narrowed(kind, version, one) for one in chain)
        return Target(key, stages, self._parents.get(scope, {}), exists=exists, memo=self._memo)

    def _narrowed(self, kind: str, version: str, scope: str) -> bool:
        policies = self._roles.get((version, scope), {}).values()
        return any(rule.resource(kind) for policy in policies for rule in policy.rules)

    def _resource_stage(self, policy: CompiledPolicy | None, kind: str, version: str, scope: str) -> Stage:
        rules: tuple[Rule, ...] = policy.rules if policy else ()
        narrowing = self._roles.get((version, scope), {})

        def select(action: str, roles: tuple[str, ...]) -> tuple[Row, ...]:
            limits = [row for role in roles for row in _role_rows(narrowing.get(role), kind, action)]
            return (*limits, *(row for rule in rules for row in _rule_rows(rule, action, roles)))

        return Stage(scope, select, policy.derived_roles if policy else (), self._consent(scope))

    def _principal_stage(self, principal: str, version: str, scope: str, kind: str) -> Stage:
        policy = self._principals.get((principal, version, scope))
        rules: tuple[PrincipalRule, ...] = policy.rules if policy else ()
        concerned = [rule for rule in rules if rule.resource(kind)]

        def select(action: str, _roles: tuple[str, ...]) -> tuple[Row, ...]:
            return tuple(rule.row for rule in concerned if rule.action(action))

        return Stage(scope, select, (), self._consent(scope))

    def _consent(self, scope: str) -> bool:
        return self.scope_permissions.get(scope) is ScopePermissions.REQUIRE_PARENTAL_CONSENT


_INDEX: Mapping[str, Callable[[RuleTable, CompiledPolicy], None]] = {
    "ResourcePolicy": RuleTable.index_resource,
    "PrincipalPolicy": RuleTable.index_principal,
    "RolePolicy": RuleTable.index_role,
}


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
