"""Expressions as parts of a larger Python function, which answers only where nothing fails.

The function of an expression translates its failures and lets operands of ``&&`` and ``||`` absorb them.
Here a failure leaves the function as whatever exception Python raises, and whoever called it finds out with
the functions of the expressions what it means. So ``a && b`` is Python's ``a and b``, without a ``try``.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from engine.cel import nodes
from engine.cel.codegen import CALLS, built
from engine.cel.control import comprehension
from engine.cel.generator import Generator, Part, UnsupportedError, Vocabulary
from engine.cel.syntax import Syntax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.cel.nodes import Node, Span

Path = tuple[str, ...]
"""A variable and the fields that are selected from it: ``("R", "attr")``."""


class Inliner(Generator):
    """Generates one function that evaluates many expressions.

    *known* says where the function has the value of a path; a variable that it does not know cannot be used.
    """

    keeps_failures = False

    def __init__(self, vocabulary: Vocabulary, known: Callable[[Path, Node], Part | None]) -> None:
        super().__init__(vocabulary, CALLS, comprehension)
        self._known = known

    @property
    def uses_now(self) -> bool:
        """Whether an expression asks for the time; it then reads ``activation.now``."""
        return self._uses_now

    @property
    def is_over(self) -> bool:
        """Whether the current block ends with ``return``: nothing that follows in it is reached."""
        return bool(self._frame.body) and isinstance(self._frame.body[-1], ast.Return)

    def operand(self, node: Node) -> Part:
        """Generate the value of *node*; where the function has it already, that is its variable."""
        path = self._path(node)
        part = self._known(path, node) if path else None
        if part is None and len(path) == 1:
            raise UnsupportedError(node, f"`{path[0]}` is not known as a whole")
        return super().operand(node) if part is None else part

    def _path(self, node: Node) -> Path:
        """Return what *node* selects from a variable of the environment, empty if it is anything else."""
        fields: list[str] = []
        while isinstance(node, nodes.Select) and not node.test_only:
            fields.append(node.field)
            node = node.operand
        if not isinstance(node, nodes.Ident) or (node.name in self._scope and not node.rooted):
            return ()
        return (*node.name.split("."), *reversed(fields))

    def finished(
        self, span: Span, parameters: Sequence[str], before: Sequence[ast.stmt], names: dict[str, Any]
    ) -> Callable[..., Any]:
        """Make the function of everything that was added, with the statements *before* at its beginning."""
        at, body = Syntax(span), [*before, *self._frame.body]
        if self._frame.uses_budget:
            body.insert(0, at.assign("budget", at.name("MAX_ITERATIONS")))
        definition = at.function("decide", [*parameters, *self._constants], body)
        return built(definition, "<decision>", names, tuple(self._constants.values()))
