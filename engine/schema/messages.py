"""What a JSON Schema validator found, in the places and words that Cerbos uses.

Cerbos's validator (santhosh-tekuri/jsonschema, version 5) makes a tree of errors and Cerbos reports its
leaves: of ``anyOf`` the errors of each branch, of ``required`` one error that lists all names, and where the
type is wrong nothing but that. ``jsonschema_rs`` makes a flat list with one entry for each keyword, which is
turned into those leaves here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote as percent_encoded

if TYPE_CHECKING:
    import jsonschema_rs


class Leaf(NamedTuple):
    """One error: the JSON pointer of the value, what is wrong, the path of the keyword that says so."""

    path: str
    message: str
    keyword: tuple[str | int, ...]


class Lookup(Protocol):
    """The schema that an error is about, for what the error itself does not tell."""

    def value(self, error: jsonschema_rs.ValidationError, keyword: str) -> Any:
        """Return the value of *keyword* beside the keyword of *error*, ``None`` when it is not there."""

    def errors(
        self, error: jsonschema_rs.ValidationError, keyword: str, instance: Any
    ) -> list[jsonschema_rs.ValidationError]:
        """Check *instance* against the schema that is the value of *keyword*."""


def leaves(errors: Iterable[jsonschema_rs.ValidationError], schema: Lookup, at: str = "") -> list[Leaf]:
    """Return the leaves that Cerbos would report; *at* is the pointer of the value that was checked."""
    remaining = _without_consequences(list(errors))
    found: dict[Leaf, None] = {}
    missing: set[tuple[tuple[str | int, ...], tuple[str | int, ...]]] = set()
    for error in remaining:
        if error.kind.name == "required" and error.schema_path[-1:] == ["required"]:
            key = (tuple(error.evaluation_path), tuple(error.instance_path))
            if key in missing:
                continue
            missing.add(key)
        where = at + pointer(error.instance_path)
        for leaf in _KINDS.get(error.kind.name, _other)(error, schema, where):
            found[leaf] = None
    return list(found)


def pointer(steps: Iterable[str | int]) -> str:
    """Write steps as a JSON pointer, percent-encoded as Go does it."""
    return "".join(f"/{_escaped(str(step))}" for step in steps)


def _escaped(step: str) -> str:
    return percent_encoded(step.replace("~", "~0").replace("/", "~1"), safe="$&+:=@-_.~")


def _without_consequences(errors: list[jsonschema_rs.ValidationError]) -> list[jsonschema_rs.ValidationError]:
    """Leave out what else a schema says about a value whose type it finds wrong."""
    wrong = {(_parent(error), tuple(error.instance_path)) for error in errors if error.kind.name == "type"}
    return [error for error in errors if not _is_consequence(error, wrong)] if wrong else errors


def _parent(error: jsonschema_rs.ValidationError) -> tuple[str | int, ...]:
    return tuple(error.evaluation_path[:-1])


def _is_consequence(
    error: jsonschema_rs.ValidationError, wrong: set[tuple[tuple[str | int, ...], tuple[str | int, ...]]]
) -> bool:
    schema, value = tuple(error.evaluation_path), tuple(error.instance_path)
    # Of its own schema only an error of `type` itself may be left.
    longest = len(schema) - 2 if error.kind.name == "type" else len(schema) - 1
    return any(
        (schema[:depth], value[:reach]) in wrong
        for depth in range(longest, -1, -1)
        for reach in range(len(value), -1, -1)
    )


# -- kinds -------------------------------------------------------------------------------------------------

Kind = Callable[["jsonschema_rs.ValidationError", Lookup, str], Iterator[Leaf]]


def _leaf(error: jsonschema_rs.ValidationError, where: str, message: str) -> Leaf:
    return Leaf(where or "/", message, tuple(error.evaluation_path))


def _worded(word: Callable[[Any, Any, Lookup], str]) -> Kind:
    """Return the kind of error that is one leaf; *word* makes its message."""

    def kind(error: jsonschema_rs.ValidationError, schema: Lookup, where: str) -> Iterator[Leaf]:
        yield _leaf(error, where, word(error, error.kind, schema))

    return kind


def _branches(error: jsonschema_rs.ValidationError, schema: Lookup, where: str) -> Iterator[Leaf]:
    at = where.removesuffix(pointer(error.instance_path))
    found = [leaf for branch in _context(error) for leaf in leaves(branch, schema, at)]
    yield from found or [_leaf(error, where, f"{error.kind.name} failed")]


def _context(error: jsonschema_rs.ValidationError) -> list[list[jsonschema_rs.ValidationError]]:
    context: list[list[jsonschema_rs.ValidationError]] = error.kind.as_dict()["context"]
    return context


def _one_of(error: jsonschema_rs.ValidationError, schema: Lookup, where: str) -> Iterator[Leaf]:
    valid = [index for index, branch in enumerate(_context(error)) if not branch]
    if len(valid) > 1:
        yield _leaf(error, where, f"valid against schemas at indexes {valid[0]} and {valid[1]}")
    else:
        yield from _branches(error, schema, where)


def _required(error: jsonschema_rs.ValidationError, schema: Lookup, where: str) -> Iterator[Leaf]:
    here = error.schema_path[-1] if error.schema_path else ""
    instance: Any = error.instance
    if here in ("dependentRequired", "dependencies"):
        for trigger, names in (schema.value(error, str(here)) or {}).items():
            if isinstance(names, list) and trigger in instance:
                for name in names:
                    if name not in instance:
                        message = f"property {quoted(name)} is required, if {quoted(trigger)} property exists"
                        yield _leaf(error, where, message)
        return
    names = schema.value(error, "required") or [error.kind.as_dict()["property"]]
    missing = [quoted(name) for name in names if name not in instance]
    yield _leaf(error, where, f"missing properties: {', '.join(missing)}")


def _property_names(error: jsonschema_rs.ValidationError, schema: Lookup, where: str) -> Iterator[Leaf]:
    inner = error.kind.as_dict()["error"]
    name = f"{where}{pointer([inner.instance])}"
    yield from (leaf._replace(path=name) for leaf in leaves([inner], schema))


def _contains(error: jsonschema_rs.ValidationError, schema: Lookup, where: str) -> Iterator[Leaf]:
    instance: Any = error.instance
    if error.schema_path[-1:] == ["maxContains"]:
        limit = schema.value(error, "maxContains")
        count = sum(not schema.errors(error, "contains", item) for item in instance)
        yield _leaf(error, where, f"valid must be <= {number(limit)}, but got {count}")
        return
    by_item = [schema.errors(error, "contains", item) for item in instance]
    found = [
        leaf for index, errors in enumerate(by_item) for leaf in leaves(errors, schema, f"{where}/{index}")
    ]
    limit = schema.value(error, "minContains")
    count = sum(not errors for errors in by_item)
    least = f"valid must be >= {number(1 if limit is None else limit)}, but got {count}"
    yield from found or [_leaf(error, where, least)]


def _unevaluated(error: jsonschema_rs.ValidationError, schema: Lookup, where: str) -> Iterator[Leaf]:
    keyword = error.kind.name
    instance: Any = error.instance
    for step in error.kind.as_dict()["unexpected"]:
        here = f"{where}{pointer([step])}"
        value = instance[step]
        inner = [] if schema.value(error, keyword) is False else schema.errors(error, keyword, value)
        yield from leaves(inner, schema, here) if inner else [_leaf(error, here, "not allowed")]


def _additional(error: Any, kind: Any, _schema: Lookup) -> str:
    return f"additionalProperties {', '.join(map(quoted, sorted(kind.as_dict()['unexpected'])))} not allowed"


def _type(error: Any, kind: Any, schema: Lookup) -> str:
    wanted = schema.value(error, "type")
    names = wanted if isinstance(wanted, list) else kind.as_dict()["types"]
    return f"expected {' or '.join(names)}, but got {type_name(error.instance)}"


def _constant(_error: Any, kind: Any, _schema: Lookup) -> str:
    return _fixed(kind.as_dict()["expected_value"], "const failed")


def _enumeration(_error: Any, kind: Any, _schema: Lookup) -> str:
    options = kind.as_dict()["options"]
    if any(isinstance(option, (dict, list)) for option in options):
        return "enum failed"
    if len(options) == 1:
        return _fixed(options[0], "enum failed")
    return f"value must be one of {', '.join(map(_go_literal, options))}"


def _fixed(value: Any, otherwise: str) -> str:
    return otherwise if isinstance(value, (dict, list)) else f"value must be {_go_literal(value)}"


def _unique(error: Any, _kind: Any, _schema: Lookup) -> str:
    seen: dict[str, int] = {}
    for index, item in enumerate(error.instance):
        first = seen.setdefault(json.dumps(item, sort_keys=True), index)
        if first != index:
            return f"items at index {first} and {index} are equal"
    return "items are equal"


def _limited(words: str) -> Kind:
    """Return a kind whose message has the keyword's limit and the instance, or its size, in it."""

    def word(error: Any, kind: Any, _schema: Lookup) -> str:
        found = error.instance
        size = len(found) if isinstance(found, (str, list, dict)) else None
        limit = next(iter(kind.as_dict().values()))
        return words.format(limit=number(limit), found=number(found) if size is None else size)

    return _worded(word)


def _content(error: Any, kind: Any, _schema: Lookup) -> str:
    told: str = kind.as_dict().get("message", error.message)
    return told


def _other(error: jsonschema_rs.ValidationError, _schema: Lookup, where: str) -> Iterator[Leaf]:
    yield _leaf(error, where, error.message)


_KINDS: Mapping[str, Kind] = {
    "additionalItems": _limited("only {limit} items are allowed, but found {found} items"),
    "additionalProperties": _worded(_additional),
    "anyOf": _branches,
    "const": _worded(_constant),
    "contains": _contains,
    "contentEncoding": _worded(_content),
    "contentMediaType": _worded(_content),
    "enum": _worded(_enumeration),
    "exclusiveMaximum": _limited("must be < {limit} but found {found}"),
    "exclusiveMinimum": _limited("must be > {limit} but found {found}"),
    "falseSchema": _worded(lambda *_: "not allowed"),
    "format": _worded(
        lambda error, kind, _: f"{_shown(error.instance)} is not valid {quoted(kind.as_dict()['format'])}"
    ),
    "maxItems": _limited("maximum {limit} items required, but found {found} items"),
    "maxLength": _limited("length must be <= {limit}, but got {found}"),
    "maxProperties": _limited("maximum {limit} properties allowed, but found {found} properties"),
    "maximum": _limited("must be <= {limit} but found {found}"),
    "minItems": _limited("minimum {limit} items required, but found {found} items"),
    "minLength": _limited("length must be >= {limit}, but got {found}"),
    "minProperties": _limited("minimum {limit} properties allowed, but found {found} properties"),
    "minimum": _limited("must be >= {limit} but found {found}"),
    "multipleOf": _limited("{found} not multipleOf {limit}"),
    "not": _worded(lambda *_: "not failed"),
    "oneOf": _one_of,
    "pattern": _worded(_content),
    "propertyNames": _property_names,
    "required": _required,
    "type": _worded(_type),
    "unevaluatedItems": _unevaluated,
    "unevaluatedProperties": _unevaluated,
    "uniqueItems": _worded(_unique),
}


# -- words -------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """Quote a name or value in single quotes, control characters escaped."""
    return f"'{json.dumps(text, ensure_ascii=False)[1:-1]}'"


def _shown(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else number(value)


_TYPES = {bool: "boolean", str: "string", list: "array", dict: "object", type(None): "null"}


def type_name(value: Any) -> str:
    """Return JSON Schema's name for the type of a plain value."""
    return _TYPES.get(type(value), "number")


def number(value: Any) -> str:
    """Write a number as Go prints a double: without a fraction where it has none, no exponent up to 1e21."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return str(value)
    double = float(value)
    if double == 0 or not 1e-4 <= abs(double) < 1e21:
        return f"{double:.0f}" if double == 0 else repr(double).replace(".0e", "e")
    written = format(Decimal(repr(double)), "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


def _go_literal(value: Any) -> str:
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value if isinstance(value, str) else number(value), ensure_ascii=False)
