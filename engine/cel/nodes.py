"""The checked syntax tree of an expression: what the frontend makes and the generator reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Type:
    """A CEL type: ``int``, ``list`` of ``string``, ``cerbos.Principal``, ``dyn``."""

    name: str
    parameters: tuple[Type, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})" if self.parameters else self.name


DYN = Type("dyn")
BOOL = Type("bool")
BYTES = Type("bytes")
DOUBLE = Type("double")
DURATION = Type("google.protobuf.Duration")
INT = Type("int")
NULL = Type("null_type")
STRING = Type("string")
TIMESTAMP = Type("google.protobuf.Timestamp")
UINT = Type("uint")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a node stands in its text: lines from 1, columns in UTF-8 bytes from 0, as Python's own."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node with its place and the type that the checker found for it."""

    span: Span
    type: Type


@dataclass(frozen=True, slots=True)
class Const(Node):
    """A literal, or a name that stands for a constant."""

    value: object


@dataclass(frozen=True, slots=True)
class Ident(Node):
    """A variable: of the comprehension around it, or of the environment; then *name* may be qualified.

    *rooted* names (``.x``) are always of the environment.
    """

    name: str
    rooted: bool = False


@dataclass(frozen=True, slots=True)
class Select(Node):
    """``operand.field``; with *test_only*, ``has(operand.field)``."""

    operand: Node
    field: str
    test_only: bool = False


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function or operator; the target of a member call is the first of *arguments*.

    *sign* is the place of the operator or bracket, where cel-go places mistakes in a call.
    """

    function: str
    arguments: tuple[Node, ...]
    sign: Span | None = None


@dataclass(frozen=True, slots=True)
class ListLiteral(Node):
    """``[a, ?b]``; *optional* holds the indexes of elements that may be absent."""

    elements: tuple[Node, ...]
    optional: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Entry:
    """``key: value`` of a map, or of a message, where the key is the constant name of a field."""

    span: Span
    key: Node
    value: Node
    optional: bool = False


@dataclass(frozen=True, slots=True)
class MapLiteral(Node):
    """``{a: b, ?c: d}``."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class MessageLiteral(Node):
    """``google.protobuf.Duration{seconds: 1}``."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Comprehension(Node):
    """The loop that every macro over a range becomes (``cel.expr.Expr.Comprehension``)."""

    variable: str
    second_variable: str
    range: Node
    accumulator: str
    start: Node
    condition: Node
    step: Node
    result: Node
