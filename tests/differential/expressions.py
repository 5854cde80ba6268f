"""Random CEL expressions over everything that Cerbos's environment has, from a ``random.Random``.

An expression is built from templates by the kind of value that it has; where a template says ``$bool``
another expression of that kind goes. ``NAME`` is a variable that the template binds and that what is in it
may use, but not where it says ``$^bool``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.differential.grammar import LEAVES, TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

HOLE = re.compile(r"\$(\^?\w+)")
BOUND = {"$^strings": "string", "$^ints": "int"}
"""The kind of a variable over a list of that kind; over any other it is ``dyn``."""

LEAF_CHANCE = 0.15
WRONG_CHANCE = 0.02
"""How often a hole gets a value of another kind behind ``dyn``, so that it fails at run time."""

UNTYPED_CHANCE = 0.003
"""How often a hole gets a value of another kind as it is, so that it fails in the checker."""

OUTPUT_KINDS = tuple(sorted(TEMPLATES))
LIBRARY_KINDS = frozenset({"cidr", "domain", "hierarchy", "ip", "matcher", "optional", "spiffe", "type"})
DATA_KINDS = tuple(kind for kind in OUTPUT_KINDS if kind not in LIBRARY_KINDS)
"""Cerbos has its own ideas of what a value of a library's type is equal to when its type is hidden."""

Bound = tuple[tuple[str, str], ...]
"""Names and kinds of the variables in sight."""


def expression(random: Random, kind: str, depth: int = 3, bound: Bound = ()) -> str:
    """Return the text of an expression of a *kind*, at most *depth* deep, over *bound* variables too."""
    if depth <= 0 or kind not in TEMPLATES or random.random() < LEAF_CHANCE:
        return _leaf(random, kind, bound)
    template = random.choice(TEMPLATES[kind])
    inner = (*bound, (f"v{len(bound)}", _bound_kind(template))) if "NAME" in template else bound
    return _filled(template, inner, lambda hole: _hole(random, hole, depth, bound, inner))


def _filled(template: str, inner: Bound, fill: Callable[[str], str]) -> str:
    parts = HOLE.split(template)
    if "NAME" in template:
        parts[::2] = [part.replace("NAME", inner[-1][0]) for part in parts[::2]]
    parts[1::2] = [fill(hole) for hole in parts[1::2]]
    return "".join(parts)


def _hole(random: Random, hole: str, depth: int, bound: Bound, inner: Bound) -> str:
    scope = bound if hole.startswith("^") else inner
    kind, chance = hole.lstrip("^"), random.random()
    if chance < UNTYPED_CHANCE:
        return expression(random, random.choice(OUTPUT_KINDS), depth - 1, scope)
    if chance < WRONG_CHANCE:
        return f"dyn({expression(random, random.choice(DATA_KINDS), depth - 2, scope)})"
    return expression(random, kind, depth - 1, scope)


def _leaf(random: Random, kind: str, bound: Bound) -> str:
    names = [name for name, bound_kind in bound if bound_kind in (kind, "dyn")]
    if names and random.random() < 0.5:
        return random.choice(names)
    return random.choice(LEAVES[kind])


def _bound_kind(template: str) -> str:
    return next((kind for hole, kind in BOUND.items() if f"({hole})" in template), "dyn")


def shorter(text: str) -> Sequence[str]:
    """Return simpler expressions to try in place of *text*: its parts in brackets, and literals."""
    parts, opened = set(), []
    for position, character in enumerate(text):
        if character == "(":
            opened.append(position)
        elif character == ")" and opened:
            parts.add(text[opened.pop() + 1 : position])
    literals = ("true", "false", "1", "'a'")
    return sorted((part for part in {*parts, *literals} if part and len(part) < len(text)), key=len)
