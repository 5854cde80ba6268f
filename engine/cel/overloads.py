"""What the type checker is told: which extensions are on, which overloads Google's environment lacks."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from cel_expr_python import cel  # type: ignore[import-untyped]  # the wheel has no py.typed

from engine.cel.library.declaration import Declaration

if TYPE_CHECKING:
    from collections.abc import Sequence

EXTENSIONS = (
    "bindings",
    "encoders",
    "lists",
    "math",
    "optional",
    "regex",
    "sets",
    "strings",
    "two-var-comprehensions",
)

NAMED = re.compile(r"(?!google\.)\w+(?:\.\w+)+")
"""The name of a type of the library as a type text: ``net.IP``. The checker takes it for an empty message."""

STANDARD = frozenset({"_[_]", "_<_", "_<=_", "_>_", "_>=_", "size", "string"})
"""Standard functions that the library adds overloads to; the checker takes those only as an extension."""


def configuration(declarations: Sequence[Declaration], extensions: Sequence[str]) -> cel.EnvConfig:
    """Return the environment as a document in cel-go's environment format, of which JSON is a part."""
    functions: dict[str, list[dict[str, Any]]] = {}
    for row in declarations:
        if row.name not in STANDARD:
            functions.setdefault(row.name, []).append(_overload(row))
    document = {
        "name": "engine",
        "extensions": [{"name": name} for name in extensions],
        "functions": [{"name": name, "overloads": overloads} for name, overloads in functions.items()],
    }
    return cel.NewEnvConfigFromYaml(json.dumps(document))


def extensions(declarations: Sequence[Declaration]) -> list[cel.CelExtension]:
    """Return the overloads of standard functions, which the checker takes only as extensions."""
    return [
        cel.CelExtension(row.overload_id, [cel.FunctionDecl(row.name, [_native_overload(row)])])
        for row in declarations
        if row.name in STANDARD
    ]


def _native_overload(row: Declaration) -> cel.Overload:
    parameters = [cel.Type(text) for text in row.parameters]
    return cel.Overload(row.overload_id, cel.Type(row.result), parameters, is_member=row.member)


def opaque_types(declarations: Sequence[Declaration]) -> list[str]:
    """Return the names of the types of the library; the checker takes each for an empty message."""
    named = (text for row in declarations for text in (*row.parameters, row.result) if NAMED.fullmatch(text))
    return sorted(set(named))


def _overload(row: Declaration) -> dict[str, Any]:
    parameters = [_type_document(text) for text in row.parameters]
    target = {"target": parameters.pop(0)} if row.member else {}
    return {"id": row.overload_id, **target, "args": parameters, "return": _type_document(row.result)}


def _type_document(text: str) -> dict[str, Any]:
    """Return a CEL type text in the document's form: ``list<~A>`` has one parameter, itself a type."""
    if text.startswith("~"):
        return {"type_name": text[1:], "is_type_param": True}
    name, _, rest = text.replace(" ", "").partition("<")
    return {"type_name": name, "params": [_type_document(part) for part in _parameters(rest[:-1])]}


def _parameters(text: str) -> list[str]:
    """Split ``string,list<~A>`` at the commas that are not inside of brackets."""
    depth, parts = 0, [""] if text else []
    for character in text:
        depth += BRACKETS.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


NUMBERS = {"int": "int64", "uint": "uint64", "double": "double"}
ORDERS = {"_<_": "less", "_<=_": "less_equals", "_>_": "greater", "_>=_": "greater_equals"}


CROSS_TYPE_COMPARISONS = tuple(
    Declaration(name, f"{order}_{left_name}_{right_name}", (left, right), "bool")
    for name, order in ORDERS.items()
    for left, left_name in NUMBERS.items()
    for right, right_name in NUMBERS.items()
    if left != right
)
"""Numbers of different types can be ordered: an option of cel-go that Cerbos sets."""


BRACKETS = {"<": 1, ">": -1}
