"""What a rule table says about one kind of resource, as a check walks it: scope by scope, role by role.

Which rows concern an action and a role does not depend on anything else in the request, so it is found out
once and remembered. What is remembered is bounded: actions, roles and kinds may come from a hostile client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.model import NO_MATCH, ActionDecision, Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from engine.rules import CompiledPolicy, DerivedRole, Row
    from engine.schema import AttachedSchemas

    Selection = Callable[[tuple[str, ...]], tuple[Row, ...]]
    """From a role and its parents to the rows that concern a holder of one of them, in order."""

REMEMBERED = 65_536
"""How many targets, steps and rows of steps a table remembers before it starts over: a few megabytes."""

LONGEST_REMEMBERED = 4096
"""What has longer names than these together is looked up each time."""

CHARACTERS = 16
"""So many characters of a key count as much as one of what is remembered under it."""


class Stage:
    """One scope on the way from a target's leaf to the root, with the rules that stand in it."""

    __slots__ = ("consent", "derived_roles", "policies", "policy", "role_policies", "scope", "selection")

    def __init__(
        self,
        scope: str,
        selection: Callable[[str], Selection],
        *,
        policy: CompiledPolicy | None,
        role_policies: Mapping[str, CompiledPolicy],
        consent: bool,
        policies: tuple[str, ...],
    ) -> None:
        self.scope = scope
        self.policy = policy
        """The target's own policy in this scope."""
        self.role_policies = role_policies
        """The role policies of this scope, by role."""
        self.derived_roles = policy.derived_roles if policy else ()
        self.consent = consent
        """An allow in this scope needs the consent of a scope above it."""
        self.policies = policies
        """The keys of the target's policies in this scope and the scopes above it."""
        self.selection = selection
        """From an action to what selects the rows for many roles: its globs are matched once for all."""

    def rows(self, action: str, roles: tuple[str, ...]) -> tuple[Row, ...]:
        """Return the rows that concern *action* and a holder of one of *roles*, in order."""
        return self.selection(action)(roles)


class Step:
    """What one role of a principal meets in one scope on the question of one action."""

    __slots__ = ("_limited", "consent", "derived_roles", "policies", "rows", "stage")

    def __init__(self, stage: Stage, rows: tuple[Row, ...], derived_roles: tuple[DerivedRole, ...]) -> None:
        self.stage = stage
        self.rows = rows
        self.derived_roles = derived_roles
        """The ones of the scope that a holder of the principal's roles may take on."""
        self.consent = stage.consent
        self._limited = any(row.from_role_policy for row in rows)
        self.policies = self._policies(rows)
        """The keys of the policies that are looked at: those of the rows, and those above a row's policy."""

    def looked_at(self, last: Row) -> tuple[str, ...]:
        """Return the keys of the policies that are looked at until *last* settles the matter."""
        if not self._limited:
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

    __slots__ = (
        "_decisions",
        "_memo",
        "_parents",
        "_ways",
        "attributes",
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
        stages = [
            (stage, stage.selection(action), held) for stage, held in zip(self.stages, derived, strict=True)
        ]
        return tuple(
            tuple(
                Step(stage, rows, held) for stage, select, held in stages if (rows := select(parents)) or held
            )
            for parents in map(self.role_set, roles)
        )

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
