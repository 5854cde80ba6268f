"""Expressions without a type check, which some cases of cel-spec ask for.

Every type is ``dyn``, names are resolved here. No policy is compiled this way; it exercises the run time
behind the generated code.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from engine.cel import Environment, TypeValue, nodes
from engine.cel.environment import FUNCTION_NAMES
from engine.cel.frontend import Checker
from engine.cel.nodes import Node, Type
from engine.cel.reader import ExprClass, ParsedExprClass, Reader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from engine.cel.source import Source

TYPE_NAMES = frozenset(
    [
        "bool",
        "bytes",
        "double",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "type",
        "uint",
        "google.protobuf.Duration",
        "google.protobuf.Timestamp",
    ]
)


class UntypedEnvironment(Environment):
    """An environment whose expressions are only parsed."""

    def __init__(self, variables: Mapping[str, str], *, container: str = "") -> None:
        super().__init__(variables, container=container)
        self._checker = UntypedChecker(variables, container=container)
        self._vocabulary = dataclasses.replace(
            self._vocabulary, functions=Functions(self._vocabulary.functions)
        )


class Functions(dict[str, str]):
    """Function names; one that nobody knows fails when it is called."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, "unbound")


class UntypedChecker(Checker):
    def __init__(self, variables: Mapping[str, str], *, container: str = "") -> None:
        super().__init__(variables, container=container)
        self._container = container

    def compiled(self, text: str) -> bytes:
        serialized: bytes = self.environment.compile(text, disable_check=True).serialize()
        return serialized

    def read(self, data: bytes, source: Source) -> Node:
        message = ParsedExprClass.FromString(data)
        return UntypedReader(message, source, self.variables, self._container).node(message.expr)


class UntypedReader(Reader):
    """Resolves names as cel-spec says: the longest qualified name first, from the container outwards."""

    def __init__(self, parsed: Any, source: Source, variables: frozenset[str], container: str) -> None:
        super().__init__(
            SimpleNamespace(type_map={}, reference_map={}, source_info=parsed.source_info), source, variables
        )
        self._container = container
        self._bound: frozenset[str] = frozenset()

    def inside(self, data: bytes, names: Collection[str]) -> Node:
        outer, self._bound = self._bound, self._bound.union(names)
        try:
            return super().inside(data, names)
        finally:
            self._bound = outer

    def ident(self, ident: Any, number: int, position: int, kind: Type) -> Node:
        span = self._source.token(position)
        return self._resolved(ident.name, span) or nodes.Ident(span, nodes.DYN, ident.name)

    def select(self, select: Any, number: int, position: int, kind: Type) -> Node:
        name = "" if select.test_only else self._qualified(select)
        found = self._resolved(name, self._source.field(position)) if name else None
        return found or super().select(select, number, position, kind)

    def call(self, call: Any, number: int, position: int, kind: Type) -> Node:
        if call.target:
            name = self._qualified_expression(call.target)
            for candidate in self._candidates(f"{name}.{call.function}") if name else ():
                if candidate in FUNCTION_NAMES:
                    arguments = tuple(map(self.node, call.args))
                    return nodes.Call(self._source.call(position), nodes.DYN, candidate, arguments)
        return super().call(call, number, position, kind)

    def _resolved(self, name: str, span: nodes.Span) -> Node | None:
        if name in self._bound:
            return nodes.Ident(span, nodes.DYN, name)
        if name.split(".", maxsplit=1)[0] in self._bound:
            return None
        for candidate in self._candidates(name):
            if candidate in self._variables:
                return nodes.Ident(span, nodes.DYN, candidate, rooted=True)
            if candidate in TYPE_NAMES:
                return nodes.Const(span, Type("type", (nodes.DYN,)), TypeValue(candidate))
        return None

    def _candidates(self, name: str) -> Iterator[str]:
        if name.startswith("."):
            yield name[1:]
            return
        parts = self._container.split(".") if self._container else []
        for length in range(len(parts), -1, -1):
            yield ".".join((*parts[:length], name))

    def _qualified(self, select: Any) -> str:
        inner = self._qualified_expression(select.operand)
        return f"{inner}.{select.field}" if inner else ""

    def _qualified_expression(self, data: bytes) -> str:
        message = ExprClass.FromString(data)
        if message.WhichOneof("expr_kind") == "ident_expr":
            return str(message.ident_expr.name)
        if message.WhichOneof("expr_kind") == "select_expr" and not message.select_expr.test_only:
            return self._qualified(message.select_expr)
        return ""
