"""Random expressions, for putting the same question to several answerers.

An expression is built from templates by the kind of value that it has; where a template says ``$bool``
another expression of that kind goes. A template that binds a variable makes it known to what is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLES = {
    "x": "dyn",
    "y": "dyn",
    "m": "map<string, dyn>",
    "l": "list<dyn>",
    "t": "list<string>",
    "s": "string",
    "i": "int",
    "d": "double",
    "b": "bool",
}

LEAVES: Mapping[str, Sequence[str]] = {
    "bool": ("true", "false", "b", "has(m.a)"),
    "bytes": ("b'ab'", "b''", r"b'\xff'"),
    "double": ("d", "0.0", "1.5", "-2.0", "1e300"),
    "duration": ("duration('1h')", "duration('-1.5s')", "duration('2562047h')"),
    "dyn": (
        "x",
        "y",
        "m.a",
        "x.a",
        "x[0]",
        "l[1]",
        "dyn(1)",
        "dyn(1u)",
        "dyn(true)",
        "dyn('a')",
        "dyn(0.5)",
        "dyn(null)",
    ),
    "int": ("i", "0", "1", "-1", "7", "9223372036854775807", "size(s)", "size(l)"),
    "list": ("l", "t", "[]", "[1, 2]", "['a', 'b']", "[1.0, true, null, 'a']"),
    "map": ("m", "{}", "{'a': 1}", "{1: 'a', 2: 'b'}", "{'a': {'a': 1}, 'b': null}"),
    "string": ("s", "''", "'a'", "'é😀'", "'1'", "'a.b'"),
    "timestamp": (
        "timestamp('2024-02-29T12:30:00Z')",
        "timestamp(0)",
        "timestamp('9999-12-31T23:59:59.999999999Z')",
    ),
    "uint": ("0u", "1u", "18446744073709551615u"),
}

ANY = ("bool", "bytes", "double", "duration", "dyn", "int", "list", "map", "string", "timestamp", "uint")
NUMBERS = ("int", "double", "uint")

TEMPLATES: Mapping[str, Sequence[str]] = {
    "bool": (
        "($bool) && ($bool)",
        "($bool) || ($bool)",
        "($dyn) && ($bool)",
        "($bool) || ($dyn)",
        "!($bool)",
        "($bool) ? ($bool) : ($bool)",
        "($dyn) ? ($bool) : ($bool)",
        *(f"(${kind}) == (${kind})" for kind in ANY),
        *(f"($dyn) == (${kind})" for kind in ANY),
        *(f"(${kind}) != ($dyn)" for kind in ANY),
        *(f"(${kind}) {operator} ($dyn)" for kind in (*NUMBERS, "string") for operator in ("<", ">=")),
        *(f"(${kind}) {operator} (${kind})" for kind in ANY[:1] for operator in ("<", ">")),
        *(f"(${kind}) <= (dyn(${other}))" for kind in NUMBERS for other in NUMBERS),
        "($dyn) < ($dyn)",
        "($string) < ($string)",
        "($timestamp) < ($timestamp)",
        "($duration) > ($duration)",
        *(f"(${kind}) in ($list)" for kind in ("dyn", "string", "int", "double", "bool")),
        *(f"(${kind}) in ($dyn)" for kind in ("dyn", "string", "int")),
        "($string) in ($map)",
        "($dyn) in [1, 2, 3]",
        "($dyn) in [0.0, 'a', 1]",
        "($dyn) in ['a', 'b']",
        "has(($map).a)",
        "($string).startsWith($string)",
        "($dyn).endsWith($string)",
        "($dyn).contains($string)",
        "($string).matches('^a.*')",
        "($^list).exists(NAME, $bool)",
        "($^list).all(NAME, $bool)",
        "($^list).exists_one(NAME, $bool)",
        "($^dyn).exists(NAME, $bool)",
        "($^dyn).all(NAME, NAME == ($dyn))",
        "($^map).exists(NAME, $bool)",
        "($^list).exists(i, NAME, i > 0 && ($bool))",
        "cel.bind(NAME, $^dyn, $bool)",
        "cel.bind(NAME, $^dyn, NAME == ($dyn))",
        "optional.ofNonZeroValue($dyn).hasValue()",
        "type($dyn) == type($dyn)",
        "type($dyn) == int",
    ),
    "bytes": ("($bytes) + ($bytes)", "bytes($string)"),
    "double": (
        *(f"($double) {operator} ($double)" for operator in "+-*/"),
        "double($dyn)",
        "-($double)",
        "($bool) ? ($double) : ($double)",
    ),
    "duration": ("($duration) + ($duration)", "($timestamp) - ($timestamp)", "($duration) - ($duration)"),
    "dyn": (
        "($dyn) + ($dyn)",
        "($dyn) + ($int)",
        "($double) * ($dyn)",
        "($dyn) - ($double)",
        "($dyn) / ($dyn)",
        "($dyn) % ($int)",
        "-($dyn)",
        "($dyn).a",
        "($dyn)['a']",
        "($dyn)[$int]",
        "($dyn)[$dyn]",
        "($list)[$int]",
        "($map)[$string]",
        "($map).?a.orValue($dyn)",
        "($map)[?$string].orValue($dyn)",
        "dyn($bool)",
        "dyn($int)",
        "dyn($string)",
        "dyn($list)",
        "($bool) ? ($dyn) : ($dyn)",
        "cel.bind(NAME, $^dyn, $dyn)",
    ),
    "int": (
        *(f"($int) {operator} ($int)" for operator in "+-*/%"),
        "int($uint)",
        "int($double)",
        "int($string)",
        "size($dyn)",
        "size($list)",
        "size(($^map).map(NAME, NAME))",
        "($string).size()",
        "-($int)",
        "($bool) ? ($int) : ($int)",
    ),
    "list": (
        "[$dyn, $dyn]",
        "($list) + ($list)",
        "($^list).map(NAME, $dyn)",
        "($^list).filter(NAME, $bool)",
        "($^dyn).filter(NAME, $bool)",
        "($^list).map(NAME, $bool, $dyn)",
        "($^list).transformList(i, NAME, $bool, $dyn)",
        "[?($map).?a, $dyn]",
    ),
    "map": (
        "{'a': $dyn, 'b': $dyn}",
        "{$string: $dyn, $int: $dyn}",
        "($^map).transformMap(k, NAME, $dyn)",
        "($^map).transformMap(k, NAME, $bool, $dyn)",
    ),
    "string": (
        "($string) + ($string)",
        "string(x)",  # of no infinity, which Go and C++ spell differently
        "string($int)",
        "($bool) ? ($string) : ($string)",
    ),
    "timestamp": ("($timestamp) + ($duration)", "($timestamp) - ($duration)"),
    "uint": (*(f"($uint) {operator} ($uint)" for operator in "+-*/%"), "uint($double)", "uint($int)"),
}


@dataclass(frozen=True)
class Grammar:
    """Leaves and templates by kind, and the kind of the variables that macros bind."""

    leaves: Mapping[str, Sequence[str]]
    templates: Mapping[str, Sequence[str]]
    bound_kind: str


EVERYTHING = Grammar(LEAVES, TEMPLATES, "dyn")

TYPED = Grammar(
    leaves={kind: LEAVES[kind] for kind in ("double", "string")}
    | {
        "bool": ("true", "false", "b", "has(m.a)"),
        "int": ("i", "0", "1", "-1", "7"),
        "list": ("t", "['a', 'b']"),
    },
    templates={
        "bool": (
            "($bool) && ($bool)",
            "($bool) || ($bool)",
            "!($bool)",
            "($bool) ? ($bool) : ($bool)",
            *(
                f"(${kind}) {operator} (${kind})"
                for kind in ("int", "string")
                for operator in ("==", "!=", "<", ">=")
            ),
            "($string) in ($list)",
            "($string).startsWith($string)",
            "($string).endsWith($string)",
            "($^list).exists(NAME, $bool)",
            "($^list).all(NAME, $bool)",
            "($^list).exists_one(NAME, $bool)",
        ),
        "double": tuple(f"($double) {operator} ($double)" for operator in "+-*"),
        "int": (*(f"($int) {operator} ($int)" for operator in "+-*/%"), "size($string)", "size($list)"),
        "list": ("($list) + ($list)", "($^list).filter(NAME, $bool)", "($^list).map(NAME, $string)"),
        "string": ("($string) + ($string)", "($bool) ? ($string) : ($string)"),
    },
    bound_kind="string",
)
"""What evaluators agree on that do not know ``dyn`` well: operands of one type."""

HOLE = re.compile(r"\$(\^?\w+)")


@st.composite
def expressions(
    draw: st.DrawFn, kind: str, grammar: Grammar = EVERYTHING, depth: int = 3, bound: tuple[str, ...] = ()
) -> str:
    """Return the text of an expression of a *kind*, at most *depth* deep, over *bound* variables too."""
    leaves = (*grammar.leaves[kind], *(bound if kind == grammar.bound_kind else ()))
    if depth == 0 or kind not in grammar.templates or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(leaves))
    template = draw(st.sampled_from(grammar.templates[kind]))
    inner = (*bound, f"v{len(bound)}") if "NAME" in template else bound
    parts = HOLE.split(template)
    scopes = [(hole.lstrip("^"), bound if hole.startswith("^") else inner) for hole in parts[1::2]]
    parts[1::2] = [draw(expressions(kind, grammar, depth - 1, scope)) for kind, scope in scopes]
    return "".join(parts).replace("NAME", inner[-1] if inner else "")


numbers = st.sampled_from((0.0, 1.0, -1.0, 2.5, 1e300, -0.0, float("nan")))
texts = st.sampled_from(("", "a", "b", "é😀", "1", "true"))
keys = st.sampled_from(("a", "b"))
scalars = st.none() | st.booleans() | st.integers(-2, 2) | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=6,
)

activations: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "x": values,
        "y": values,
        "m": st.dictionaries(keys, values, max_size=2),
        "l": st.lists(values, max_size=3),
        "t": st.lists(texts, max_size=3),
        "s": texts,
        "i": st.sampled_from((0, 1, -1, 5, 2**63 - 1, -(2**63))),
        "d": numbers,
        "b": st.booleans(),
    }
)
"""A value for each of :data:`VARIABLES`."""
