"""Expressions in the form that plans need: variables and bindings put in place, constants folded.

They are made from the text again when a plan first meets them, so that a table of ten thousand policies that
nobody plans with keeps no trees.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from engine.cel.nodes import Ident, Select
from engine.plan import fold, tree
from engine.plan.known import Nothing
from engine.plan.model import PlanError
from engine.plan.partial import Budget, Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.cel.nodes import Node
    from engine.rules import Clause, Parameters

VARIABLES = frozenset(("V", "variables"))

MAX_NODES = 100_000
"""Nodes that an expression may have once its variables are in their places."""

MAX_PREPARED = 4_096
"""How many expressions a table keeps."""


class Prepared:
    """The expressions of one rule table."""

    __slots__ = ("_trees",)

    def __init__(self) -> None:
        self._trees: dict[tuple[Clause, Parameters], Node] = {}

    def tree(self, clause: Clause, parameters: Parameters) -> Node:
        """Return the tree of an expression.

        Raises:
            PlanError: it is too large once its variables are in their places.

        """
        key = clause, parameters
        found = self._trees.get(key)
        if found is None:
            found = _prepared(clause, parameters)
            if len(self._trees) >= MAX_PREPARED:
                self._trees.clear()
            self._trees[key] = found
        return found


def _prepared(clause: Clause, parameters: Parameters) -> Node:
    variables: dict[str, Node] = {}
    for name, definition in parameters.variables:
        variables[name] = _put_in(_folded(definition), variables)
    return _put_in(_folded(clause), variables)


def _folded(clause: Clause) -> Node:
    known = Nothing()
    node = tree.without_bindings(clause.expression.nodes)
    return fold.folded(node, lambda: Evaluation(known, Budget()))


def _put_in(node: Node, variables: Mapping[str, Node]) -> Node:
    made = _with_variables(node, variables) if variables else node
    if next(itertools.islice(_all_nodes(made), MAX_NODES, None), None) is not None:
        raise PlanError(f"there are more than {MAX_NODES} operands once the variables are put in")
    return made


def _with_variables(node: Node, variables: Mapping[str, Node]) -> Node:
    if isinstance(node, Select) and isinstance(node.operand, Ident) and node.operand.name in VARIABLES:
        found = variables.get(node.field)
        if found is not None:
            return tree.call(tree.DEFINED, tree.copied(found)) if node.test_only else tree.copied(found)
    return tree.mapped(node, lambda part: _with_variables(part, variables))


def _all_nodes(node: Node) -> Iterator[Node]:
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(tree.children(node))
