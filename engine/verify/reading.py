"""How suites are read: keys of maps in paths, rules between fields, and faults as Cerbos words them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.document import VALIDATION_ERROR, Fault, Place, snake_case
from engine.fields import Check, Reading, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.document import Document, Path
    from engine.fields import Read

Rule = "Callable[[dict[str, Any]], str]"


class Key(str):
    """A step of a path that is a key which the author chose, not the name of a field."""

    __slots__ = ()


class SuiteReading(Reading):
    """A reading whose messages show keys in brackets, and whose places are Cerbos's."""

    def invalid(self, message: str, path: Path, hint: str = "") -> None:
        """Note a value that breaks a rule of its field; the message begins with the path."""
        self.refuse(f"{suite_path(path)}: {message}", path, hint)

    def refuse(self, message: str, path: Path, hint: str = "") -> None:
        """Note a value that breaks a rule: placed at the field's name, or where an item begins."""
        place = _place(self.document, path)
        self._invalid.append(Fault(self.document.file, *place, message, path, VALIDATION_ERROR, hint))


def _place(document: Document, path: Path) -> Place:
    if path and isinstance(path[-1], str) and not isinstance(path[-1], Key):
        return document.place(path, key=True)
    place = document.place(path)
    item = value_at(document.value, path)
    if path and isinstance(item, dict) and item:
        # For Cerbos a block mapping begins at its first colon.
        first = next(iter(item))
        if document.place((*path, first), key=True) == place:
            return Place(place.line, place.column + len(first))
    return place


def suite_path(path: Path) -> str:
    """Write a path as in ``tests[0].expected[1].actions["view"]``.

    Keys lose their underscores, as Cerbos's validation messages have it.
    """
    return "".join(_step(step) for step in path).removeprefix(".")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f'["{_lower_camel(step)}"]' if isinstance(step, Key) else f".{step}"


def _lower_camel(key: str) -> str:
    return re.sub("_+([a-zA-Z0-9])", lambda match: match[1].upper(), key)


# -- readers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keyed:
    """Reads a mapping whose keys the author chose."""

    read: Read
    key_checks: tuple[Check, ...] = ()
    checks: tuple[Check, ...] = ()

    def __call__(self, reading: Reading, value: Any, path: Path) -> dict[str, Any]:
        """Read the values of a mapping."""
        if not isinstance(value, dict):
            reading.misshapen(f"expected a mapping, found {describe(value)}", path)
            return {}
        return {key: self._entry(reading, key, item, (*path, Key(key))) for key, item in value.items()}

    def _entry(self, reading: Reading, key: str, item: Any, path: Path) -> Any:
        found = self.read(reading, item, path)
        faults = [check(key) for check in self.key_checks] + [check(found) for check in self.checks]
        for message in faults:
            if message:
                reading.invalid(message, path)
        return found


class Ruled:
    """Reads a message, and checks rules that concern several of its fields."""

    def __init__(self, read: Read, *rules: Callable[[dict[str, Any]], str]) -> None:
        self._read = read
        self._rules = rules

    def __call__(self, reading: Reading, value: Any, path: Path) -> Any:
        """Read the message."""
        found = self._read(reading, value, path)
        if isinstance(value, dict):
            for message in filter(None, (rule(value) for rule in self._rules)):
                reading.invalid(message, path)
        return found


def lacks_all(*fields_and_message: str) -> Callable[[dict[str, Any]], str]:
    """Return a rule that one of several fields has to be set; the last argument is the message."""
    *fields, message = fields_and_message
    return lambda value: "" if any(_is_set(value, name) for name in fields) else message


def set_together(first: str, second: str, message: str) -> Callable[[dict[str, Any]], str]:
    """Return a rule that two fields cannot both be set."""
    return lambda value: message if _is_set(value, first) and _is_set(value, second) else ""


def _is_set(value: dict[str, Any], name: str) -> bool:
    return bool(value.get(name) or value.get(snake_case(name)))


# -- words -------------------------------------------------------------------------------------------------


def fault_lines(faults: Iterable[Fault], value: Any) -> str:
    """Write faults one per line, as ``line:column message``.

    A value that is not there has no place, and comes last. *value* is the whole document.
    """
    ordered = sorted(faults, key=lambda fault: not _has_place(fault, value))
    return "\n".join(_line(fault, value) for fault in ordered)


def _line(fault: Fault, value: Any) -> str:
    return f"{fault.line}:{fault.column} {fault.message}" if _has_place(fault, value) else fault.message


def _has_place(fault: Fault, value: Any) -> bool:
    return bool(fault.line) and (not fault.path or value_at(value, fault.path) is not _ABSENT)


_ABSENT = object()


def value_at(value: Any, path: Path) -> Any:
    """Return the value at *path*, :data:`_ABSENT` when there is none."""
    for step in path:
        if isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        elif isinstance(value, dict) and isinstance(step, str):
            value = value[step] if step in value else value.get(snake_case(step), _ABSENT)
        else:
            return _ABSENT
    return value
