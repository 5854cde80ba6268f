"""Typed values from plain ones, by tables of fields: the reader behind :mod:`engine.load`.

A message is a table of its fields; a field has a name, a reader and checks. Faults are collected, never
raised one by one: first what has the wrong shape (kind ``parse error``), and, where every shape is right,
what breaks a rule (kind ``validation error``), with the paths and messages of Cerbos's parser.
"""

from __future__ import annotations

import math
import re
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
        self._misshapen.append(self.document.fault(message, path, key=key, kind=PARSE_ERROR, hint=hint))

    def invalid(self, message: str, path: Path, hint: str = "") -> None:
        """Note a value that breaks a rule of its field; the message begins with the path."""
        self.refuse(f"{field_path(path)}: {message}", path, hint)

    def refuse(self, message: str, path: Path, hint: str = "") -> None:
        """Note a value that breaks a rule."""
        key = bool(path) and isinstance(path[-1], str)
        fault = self.document.fault(message, path, key=key, kind=VALIDATION_ERROR, hint=hint)
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
            reading.misshapen(f"expected a mapping, found {describe(value)}", path)
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
            message = f"`{name}` and `{given[field.name]}` are the same field"
            reading.misshapen(message, (*path, name), key=True)
        elif item is not None:  # null means that the field is not set
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
        found = [field for field in self.fields if field in given]
        if not found:
            message = "exactly one field is required in oneof"
            hint = f"one of {', '.join(self.fields)}"
            reading.refuse(f"{field_path((*path, self.name))}: {message}", path, hint)
        elif len(found) > 1:
            listed = " and ".join(f"`{field}`" for field in found)
            reading.misshapen(f"{listed} cannot stand together", (*path, found[1]), key=True)


# -- readers of values -------------------------------------------------------------------------------------


def text(reading: Reading, value: Any, path: Path) -> str:
    """Read a string; a number or boolean written without quotes is taken as it is written."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return reading.document.source_text(path) or str(value)
    reading.misshapen(f"expected a string, found {describe(value)}", path)
    return ""


def boolean(reading: Reading, value: Any, path: Path) -> bool:
    """Read ``true`` or ``false``."""
    if isinstance(value, bool):
        return value
    reading.misshapen(f"expected true or false, found {describe(value)}", path)
    return False


def unsigned(reading: Reading, value: Any, path: Path) -> int:
    """Read an unsigned 64-bit number, or its decimal text, which is how JSON writes one."""
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**64:
        return number
    reading.misshapen(f"expected an unsigned number, found {describe(value)}", path)
    return 0


def json(reading: Reading, value: Any, path: Path) -> JsonValue:
    """Read any JSON value; numbers become ``float``, as in Cerbos."""
    unfit = _not_json(value, path)
    if unfit is not None:
        reading.misshapen("the number has no place in JSON", unfit)
        return None
    return json_value(value)


def _not_json(value: Any, path: Path) -> Path | None:
    """Return the path of a number that is not finite as a double, ``None`` when there is none."""
    if isinstance(value, (int, float)):
        return None if _finite(value) else path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (_not_json(item, (*path, step)) for step, item in items)
    return next((where for where in found if where is not None), None)


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
            reading.misshapen(f"expected a list, found {describe(value)}", path)
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
            reading.misshapen(f"expected a mapping, found {describe(value)}", path)
            return {}
        return {key: self.read(reading, item, (*path, key)) for key, item in value.items()}


@dataclass(frozen=True, slots=True)
class Choice:
    """Reads a word of an enumeration, by name or by its protobuf number."""

    words: Mapping[str | int, enum.Enum]

    def __call__(self, reading: Reading, value: Any, path: Path) -> enum.Enum | None:
        """Read one word."""
        found = self.words.get(value) if isinstance(value, (str, int)) else None
        if found is None:
            known = [word for word in self.words if isinstance(word, str)]
            hint = did_you_mean(value, known, likeness=0.5) if isinstance(value, str) else ""
            shown = f"`{value}`" if isinstance(value, (str, int)) else describe(value)
            reading.misshapen(f"expected {' or '.join(known)}, found {shown}", path, hint=hint)
        return found


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


def describe(value: Any) -> str:
    """Name the type of a plain value for a message."""
    return _WORDS.get(type(value), "nothing")
