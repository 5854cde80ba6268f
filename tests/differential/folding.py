"""Which expressions Cerbos gets wrong, mostly because it works out their constant parts beforehand.

cel-go's optimizer evaluates what depends on nothing when a program is made. What fails there fails the whole
condition, not the expression (``none`` of it is then no longer true), and is not reported as an error of
evaluation; a macro over constants alone gives null in place of its result.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace

from engine.cel import Environment, EvaluationError, nodes
from engine.cel import codegen as code
from engine.cel.checks import children
from engine.cel.environment import GLOBALS
from engine.cel.runtime import Listing
from engine.expressions import environment

CLOCK = frozenset({"now", "timeSince"})
"""Expressions that ask for the time are not optimized."""


@functools.cache
def _environment() -> Environment:
    return environment()


@functools.lru_cache(maxsize=100_000)
def misfolded(text: str) -> bool:
    """Tell whether Cerbos may get *text* wrong, which has to be a valid expression.

    That is when it has a constant part that fails, is a macro, or is no bool beside ``&&`` or ``||``, or asks
    for the ``id()`` of a trust domain.
    """
    root = _environment().nodes(text)
    if any(isinstance(node, nodes.Call) and _is_trust_domain_id(node) for node in _all(root)):
        return True
    return not any(_asks_for_time(node) for node in _all(root)) and any(
        _loses_an_operand(node)
        or (not _free(node) and (isinstance(node, nodes.Comprehension) or _fails(text, node)))
        for node in _all(root)
    )


def _all(node: nodes.Node) -> list[nodes.Node]:
    return [node, *(found for child, _ in children(node) for found in _all(child))]


def _loses_an_operand(node: nodes.Node) -> bool:
    """Tell whether *node* is ``and`` or ``or`` with a constant that is no bool, which Cerbos leaves out."""
    return (
        isinstance(node, nodes.Call)
        and node.function in {"_||_", "_&&_"}
        and any(not _free(operand) and operand.type != nodes.BOOL for operand in node.arguments)
    )


def _is_trust_domain_id(node: nodes.Call) -> bool:
    return node.function == "id" and node.arguments[0].type.name == "cerbos.lib.spiffeTrustDomain"


def _asks_for_time(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Call) and node.function in CLOCK


def _free(node: nodes.Node) -> frozenset[str]:
    """Return the variables that *node* depends on."""
    if isinstance(node, nodes.Ident):
        return frozenset({node.name})
    return frozenset().union(*(_free(child) - bound for child, bound in children(node)))


def _fails(text: str, node: nodes.Node) -> bool:
    if not isinstance(node, nodes.Call):
        return False
    generated = code.generate(node, _environment()._vocabulary)
    try:
        code.build(generated, Listing("<constant>", text), GLOBALS)(SimpleNamespace())
    except EvaluationError:
        return True
    return False
