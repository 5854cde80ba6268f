"""Python syntax at a place of CEL text: each node that is made here says which characters it stands for."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.cel.nodes import Span

LOAD, STORE = ast.Load(), ast.Store()


class Syntax:
    """Makes Python syntax for the CEL text at one *span*."""

    __slots__ = ("_at",)

    def __init__(self, span: Span) -> None:
        self._at: Any = {
            "lineno": span.line,
            "col_offset": span.column,
            "end_lineno": span.end_line,
            "end_col_offset": span.end_column,
        }

    # expressions

    def name(self, name: str) -> ast.expr:
        """``name``."""
        return ast.Name(name, LOAD, **self._at)

    def constant(self, value: Any) -> ast.expr:
        """Return a literal that Python can write."""
        return ast.Constant(value, None, **self._at)

    def attribute(self, owner: ast.expr, name: str) -> ast.expr:
        """``owner.name``."""
        return ast.Attribute(owner, name, LOAD, **self._at)

    def subscript(self, container: ast.expr, key: ast.expr) -> ast.expr:
        """``container[key]``."""
        return ast.Subscript(container, key, LOAD, **self._at)

    def call(self, function: str | ast.expr, *arguments: ast.expr) -> ast.expr:
        """``function(arguments...)``."""
        called = self.name(function) if isinstance(function, str) else function
        return ast.Call(called, list(arguments), [], **self._at)

    def compare(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> ast.expr:
        """``left operator right``."""
        return ast.Compare(left, [operator], [right], **self._at)

    def within(self, low: int, value: ast.expr, high: int) -> ast.expr:
        """``low <= value <= high``."""
        operands = [value, self.constant(high)]
        return ast.Compare(self.constant(low), [ast.LtE(), ast.LtE()], operands, **self._at)

    def binary(self, left: ast.expr, operator: ast.operator, right: ast.expr) -> ast.expr:
        """``left operator right``, arithmetic."""
        return ast.BinOp(left, operator, right, **self._at)

    def both(self, *operands: ast.expr) -> ast.expr:
        """Evaluate ``a and b``."""
        return ast.BoolOp(ast.And(), list(operands), **self._at)

    def either(self, *operands: ast.expr) -> ast.expr:
        """Evaluate ``a or b``."""
        return ast.BoolOp(ast.Or(), list(operands), **self._at)

    def opposite(self, operand: ast.expr) -> ast.expr:
        """``not operand``."""
        return ast.UnaryOp(ast.Not(), operand, **self._at)

    def minus(self, operand: ast.expr) -> ast.expr:
        """``-operand``."""
        return ast.UnaryOp(ast.USub(), operand, **self._at)

    def choose(self, condition: ast.expr, then: ast.expr, otherwise: ast.expr) -> ast.expr:
        """``then if condition else otherwise``."""
        return ast.IfExp(condition, then, otherwise, **self._at)

    def named(self, name: str, value: ast.expr) -> ast.expr:
        """``(name := value)``."""
        return ast.NamedExpr(ast.Name(name, STORE, **self._at), value, **self._at)

    def is_a(self, value: ast.expr, python_class: str) -> ast.expr:
        """``value.__class__ is python_class``."""
        return self.compare(self.attribute(value, "__class__"), ast.Is(), self.name(python_class))

    def is_no(self, value: ast.expr, python_class: str) -> ast.expr:
        """``value.__class__ is not python_class``."""
        return self.compare(self.attribute(value, "__class__"), ast.IsNot(), self.name(python_class))

    def list(self, elements: Sequence[ast.expr]) -> ast.expr:
        """``[elements...]``."""
        return ast.List(list(elements), LOAD, **self._at)

    def tuple(self, elements: Sequence[ast.expr]) -> ast.expr:
        """``(elements...)``."""
        return ast.Tuple(list(elements), LOAD, **self._at)

    def set(self, elements: Sequence[ast.expr]) -> ast.expr:
        """``{elements...}``."""
        return ast.Set(list(elements), **self._at)

    def dict(self, keys: Sequence[ast.expr], values: Sequence[ast.expr]) -> ast.expr:
        """``{keys: values}``."""
        return ast.Dict(list(keys), list(values), **self._at)

    # statements

    def assign(self, name: str, value: ast.expr) -> ast.stmt:
        """``name = value``."""
        return ast.Assign([ast.Name(name, STORE, **self._at)], value, **self._at)

    def reduce(self, name: str, value: ast.expr) -> ast.stmt:
        """``name -= value``."""
        return ast.AugAssign(ast.Name(name, STORE, **self._at), ast.Sub(), value, **self._at)

    def evaluate(self, value: ast.expr) -> ast.stmt:
        """``value``, for its effect."""
        return ast.Expr(value, **self._at)

    def when(
        self, condition: ast.expr, then: Sequence[ast.stmt], otherwise: Sequence[ast.stmt] = ()
    ) -> ast.stmt:
        """``if condition: then... else: otherwise...``."""
        return ast.If(condition, list(then), list(otherwise), **self._at)

    def loop(
        self,
        names: Sequence[str],
        over: ast.expr,
        body: Sequence[ast.stmt],
        unbroken: Sequence[ast.stmt] = (),
    ) -> ast.stmt:
        """``for names in over: body... else: unbroken...``."""
        targets: Sequence[ast.expr] = [ast.Name(name, STORE, **self._at) for name in names]
        target = targets[0] if len(targets) == 1 else ast.Tuple([*targets], STORE, **self._at)
        return ast.For(target, over, list(body), list(unbroken), **self._at)

    def guard(self, body: Sequence[ast.stmt], error: str, handler: Sequence[ast.stmt]) -> ast.stmt:
        """``try: body... except Exception as error: handler...``."""
        caught = ast.ExceptHandler(self.name("Exception"), error, list(handler), **self._at)
        return ast.Try(list(body), [caught], [], [], **self._at)

    def fail(self, error: ast.expr, cause: ast.expr | None = None) -> ast.stmt:
        """``raise error from cause``."""
        return ast.Raise(error, cause, **self._at)

    def give(self, value: ast.expr) -> ast.stmt:
        """``return value``."""
        return ast.Return(value, **self._at)

    def stop(self) -> ast.stmt:
        """``break``."""
        return ast.Break(**self._at)

    def shared(self, name: str) -> ast.stmt:
        """``nonlocal name``."""
        return ast.Nonlocal([name], **self._at)

    def function(self, name: str, parameters: Sequence[str], body: Sequence[ast.stmt]) -> ast.FunctionDef:
        """``def name(parameters...): body...``."""
        arguments = ast.arguments(
            posonlyargs=[],
            args=[ast.arg(parameter, None, **self._at) for parameter in parameters],
            kwonlyargs=[],
            kw_defaults=[],
            defaults=[],
        )
        definition = ast.FunctionDef(name, arguments, list(body), [], **self._at)
        if sys.version_info >= (3, 12):
            definition.type_params = []
        return definition
