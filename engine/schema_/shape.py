"""What a JSON Schema says about one attribute: whether there may be such a one, and of which types.

Only what is certain is said: where a schema branches (``anyOf``, ``if``), describes attributes by pattern, or
refers to itself without end, an attribute that it does not name may exist all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.attribute_use import ANY, Kinds
from engine.schema_messages import type_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.schema import Schema

MAX_PARTS = 256
"""How many parts of a schema are put together for one attribute, at most."""

_OPEN = (
    "anyOf",
    "oneOf",
    "if",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "propertyNames",
    "$dynamicRef",
    "$recursiveRef",
)
"""Keywords with which an attribute may be described elsewhere."""

_OTHERS = ("additionalProperties", "unevaluatedProperties")
"""Keywords for attributes that have no name in the schema."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The schema does not name the attribute *step* of the path; *closed*: it allows no others."""

    step: int
    known: tuple[str, ...]
    closed: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The schema names the attribute: its possible types, and values if they are listed."""

    kinds: Kinds = ANY
    values: tuple[Any, ...] | None = None


Part = tuple[Any, str]
"""A subschema, and the URL of the document that it stands in."""


def shape(schema: Schema, path: Sequence[str]) -> Missing | Found | None:
    """Return what *schema* says about the attribute at *path*, ``None`` when nothing is certain."""
    parts = _parts(schema, [(schema.contents, schema.url.partition("#")[0])])
    for step, name in enumerate(path):
        if parts is None or _kinds(parts).isdisjoint({"object"}):
            return None
        inner = [(part["properties"][name], base) for part, base in parts if name in _properties(part)]
        if not inner:
            return _missing(parts, step)
        parts = _parts(schema, inner)
    return None if parts is None else Found(_kinds(parts), _values(parts))


def _missing(parts: Sequence[Part], step: int) -> Missing | None:
    if any(_is_open(part) for part, _ in parts):
        return None
    known = tuple(dict.fromkeys(name for part, _ in parts for name in _properties(part)))
    closed = any(part.get(word) is False for part, _ in parts for word in _OTHERS)
    return Missing(step, known, closed) if known or closed else None


def _is_open(part: Mapping[str, Any]) -> bool:
    return any(isinstance(part.get(word), dict) for word in _OTHERS) or any(word in part for word in _OPEN)


def _parts(schema: Schema, start: list[Part]) -> list[Part] | None:
    """Return all subschemas that hold together with those in *start*, ``None`` when they have no end."""
    found: list[Part] = []
    waiting = list(start)
    while waiting:
        part, base = waiting.pop(0)
        if isinstance(part, bool):
            continue
        if len(found) >= MAX_PARTS:
            return None
        if not isinstance(part, dict) or "$id" in part or ("id" in part and found):
            return None  # another base for references: nothing that attribute schemas need
        found.append((part, base))
        waiting.extend(_together(schema, part, base))
    return found


def _together(schema: Schema, part: Mapping[str, Any], base: str) -> Iterator[Part]:
    reference = part.get("$ref")
    if isinstance(reference, str):
        yield schema.resolved(reference, base)
    for inner in part.get("allOf", ()):
        yield inner, base


def _properties(part: Mapping[str, Any]) -> Mapping[str, Any]:
    found = part.get("properties")
    return found if isinstance(found, dict) else {}


def _kinds(parts: Sequence[Part]) -> Kinds:
    kinds = ANY
    for part, _ in parts:
        named = part.get("type")
        if named is not None:
            listed = named if isinstance(named, list) else [named]
            kinds &= {"number" if name == "integer" else name for name in listed}
        values = _listed(part)
        if values is not None:
            kinds &= {type_name(value) for value in values}
    return kinds


def _values(parts: Sequence[Part]) -> tuple[Any, ...] | None:
    lists = [values for part, _ in parts if (values := _listed(part)) is not None]
    return (
        None
        if not lists
        else tuple(value for value in lists[0] if all(value in other for other in lists[1:]))
    )


def _listed(part: Mapping[str, Any]) -> list[Any] | None:
    if "const" in part:
        return [part["const"]]
    values = part.get("enum")
    return values if isinstance(values, list) else None
