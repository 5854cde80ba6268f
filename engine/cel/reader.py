"""Reading what the checker hands over: a serialized ``cel.expr.CheckedExpr`` becomes our nodes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from engine.cel import macros, nodes
from engine.cel.nodes import Node, Span, Type
from engine.cel.source import Source, around
from engine.cel.values import TypeValue, UInt
from engine.messages import SCHEMA_SUFFIX, WELL_KNOWN_FILES, classes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


def _shallow_classes() -> Mapping[str, Any]:
    """Make classes that leave every nested ``Expr`` and ``Type`` as bytes.

    The codec limits how deeply messages may nest, and an expression reaches that limit early. Read level by
    level there is none; and a type that is still bytes can be looked up in a cache.
    """
    schema = Path(__file__).with_name(f"checked_expr{SCHEMA_SUFFIX}").read_bytes()
    (original,) = classes(schema, "cel.expr.CheckedExpr")
    file = descriptor_pb2.FileDescriptorProto()
    original.DESCRIPTOR.file.CopyToProto(file)
    for message in file.message_type:
        _leave_as_bytes(message)
    pool = descriptor_pool.DescriptorPool()
    for module in WELL_KNOWN_FILES:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in ("CheckedExpr", "ParsedExpr", "Expr", "Type")
    }


def _leave_as_bytes(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        if field.type_name in {".cel.expr.Expr", ".cel.expr.Type"}:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
    for nested in message.nested_type:
        _leave_as_bytes(nested)


_CLASSES = _shallow_classes()
CheckedExprClass, ParsedExprClass = _CLASSES["CheckedExpr"], _CLASSES["ParsedExpr"]
ExprClass, _Type = _CLASSES["Expr"], _CLASSES["Type"]

PRIMITIVES = {1: nodes.BOOL, 2: nodes.INT, 3: nodes.UINT, 4: nodes.DOUBLE, 5: nodes.STRING, 6: nodes.BYTES}
WELL_KNOWN = {1: Type("google.protobuf.Any"), 2: nodes.TIMESTAMP, 3: nodes.DURATION}


@functools.lru_cache(maxsize=4_096)
def _type(data: bytes) -> Type:
    message = _Type.FromString(data)
    kind = message.WhichOneof("type_kind")
    read = TYPES.get(kind)
    return nodes.DYN if read is None else read(getattr(message, kind))


TYPES: Mapping[str, Callable[[Any], Type]] = {
    "abstract_type": lambda kind: Type(kind.name, tuple(map(_type, kind.parameter_types))),
    "list_type": lambda kind: Type("list", (_type(kind.elem_type),)),
    "map_type": lambda kind: Type("map", (_type(kind.key_type), _type(kind.value_type))),
    "message_type": Type,
    "null": lambda _: nodes.NULL,
    "primitive": lambda number: PRIMITIVES[number],
    "type": lambda inner: Type("type", (_type(inner),)),
    "well_known": lambda number: WELL_KNOWN[number],
    "wrapper": lambda number: Type("wrapper", (PRIMITIVES[number],)),
}
"""How each kind of ``cel.expr.Type`` is read; the others (parameters, errors) say no more than ``dyn``."""

# Operators stand between or before their operands, everything else has brackets.
INFIX = frozenset(
    {
        "_&&_",
        "_||_",
        "_==_",
        "_!=_",
        "_<_",
        "_<=_",
        "_>_",
        "_>=_",
        "_+_",
        "_-_",
        "_*_",
        "_/_",
        "_%_",
        "@in",
        "_?_:_",
    }
)
PREFIX = frozenset({"!_", "-_"})
SUFFIX = frozenset({"_[_]", "_[?_]"})


class Reader:
    """Reads the nodes of one checked expression."""

    def __init__(self, checked: Any, source: Source, variables: frozenset[str]) -> None:
        self._types: Mapping[int, bytes] = dict(checked.type_map)
        self._references: Mapping[int, Any] = dict(checked.reference_map)
        self._positions: Mapping[int, int] = dict(checked.source_info.positions)
        self._source = source
        self._variables = variables

    def node(self, data: bytes) -> Node:
        """Return the node that *data*, a serialized ``cel.expr.Expr``, describes."""
        message = ExprClass.FromString(data)
        kind = message.WhichOneof("expr_kind")
        number = message.id
        read: Callable[..., Node] = getattr(self, READERS[kind])
        found = self._types.get(number)
        return read(
            getattr(message, kind),
            number,
            self._positions.get(number, 0),
            nodes.DYN if found is None else _type(found),
        )

    def inside(self, data: bytes, names: Collection[str]) -> Node:
        """Return the node that *data* describes, inside of a loop that binds *names*."""
        return self.node(data)

    def const(self, const: Any, _: int, position: int, kind: Type) -> Node:
        """Read a literal."""
        return nodes.Const(self._source.token(position), kind, _constant(const))

    def ident(self, ident: Any, number: int, position: int, kind: Type) -> Node:
        """Read a name."""
        return self.named(number, ident.name, self._source.token(position), kind)

    def named(self, number: int, written: str, span: Span, kind: Type) -> Node:
        """Return a name: of a constant (an enum's), of a type, or of a variable."""
        reference = self._references.get(number)
        if reference is not None and reference.HasField("value"):
            return nodes.Const(span, kind, _constant(reference.value))
        name = written if reference is None else reference.name or written
        if kind.name == "type" and name not in self._variables:
            return nodes.Const(span, kind, TypeValue(kind.parameters[0].name if kind.parameters else "type"))
        return nodes.Ident(span, kind, name.removeprefix("."), rooted=name.startswith("."))

    def select(self, select: Any, number: int, position: int, kind: Type) -> Node:
        """Read a selection, or a qualified name."""
        operand = self.node(select.operand)
        if select.test_only:
            return nodes.Select(self._source.call(position), kind, operand, select.field, test_only=True)
        span = around(operand.span, self._source.field(position))
        if number in self._references:  # a qualified name that the checker took as a whole
            return self.named(number, self._references[number].name, span, kind)
        return nodes.Select(span, kind, operand, select.field)

    def call(self, call: Any, _: int, position: int, kind: Type) -> Node:
        """Read a call; the target of a member comes first."""
        member = bool(call.target)
        arguments = tuple(map(self.node, (call.target, *call.args) if member else call.args))
        span = self._call_span(call.function, arguments, position, member=member)
        return nodes.Call(span, kind, call.function, arguments, self._source.token(position))

    def _call_span(self, function: str, arguments: Sequence[Node], position: int, *, member: bool) -> Span:
        if function in INFIX:
            return around(*(argument.span for argument in arguments))
        if function in PREFIX:
            return around(self._source.token(position), arguments[0].span)
        if function in SUFFIX:
            return around(arguments[0].span, self._source.bracket(position))
        if function == "_?._":
            return around(arguments[0].span, self._source.field(position))
        called = self._source.call(position)
        return around(arguments[0].span, called) if member else called

    def list_literal(self, literal: Any, _: int, position: int, kind: Type) -> Node:
        """Read ``[a, b]``."""
        elements = tuple(map(self.node, literal.elements))
        span = self._source.bracket(position)
        return nodes.ListLiteral(span, kind, elements, frozenset(literal.optional_indices))

    def struct(self, literal: Any, number: int, position: int, kind: Type) -> Node:
        """Read ``{a: b}`` or a message."""
        span = self._source.bracket(position)
        entries = tuple(map(self._entry, literal.entries))
        if not literal.message_name:
            return nodes.MapLiteral(span, kind, entries)
        reference = self._references.get(number)
        name = literal.message_name if reference is None else reference.name or literal.message_name
        return nodes.MessageLiteral(span, kind, name, entries)

    def _entry(self, entry: Any) -> nodes.Entry:
        value = self.node(entry.value)
        span = self._source.token(self._positions.get(entry.id, 0))
        key = self.node(entry.map_key) if entry.map_key else nodes.Const(span, nodes.STRING, entry.field_key)
        return nodes.Entry(around(key.span, value.span), key, value, entry.optional_entry)

    def comprehension(self, loop: Any, _: int, position: int, kind: Type) -> Node:
        """Read a loop."""
        over = self.node(loop.iter_range)
        called = self._source.call(position)
        accumulator = {loop.accu_var}
        names = accumulator | {loop.iter_var, loop.iter_var2}
        return nodes.Comprehension(
            called if loop.iter_var == macros.UNUSED else around(over.span, called),
            kind,
            loop.iter_var,
            loop.iter_var2,
            over,
            loop.accu_var,
            self.node(loop.accu_init),
            self.inside(loop.loop_condition, names),
            self.inside(loop.loop_step, names),
            self.inside(loop.result, accumulator),
        )


READERS: Mapping[str, str] = {
    "call_expr": "call",
    "comprehension_expr": "comprehension",
    "const_expr": "const",
    "ident_expr": "ident",
    "list_expr": "list_literal",
    "select_expr": "select",
    "struct_expr": "struct",
}
"""The method of :class:`Reader` for each kind of node."""

CONSTANTS: Mapping[str, Callable[[Any], object]] = {"null_value": lambda _: None, "uint64_value": UInt}


def _constant(message: Any) -> object:
    kind = message.WhichOneof("constant_kind")
    value = getattr(message, kind)
    return CONSTANTS[kind](value) if kind in CONSTANTS else value
