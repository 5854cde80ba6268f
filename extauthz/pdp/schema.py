"""What a message of the PDP API is: Python types that carry their place on the wire and their rules.

A message is declared once, as a named tuple whose annotations hold the field numbers and the rules of the
published API (:mod:`extauthz.pdp.messages`). From that one declaration come the protobuf classes
(:mod:`extauthz.pdp.wire`), the JSON form (:mod:`extauthz.pdp.protojson`) and the checks
(:mod:`extauthz.pdp.validation`), so that the three cannot disagree.
"""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from extauthz.pdp.rules import NONE, Rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.model import JsonValue


class Absent(enum.Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""Stands for a JSON value that is not there, where ``None`` is JSON's ``null``."""

Json = Any
"""``google.protobuf.Value``: a JSON value, or :data:`ABSENT` where a field may lack one."""


class Kind(enum.Enum):
    """What a field holds, each of it or one of it."""

    STRING = "string"
    BYTES = "bytes"
    BOOL = "bool"
    INT = "int"
    UINT = "uint32"
    LONG = "long"
    """Of 64 bits without sign; text in JSON."""
    ENUM = "enum"
    JSON = "value"
    MESSAGE = "message"


class Shape(enum.Enum):
    """How many a field holds."""

    ONE = "one"
    LIST = "list"
    MAP = "map"
    """From strings."""


@dataclass(frozen=True, slots=True)
class EnumType:
    """A protobuf enumeration; the names are numbered from 0. In Python a value is its name."""

    full_name: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tag:
    """The annotation of a field: its number on the wire and the rules of the API."""

    number: int
    rules: Rules = NONE
    enum: EnumType | None = None
    oneof: str = ""
    """At most one field of the same name is set."""
    optional: bool = False
    """Declared ``optional``; for a scalar ``None`` is then absent, and its default value is something."""
    long: bool = False
    """An integer of 64 bits without sign."""
    unsigned: bool = False
    """An integer of 32 bits without sign."""
    json_name: str = ""
    """The name in JSON, where it is not the one that protobuf makes of the field's."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field as the codecs need it."""

    name: str
    json_name: str
    tag: Tag
    kind: Kind
    shape: Shape
    message: type[Any] | None
    """The class of what it holds, for messages."""
    default: Any

    @property
    def rules(self) -> Rules:
        """The rules of the API for this field."""
        return self.tag.rules


@dataclass(frozen=True, slots=True)
class MessageType:
    """A message as the codecs need it. Its fields are in the order of their declaration."""

    full_name: str
    cls: type[Any]
    fields: tuple[Field, ...]
    rules: tuple[MessageRule, ...]


@dataclass(frozen=True, slots=True)
class MessageRule:
    """A rule about a whole message: its id and sentence in the API, and whether a message keeps it."""

    id: str
    sentence: str
    holds: Callable[[Any], bool]


class Opaque(NamedTuple):
    """A message that others declare and read: here it is its bytes. Give it a class of its own."""

    definition: bytes = b""

    @classmethod
    def from_json(cls, value: JsonValue) -> Self:
        """Read the JSON form; raises ``ValueError``, worded for the client."""
        raise NotImplementedError

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        raise NotImplementedError


_Class = TypeVar("_Class", bound=type[Any])
_Made = TypeVar("_Made")
_DECLARED: dict[type[Any], tuple[str, tuple[MessageRule, ...]]] = {}


def message(full_name: str, *rules: MessageRule) -> Callable[[_Class], _Class]:
    """Declare the decorated named tuple to be the protobuf message *full_name*."""

    def declare(cls: _Class) -> _Class:
        _DECLARED[cls] = full_name, rules
        return cls

    return declare


def once_per_class(make: Callable[[type[Any]], _Made]) -> Callable[[type[Any]], _Made]:
    """Let *make* make something of each class of messages, once."""
    return typing.cast("Callable[[type[Any]], _Made]", cache(make))


@once_per_class
def message_type(cls: type[Any]) -> MessageType:
    """Return the declaration of *cls*, read from its annotations."""
    full_name, rules = _DECLARED[cls]
    if issubclass(cls, Opaque):
        return MessageType(full_name, cls, (), rules)
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = tuple(_field(name, hints[name], cls._field_defaults[name]) for name in cls._fields)
    return MessageType(full_name, cls, fields, rules)


def _field(name: str, hint: Any, default: Any) -> Field:
    inner, tag = typing.get_args(hint)
    shape, item = _shape(inner)
    kind = _kind(item, tag)
    inside = item if kind is Kind.MESSAGE else None
    return Field(name, tag.json_name or _json_name(name), tag, kind, shape, inside, default)


def _kind(item: Any, tag: Tag) -> Kind:
    if tag.enum is not None:
        return Kind.ENUM
    if tag.unsigned:
        return Kind.UINT
    return Kind.LONG if tag.long else _KINDS.get(item, Kind.MESSAGE)


_KINDS: Final[Mapping[Any, Kind]] = {
    str: Kind.STRING,
    bytes: Kind.BYTES,
    bool: Kind.BOOL,
    int: Kind.INT,
    Any: Kind.JSON,
}


def _shape(hint: Any) -> tuple[Shape, Any]:
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case None:
            return Shape.ONE, hint
        case origin if origin is tuple:
            return Shape.LIST, arguments[0]
        case origin if origin is Mapping:
            return Shape.MAP, arguments[1]
        case _:  # a message, or None
            return Shape.ONE, next(each for each in arguments if each is not type(None))


def _json_name(name: str) -> str:
    """Spell a field's name as protobuf's JSON mapping does."""
    return re.sub(r"_([a-z])", lambda letter: letter[1].upper(), name)
