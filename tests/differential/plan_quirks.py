"""Where our plans differ from Cerbos's on purpose, as changes that let our planner plan as Cerbos does.

``tests/conformance/divergences.yaml`` has the reason for each.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

from engine import check
from engine.cel.nodes import Call
from engine.plan import convert, known, partial, prune, reshape, walk
from engine.plan.filter import AND, OR
from engine.plan.formula import CONSTANTS, joined, opposite
from engine.plan.known import UNKNOWN
from engine.plan.tree import call
from tests.differential.quirks import role_policy_hole, sanitised_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engine.cel import macros
    from engine.cel.nodes import Comprehension, Node
    from engine.model import CheckInput
    from engine.plan.formula import Formula
    from engine.plan.prune import Pruned
    from engine.rules import RuleTable


def known_presence() -> Any:
    """Take the value of a known attribute for whether it is there, and for an optional."""
    return mock.patch.object(partial, "_asked", lambda value, _: value)


def membership_in_no_container() -> Any:
    """Leave ``x in 'text'`` to the normal form, which makes a comparison of it."""
    return mock.patch.object(partial.Evaluation, "_undecided", return_value=UNKNOWN)


@contextlib.contextmanager
def order_of_look_ups() -> Iterator[None]:
    """Compare the constant with what is looked up, and not the other way round."""
    original = reshape._choice

    def choice(lookup: Node, compared: Callable[[Node], Node], *, failed: bool) -> Node | None:
        def turned(value: Node) -> Node:
            made = compared(value)
            turns = isinstance(made, Call) and made.function in reshape.COMPARISONS
            return (
                call(made.function, *reversed(made.arguments)) if turns and isinstance(made, Call) else made
            )

        return original(lookup, turned, failed=failed)

    with mock.patch.object(reshape, "_choice", choice):
        yield


def unevaluated_operands() -> Any:
    """Leave names where nothing is evaluated."""
    return mock.patch.object(reshape, "completed", lambda node, *_: node)


def names_of_unrolled_loops() -> Any:
    """Leave the variable of a loop that is gone."""
    return mock.patch.object(reshape, "put", lambda node, _: node)


@contextlib.contextmanager
def map_with_a_condition() -> Iterator[None]:
    """Take ``map`` with a condition for ``filter`` unless it maps to a call."""
    original = convert._collected

    def collected(loop: Comprehension, macro: macros.Collect) -> tuple[str, tuple[Node, ...]]:
        if macro.predicate is not None and not isinstance(macro.item, Call):
            return "filter", (macro.predicate,)
        return original(loop, macro)

    with (
        mock.patch.object(convert, "_is_selecting", return_value=False),
        mock.patch.object(convert, "_collected", collected),
    ):
        yield


def denial_of_the_principal() -> Any:
    """Forget that a principal policy denies without a condition."""
    return mock.patch.object(walk, "_is_principals", return_value=False)


@contextlib.contextmanager
def nothing_allowed() -> Iterator[None]:
    """Start from all that resource policies do not deny, if anything else is allowed."""

    def action(self: Any, name: str) -> Formula | None:
        root: Formula | None = None
        allowed = False
        for target, roles in reversed(self._asked):
            allow, deny = self._policies(target, name, roles)
            if allow is not None:
                allowed = True
                root = allow if root is None else joined(OR, allow, root)
            if deny is not None:
                root = opposite(deny) if root is None else joined(AND, opposite(deny), root)
        return CONSTANTS[False] if root is not None and not allowed else root

    with mock.patch.object(walk._Plan, "_action", action):
        yield


@contextlib.contextmanager
def truth_of_no_bool() -> Iterator[None]:
    """Leave out an operand of ``&&`` or ``||`` that is known, also if it is no bool."""

    def junction(made: Pruned, left: Pruned, right: Pruned) -> Pruned:
        for one, other in ((left, right), (right, left)):
            if one.value is not UNKNOWN and not isinstance(one.value, bool):
                return other
        return original(made, left, right)

    original = prune._junction
    with mock.patch.dict(prune.SHORTER, {"_&&_": junction, "_||_": junction}):
        yield


@contextlib.contextmanager
def unchecked_functions() -> Iterator[None]:
    """Call the function ``id(x)`` for the method ``x.id()``: without types there is only the name."""
    original = partial.function
    with mock.patch.object(
        partial, "function", lambda node: (lambda value: value) if node.function == "id" else original(node)
    ):
        yield


def version_of_the_principal() -> Any:
    """Take ``P.policyVersion`` for empty."""
    return mock.patch.object(
        known,
        "_principal",
        lambda question: question.principal._replace(
            policy_version="", scope=question.principal.scope.removeprefix(".")
        ),
    )


def version_of_principal_policies() -> Any:
    """Ask the principal's policies of the resource's version, whatever the principal's own version is."""

    def targets_of(table: RuleTable, question: CheckInput) -> Any:
        version = question.resource.policy_version or table.settings.default_policy_version
        return check.targets_of(
            table, question._replace(principal=question.principal._replace(policy_version=version))
        )

    return mock.patch.object(walk, "targets_of", targets_of)


QUIRKS: Mapping[str, Callable[[], Any]] = {
    "plan-known-presence": known_presence,
    "plan-membership-in-no-container": membership_in_no_container,
    "plan-order-of-look-ups": order_of_look_ups,
    "plan-unevaluated-operands": unevaluated_operands,
    "plan-names-of-unrolled-loops": names_of_unrolled_loops,
    "plan-map-with-a-condition": map_with_a_condition,
    "plan-denial-of-the-principal": denial_of_the_principal,
    "plan-nothing-allowed": nothing_allowed,
    "plan-truth-of-no-bool": truth_of_no_bool,
    "plan-unchecked-functions": unchecked_functions,
    "plan-version-of-the-principal": version_of_the_principal,
    "plan-version-of-principal-policies": version_of_principal_policies,
    "role-policy-hole": role_policy_hole,
    "sanitised-kinds": sanitised_kinds,
}
"""Changes to our planner, by the id of the divergence."""
