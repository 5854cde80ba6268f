"""Conditions joined by rules: what :mod:`engine.plan.walk` puts together, before it is a filter.

A formula is a tree that a condition left (:class:`Part`), or formulas joined by ``and``, ``or``, ``not``
(:class:`Joined`). Each carries a digest, so that a formula is not joined with one that says the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.cel.nodes import Const
from engine.plan.filter import (
    AND,
    NOT,
    OR,
    Expression,
    Operand,
    Value,
    Variable,
    as_bool,
    identity,
    long_name,
)
from engine.plan.tree import call, const

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.cel.nodes import Node

MAX_DEPTH = 40
"""Joined formulas nest this deep; deeper ones are joined side by side."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one expression left: a tree, and the operand it is in the filter."""

    node: Node
    operand: Operand
    digest: bytes
    depth: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Formulas joined by an *operator* of filters."""

    operator: str
    parts: tuple[Formula, ...]
    digest: bytes
    depth: int


Formula = Part | Joined


def part(node: Node, operand: Operand) -> Part:
    """Make a formula of one expression."""
    return Part(node, operand, hashlib.blake2b(identity(_long(operand)).encode(), digest_size=16).digest())


def _long(operand: Operand) -> Operand:
    if isinstance(operand, Variable):
        return Variable(long_name(operand.name))
    if isinstance(operand, Expression):
        return Expression(operand.operator, tuple(map(_long, operand.operands)))
    return operand


def truth(formula: Formula | None) -> bool | None:
    """Return the value of a formula that is a constant: no joined one is, and no ``has`` taken for true."""
    if not isinstance(formula, Part) or not isinstance(formula.node, Const):
        return None
    return as_bool(formula.operand)


def join(operator: str, parts: Sequence[Formula]) -> Joined:
    """Join formulas as they are."""
    digests = (found.digest for found in parts)
    digest = hashlib.blake2b(b"".join((operator.encode(), *digests)), digest_size=16).digest()
    return Joined(operator, tuple(parts), digest, 1 + max(found.depth for found in parts))


def joined(operator: str, *parts: Formula) -> Formula:
    """Join formulas by ``and`` or ``or``, each only once."""
    kept = list({found.digest: found for found in parts}.values())
    if len(kept) == 1:
        return kept[0]
    flat = [inner for found in kept for inner in _opened(operator, found)]
    return join(operator, flat)


def _opened(operator: str, formula: Formula) -> tuple[Formula, ...]:
    """Return the parts of a formula that would nest too deeply."""
    if isinstance(formula, Joined) and formula.operator == operator and formula.depth >= MAX_DEPTH:
        return formula.parts
    return (formula,)


def either(before: Formula | None, more: Formula | None) -> Formula | None:
    """Join what there is by ``or``."""
    if before is None or more is None:
        return more if before is None else before
    return joined(OR, before, more)


def opposite(formula: Formula) -> Formula:
    """Negate a formula; what is negated already loses its ``not``."""
    if isinstance(formula, Joined) and formula.operator == NOT:
        return formula.parts[0]
    return join(NOT, (formula,))


def operand_of(formula: Formula) -> Operand:
    """Return the filter that a formula is, not normalised."""
    if isinstance(formula, Part):
        return formula.operand
    return Expression(formula.operator, tuple(map(operand_of, formula.parts)))


TREE_OPERATORS = {AND: "_&&_", NOT: "!_", OR: "_||_"}


def node_of(formula: Formula) -> Node:
    """Return the tree that a formula is, for use inside of another expression."""
    if isinstance(formula, Part):
        return formula.node
    *before, made = map(node_of, formula.parts)
    function = TREE_OPERATORS[formula.operator]
    if formula.operator == NOT:
        return call(function, made)
    for node in reversed(before):
        made = call(function, node, made)
    return made


def constant(value: bool) -> Part:
    """Return the formula that always has *value*."""
    return CONSTANTS[value]


def _constant(value: bool) -> Part:
    return part(const(value), Value(value))


CONSTANTS = {True: _constant(True), False: _constant(False)}
