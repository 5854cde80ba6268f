"""Typed values from plain ones, by tables of fields: the reader behind :mod:`engine.load`.

A message is a table of its fields; a field has a name, a reader and checks. Faults are collected, never
raised one by one: first what has the wrong shape (kind ``parse error``), and, where every shape is right,
what breaks a rule (kind ``validation error``), with the paths and messages of Cerbos's parser.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.document import PARSE_ERROR, VALIDATION_ERROR, did_you_mean, snake_case
from engine.model import JsonValue, json_value

if TYPE_CHECKING:
    import enum

    from engine.document import Document, Fault, Path


class Reading:
    """One document being read, and the faults found in it so far."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._misshapen: list[Fault] = []
        self._invalid: list[Fault] = []

    @property
    def faults(self) -> list[Fault]:
        """What to report: broken rules only where every shape is right."""
        return sorted(self._misshapen or self._invalid)

    @property
    def well_formed(self) -> bool:
        """No fault so far."""
        return not (self._misshapen or self._invalid)

    def misshapen(self, message: str, path: Path, *, key: bool = False, hint: str = "") -> None:
        """Note a value that has the wrong shape."""
        self._misshapen.append(
            self.document.fault(message, path, key=key, token=True, kind=PARSE_ERROR, hint=hint)
        )

    def invalid(self, message: str, path: Path, hint: str = "") -> None:
        """Note a value that breaks a rule of its field; the message begins with the path."""
        self.refuse(f"{field_path(path)}: {message}", path, hint)

    def refuse(self, message: str, path: Path, hint: str = "") -> None:
        """Note a value that breaks a rule."""
        key = bool(path) and isinstance(path[-1], str)
        fault = self.document.fault(
            message, path, key=key, token=bool(path), kind=VALIDATION_ERROR, hint=hint
        )
        self._invalid.append(fault)


Read = Callable[[Reading, Any, "Path"], Any]
Check = Callable[[Any], str]
"""Returns what is wrong with a value, empty when nothing is."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its name in JSON, the attribute it becomes, how to read and check it."""

    name: str
    attribute: str
    read: Read
    checks: tuple[Check, ...] = ()
    required: bool = False


class Message:
    """A reader for mappings with known fields; reads to an instance of *cls*."""

    def __init__(self, cls: Callable[..., Any], *fields: Field, one_of: OneOf | None = None) -> None:
        self._cls = cls
        self._required = tuple(field for field in fields if field.required)
        self._one_of = one_of
        self._by_name = {field.name: field for field in fields}
        self._by_any_name = {snake_case(name): field for name, field in self._by_name.items()} | self._by_name

    def __call__(self, reading: Reading, value: Any, path: Path) -> Any:
        """Read a mapping to an instance, or to ``None`` and faults."""
        if not isinstance(value, dict):
            reading.misshapen(f"expected object got {node_type(value)}", path, hint="it takes a mapping")
            return None
        arguments: dict[str, Any] = {}
        given: dict[str, str] = {}
        for name, item in value.items():
            self._read_field(reading, name, item, path, arguments, given)
        for field in self._required:
            if field.attribute not in arguments:
                reading.invalid("value is required", (*path, field.name))
        if self._one_of is not None:
            self._one_of.check(reading, given, path)
        return self._cls(**arguments) if reading.well_formed else None

    def _read_field(
        self,
        reading: Reading,
        name: str,
        item: Any,
        path: Path,
        arguments: dict[str, Any],
        given: dict[str, str],
    ) -> None:
        field = self._by_any_name.get(name)
        if field is None:
            hint = did_you_mean(name, self._by_name)
            reading.misshapen(f'unknown field "{name}"', (*path, name), key=True, hint=hint)
        elif field.name in given:
            first = reading.document.place((*path, given[field.name]), key=True)
            message = f"duplicate field definition: previous definition at [{first.line}:{first.column}]"
            hint = f"`{name}` and `{given[field.name]}` are the same field"
            reading.misshapen(message, (*path, name), key=True, hint=hint)
        else:
            given[field.name] = name
            here = (*path, field.name)
            arguments[field.attribute] = field.read(reading, item, here)
            for check in field.checks:
                if message := check(arguments[field.attribute]):
                    reading.invalid(message, here)
                    break


@dataclass(frozen=True, slots=True)
class OneOf:
    """Exactly one of *fields* must be set; *name* is the name of the group in the protobuf schema."""

    name: str
    fields: tuple[str, ...]

    def check(self, reading: Reading, given: Mapping[str, str], path: Path) -> None:
        """Note when none is set, or more than one."""
        found = [field for field in given if field in self.fields]
        if not found:
            message = "exactly one field is required in oneof"
            hint = f"one of {', '.join(self.fields)}"
            reading.refuse(f"{field_path((*path, self.name))}: {message}", path, hint)
        elif len(found) > 1:
            first = reading.document.place((*path, given[found[0]]), key=True)
            message = f"invalid value: oneof field is already set at [{first.line}:{first.column}]"
            hint = f"{' and '.join(f'`{field}`' for field in found)} cannot stand together"
            reading.misshapen(message, (*path, found[1]), key=True, hint=hint)


NAME = 32
"""Texts of so many characters are likely to be names that other policies have too: they are shared."""


# -- readers of values -------------------------------------------------------------------------------------


def text(reading: Reading, value: Any, path: Path) -> str:
    """Read a string; an integer or boolean written without quotes is taken as it is written."""
    if isinstance(value, str):
        return sys.intern(value) if len(value) <= NAME else value
    if value is None:
        return ""
    if isinstance(value, int):
        return reading.document.source_text(path) or str(value)
    hint = "put it in quotes" if isinstance(value, float) else ""
    reading.misshapen(f"expected string value got {node_type(value)}", path, hint=hint)
    return ""


def boolean(reading: Reading, value: Any, path: Path) -> bool:
    """Read ``true`` or ``false``."""
    if isinstance(value, bool):
        return value
    hint = "write `true` or `false`"
    reading.misshapen(f"expected boolean value got {node_type(value)}", path, hint=hint)
    return False


def unsigned(reading: Reading, value: Any, path: Path) -> int:
    """Read an unsigned 64-bit number, or its decimal text, which is how JSON writes one."""
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**64:
        return number
    reading.misshapen(_unsigned_refusal(value), path)
    return 0


def _unsigned_refusal(value: Any) -> str:
    if isinstance(value, str):
        return f'invalid integer value "{value}": it has to be a decimal number'
    if isinstance(value, int) and not isinstance(value, bool):
        return f"unexpected negative value {value}" if value < 0 else f"invalid integer value {value}"
    return f"expected integer value got {node_type(value)}"


def json(reading: Reading, value: Any, path: Path) -> JsonValue:
    """Read any JSON value; numbers become ``float``, as in Cerbos."""
    unfit = _not_json(value, path)
    if unfit is not None:
        place, word = unfit
        reading.misshapen(f"unexpected {word}", place, hint="JSON has no such number")
        return None
    return json_value(value)


def _not_json(value: Any, path: Path) -> tuple[Path, str] | None:
    """Return the path of a number that is not finite as a double and its name, ``None`` without one."""
    if isinstance(value, (int, float)):
        return None if _finite(value) else (path, _not_finite(value))
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (_not_json(item, (*path, step)) for step, item in items)
    return next((where for where in found if where is not None), None)


def _not_finite(number: float) -> str:
    return "Nan" if isinstance(number, float) and math.isnan(number) else "Infinity"


def _finite(number: float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def ignored(_reading: Reading, _value: Any, _path: Path) -> None:
    """Read nothing: the field is for editors."""


@dataclass(frozen=True, slots=True)
class Many:
    """Reads a list to a tuple."""

    read: Read
    checks: tuple[Check, ...] = ()

    def __call__(self, reading: Reading, value: Any, path: Path) -> tuple[Any, ...]:
        """Read the items of a list."""
        if not isinstance(value, list):
            hint = "write a list: `[a, b]`"
            reading.misshapen(f"expected sequence got {node_type(value)}", path, hint=hint)
            return ()
        return tuple(self._item(reading, item, (*path, index)) for index, item in enumerate(value))

    def _item(self, reading: Reading, item: Any, path: Path) -> Any:
        read = self.read(reading, item, path)
        for check in self.checks:
            if message := check(read):
                reading.invalid(message, path)
                break
        return read


@dataclass(frozen=True, slots=True)
class Entries:
    """Reads a mapping with free keys."""

    read: Read

    def __call__(self, reading: Reading, value: Any, path: Path) -> Mapping[str, Any]:
        """Read the values of a mapping."""
        if not isinstance(value, dict):
            reading.misshapen(f"expected map got {node_type(value)}", path, hint="it takes a mapping")
            return {}
        return {key: self.read(reading, item, (*path, key)) for key, item in value.items()}


@dataclass(frozen=True, slots=True)
class Choice:
    """Reads a word of an enumeration, by name or by its protobuf number.

    *refused* are further names of the enumeration that are not allowed here. Where there is no word for 0,
    which protobuf takes for unset, a value is required.
    """

    words: Mapping[str | int, enum.Enum]
    refused: tuple[str, ...] = ()

    def __call__(self, reading: Reading, value: Any, path: Path) -> enum.Enum | None:
        """Read one word."""
        if value is None:
            value = 0
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            reading.misshapen("invalid enum value", path, hint=self._hint(""))
            return None
        found = self.words.get(value)
        if found is None and isinstance(value, str) and value not in self.refused:
            reading.misshapen(f'invalid enum value "{value}"', path, hint=self._hint(value))
        elif found is None:
            unset = value == 0 or str(value).endswith("_UNSPECIFIED")
            listed = ", ".join(self._names)
            reading.invalid("value is required" if unset else f"must be one of [{listed}]", path)
        return found

    @property
    def _names(self) -> list[str]:
        return [word for word in self.words if isinstance(word, str)]

    def _hint(self, value: str) -> str:
        return did_you_mean(value, self._names, likeness=0.5) or f"one of {', '.join(self._names)}"


# -- checks ------------------------------------------------------------------------------------------------


def matches(pattern: str, *, shown: str = "") -> Check:
    """Return a check for a regular expression; the message quotes *shown*, which means the same."""
    expression = re.compile(pattern, re.ASCII)
    message = f"does not match regex pattern `{shown or pattern}`"

    def check(value: str) -> str:
        return "" if expression.search(value) and not value.endswith("\n") else message

    return check


def equals(expected: str) -> Check:
    """Return a check for one constant."""
    return lambda value: "" if value == expected else f"must equal `{expected}`"


def not_empty(value: Any) -> str:
    """Check that a required value is not its type's empty value, which protobuf does not tell from unset."""
    return "" if value else "value is required"


def some_text(value: str) -> str:
    """Check that an item is not the empty string."""
    return "" if value else "must be at least 1 characters"


def unique(value: tuple[Any, ...]) -> str:
    """Check that no item is repeated."""
    return "" if len(set(value)) == len(value) else "repeated value must contain unique items"


# -- words -------------------------------------------------------------------------------------------------


def field_path(path: Path) -> str:
    """Write a path as Cerbos's validation messages do: ``resourcePolicy.rules[1].effect``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


_WORDS = {
    dict: "a mapping",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


_NODE_TYPES = {
    dict: "Mapping",
    list: "Sequence",
    str: "String",
    bool: "Bool",
    int: "Integer",
    float: "Float",
    type(None): "Null",
}


def node_type(value: Any) -> str:
    """Name the type of a plain value as Cerbos's YAML parser names its nodes."""
    if isinstance(value, float) and not math.isfinite(value):
        return "Infinity" if math.isinf(value) else "Nan"
    return _NODE_TYPES[type(value)]


def describe(value: Any) -> str:
    """Name the type of a plain value for a message."""
    return _WORDS.get(type(value), "nothing")
