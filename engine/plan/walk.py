"""From rules to a filter: the walk over roles and scopes (Cerbos, ``internal/ruletable/plan.go``).

For each action the policies of the resource come first, then those of the principal; for each role of the
principal the scopes from the leaf to the root. What the rules of a scope leave is joined: what allows by
``or``, what denies by ``or``. A denial of a scope counts only where no scope below it has allowed; a scope
that needs consent allows where the next scope with an allow does, too.

One difference to a check is Cerbos's: a *conditional* denial of one role holds for all of the principal's
roles. So with several roles a plan may leave out resources that a check allows, never the other way round.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, NamedTuple

from engine import names
from engine.cel import EvaluationError, Timestamp
from engine.cel.nodes import DYN, ListLiteral
from engine.check import targets_of
from engine.conditions import Abandoned
from engine.model import NO_MATCH, CheckInput, Effect
from engine.plan.conditions import Conditions
from engine.plan.filter import AND, OR, Expression, Operand, as_bool, debug, normalised
from engine.plan.formula import CONSTANTS, Formula, either, join, joined, node_of, operand_of, opposite, truth
from engine.plan.model import ALWAYS_ALLOWED, ALWAYS_DENIED, CONDITIONAL, Plan, PlanError, PlanInput
from engine.plan.prepared import Prepared
from engine.plan.tree import CONDITIONAL as IF
from engine.plan.tree import NOWHERE, call, const
from engine.policy import ScopePermissions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.cel.nodes import Node
    from engine.check import Asked
    from engine.model import Evaluation as Mode
    from engine.model import ValidationError
    from engine.plan.conditions import DerivedRoles
    from engine.plan.model import Kind
    from engine.rules import DerivedRole, Row, RuleTable
    from engine.targets import Target


def plan(
    table: RuleTable,
    question: PlanInput,
    *,
    now: Timestamp | Callable[[], Timestamp] | None = None,
    evaluation: Mode | None = None,
) -> Plan:
    """Return the filter for the resources to which the principal may do all of the actions.

    *now* is what ``now()`` says, by default the time of the call; *evaluation* says what an error means, by
    default what the settings say.

    Raises:
        PlanError: a condition cannot be said as a filter.

    """
    asked = targets_of(table, CheckInput(*question))
    if not asked:
        return Plan(ALWAYS_DENIED, debug=NO_MATCH, matched_scopes=_no_matches(table, question))
    invalid = _invalid(asked[-1][0], question)
    if invalid and table.settings.schema_enforcement == "reject":
        return Plan(ALWAYS_DENIED, debug="(false)", validation_errors=invalid)
    mode = evaluation or table.settings.evaluation
    conditions = Conditions(table, _facts(table).prepared, question, _moment(now), mode)
    try:
        return _Plan(table, question, asked, conditions).plan()._replace(validation_errors=invalid)
    except RecursionError:
        raise PlanError("the conditions are nested too deeply to be planned") from None


def _no_matches(table: RuleTable, question: PlanInput) -> dict[str, str]:
    """Return the matched scopes of a plan that no rule has a say in; none at all if there are no scopes."""
    settings = table.settings
    for kind, asker in (("resource", question.resource), ("principal", question.principal)):
        if table.chain(kind, names.scope_value(asker.scope or settings.default_scope)):
            return dict.fromkeys(question.actions, "")
    return {}


def _moment(now: Timestamp | Callable[[], Timestamp] | None) -> Timestamp:
    if now is None:
        return Timestamp(time.time_ns())
    return now if isinstance(now, Timestamp) else now()


def _invalid(target: Target, question: PlanInput) -> tuple[ValidationError, ...]:
    """Return what is wrong with the attributes that are given; no attribute of the resource need be."""
    if target.attributes is None:
        return ()
    principal, resource = question.principal, question.resource
    return target.attributes.errors(principal.attr, resource.attr, question.actions, planning=True)


class _Facts(NamedTuple):
    """What is found out once about a table."""

    prepared: Prepared
    overriding: frozenset[str]
    """Scopes whose allows need no consent; a scope with nothing but role policies is none of them."""


_FACTS: weakref.WeakKeyDictionary[RuleTable, _Facts] = weakref.WeakKeyDictionary()


def _facts(table: RuleTable) -> _Facts:
    found = _FACTS.get(table)
    if found is None:
        found = _FACTS[table] = _Facts(Prepared(), _overriding(table))
    return found


def _overriding(table: RuleTable) -> frozenset[str]:
    ruling = {
        policy.scope
        for policy in table.policies.values()
        if type(policy.policy.body).__name__ in {"PrincipalPolicy", "ResourcePolicy"}
    }
    consenting = ScopePermissions.REQUIRE_PARENTAL_CONSENT
    return frozenset(scope for scope in ruling if table.scope_permissions.get(scope) is not consenting)


class _Role(NamedTuple):
    """What the scopes say about one role."""

    allow: Formula | None = None
    deny: Formula | None = None
    refuse: Formula | None = None
    """What the role policies deny."""


class _Plan:
    """One plan in the making."""

    def __init__(
        self,
        table: RuleTable,
        question: PlanInput,
        asked: Sequence[Asked],
        conditions: Conditions,
    ) -> None:
        self._question = question
        self._asked = asked
        self._conditions = conditions
        self._overriding = _facts(table).overriding
        self._matched_scopes: dict[str, str] = {}
        self._derived_roles: dict[int, DerivedRoles] = {}

    def plan(self) -> Plan:
        filters: list[Operand] = []
        matched = False
        for action in self._question.actions:
            self._matched_scopes[action] = ""
            self._conditions.action = action
            self._derived_roles.clear()
            try:
                found = self._action(action)
            except Abandoned:
                found = CONSTANTS[False]
            matched = matched or found is not None
            filters.append(normalised(operand_of(found or CONSTANTS[False]), exact=self._conditions.exact))
        kind, condition, text = _merged(filters)
        return Plan(
            kind,
            condition,
            text if matched else NO_MATCH,
            self._matched_scopes,
            evaluation_errors=self._conditions.errors,
        )

    def _action(self, action: str) -> Formula | None:
        """Return the formula of one action; ``None`` when no rule says anything."""
        root: Formula | None = None
        for target, roles in reversed(self._asked):  # the policies of the resource come first
            allow, deny = self._policies(target, action, roles)
            if allow is not None:
                root = allow if root is None else joined(OR, allow, root)
            if deny is not None:
                root = _except(root, deny)
        return root

    def _policies(
        self, target: Target, action: str, roles: Sequence[str]
    ) -> tuple[Formula | None, Formula | None]:
        """Return what the policies of the resource, or those of the principal, allow and deny."""
        allow: Formula | None = None
        deny: Formula | None = None
        for role in roles:
            found = self._role(target, action, role)
            if truth(found.deny) or truth(found.refuse):
                if _is_principals(target):
                    return None, found.deny  # Cerbos forgets it
                found = _Role(CONSTANTS[False])  # another role may still allow
            elif truth(found.allow) and found.deny is None and found.refuse is None:
                return found.allow, None
            if found.allow is not None and found.refuse is not None:
                found = found._replace(allow=joined(AND, found.allow, opposite(found.refuse)))
            allow, deny = either(allow, found.allow), either(deny, found.deny)
        return allow, deny

    def _role(self, target: Target, action: str, role: str) -> _Role:
        """Walk the scopes for one role."""
        whole = _Role()
        overridden: Formula | None = None
        pending = False
        for index, stage in enumerate(target.stages):
            if truth(overridden):
                break
            here = self._stage(target, index, action, role)
            here = here._replace(deny=_gated(overridden, here.deny), refuse=_gated(overridden, here.refuse))
            allow = whole.allow
            if here.allow is not None:
                allow = _with_consent(allow, here.allow, pending=pending)
                pending = stage.consent
            whole = _Role(allow, either(whole.deny, here.deny), either(whole.refuse, here.refuse))
            if stage.scope in self._overriding:
                if any(found is not None for found in here):
                    self._matched_scopes[action] = stage.scope
                overridden = either(overridden, here.allow)
        return whole._replace(allow=None) if pending else whole

    def _stage(self, target: Target, index: int, action: str, role: str) -> _Role:
        """Join what the rows of one scope leave."""
        allow, deny, refuse = _Role()
        derived_roles = self._roles_in(target, index)
        for row in target.rows(index, action, role):
            if row.effect is None:
                continue
            found = self._row(row, row.effect, derived_roles)
            if row.effect is Effect.ALLOW:
                allow = either(allow, found)
            elif truth(found) is False:
                continue
            elif row.from_role_policy:
                refuse = either(refuse, found)
            else:
                deny = either(deny, found)
        return _Role(allow, deny, refuse)

    def _row(self, row: Row, effect: Effect, derived_roles: DerivedRoles) -> Formula:
        made = self._conditions.formula(row.match, row.parameters, derived_roles, effect)
        role = row.derived_role
        if role is None or role.match is None:
            return made
        held = self._conditions.formula(role.match, role.parameters, derived_roles, effect)
        return held if row.match is None else join(AND, (made, held))

    # -- derived roles -------------------------------------------------------------------------------------

    def _roles_in(self, target: Target, index: int) -> DerivedRoles:
        """Return what ``runtime.effectiveDerivedRoles`` stands for in a scope."""
        if not target.stages[index].derived_roles:
            return _no_derived_roles
        found = self._derived_roles.get(index)
        if found is None:
            roles = target.derived_roles(index, self._question.principal.roles)
            found = self._derived_roles[index] = _derived_role_list(self._conditions, roles)
        return found


def _derived_role_list(conditions: Conditions, roles: Sequence[DerivedRole]) -> DerivedRoles:
    """Return the derived roles of a scope as a list whose elements are there on a condition.

    A condition that cannot be evaluated matters only to those who read the list.
    """
    elements: list[Node] = []
    failed: list[str] = []
    unsaid: PlanError | None = None
    for role in roles:
        try:
            held = conditions.formula(role.match, role.parameters, _no_derived_roles, decided=True)
            elements.append(call(IF, node_of(held), _list_of(role.name), _list_of()))
        except Abandoned:
            failed.append(role.name)
        except PlanError as error:
            unsaid = unsaid or error

    def read() -> Node:
        if unsaid is not None:
            raise unsaid
        if failed:
            raise EvaluationError(f"failed to compute effective derived roles [{', '.join(failed)}]")
        return _added(elements)

    return read


def _added(lists: Sequence[Node]) -> Node:
    *before, made = lists or [_list_of()]
    for node in reversed(before):
        made = call("_+_", node, made)
    return made


def _no_derived_roles() -> Node:
    return _list_of()


def _list_of(*texts: str) -> Node:
    return ListLiteral(NOWHERE, DYN, tuple(map(const, texts)))


# -- joining -----------------------------------------------------------------------------------------------


def _is_principals(target: Target) -> bool:
    """Tell whether a target holds the policies of the principal."""
    return not target.exists


def _gated(overridden: Formula | None, deny: Formula | None) -> Formula | None:
    """Let a denial count only where no scope below has allowed."""
    if deny is None or overridden is None:
        return deny
    return opposite(overridden) if truth(deny) else joined(AND, opposite(overridden), deny)


def _except(allow: Formula | None, deny: Formula) -> Formula:
    """Take what is denied from what is allowed.

    Where nothing is allowed nothing is left: Cerbos goes on with all that is not denied, and grants it when
    another policy allows something else.
    """
    return CONSTANTS[False] if allow is None else joined(AND, opposite(deny), allow)


def _with_consent(below: Formula | None, here: Formula, *, pending: bool) -> Formula:
    if below is None:
        return here
    return joined(AND if pending else OR, below, here)


def _merged(filters: Sequence[Operand]) -> tuple[Kind, Operand | None, str]:
    """Join the filters of several actions: all of them have to be allowed."""
    conditions: dict[str, Operand] = {}
    for found in filters:
        value = as_bool(found)
        if value is False:
            return ALWAYS_DENIED, None, "(false)"
        if value is None:
            conditions[debug(found)] = found
    if not conditions:
        return ALWAYS_ALLOWED, None, "(true)"
    operands = [conditions[text] for text in sorted(conditions)]
    condition = operands[0] if len(operands) == 1 else Expression(AND, tuple(operands))
    return CONDITIONAL, condition, debug(condition)
