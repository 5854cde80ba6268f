"""What the type checker is told about a function that Google's own environment does not declare."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Declaration:
    """One overload of a function.

    *parameters* and *result* are CEL type texts: ``string``, ``list<string>``, ``optional_type<string>``, a
    name like ``net.IP`` for an abstract type, ``~A`` for a type parameter. A *member* is called as
    ``first.name(rest...)``: its first parameter is the value before the dot.
    """

    name: str
    overload_id: str
    parameters: tuple[str, ...]
    result: str
    member: bool = False


def everywhere(name: str, parameters: tuple[str, ...], result: str) -> tuple[Declaration, Declaration]:
    """Return the overloads of a function that can be called both ways: ``name(a, b)``, ``a.name(b)``."""
    return (
        Declaration(name, f"{name}_overload", parameters, result),
        Declaration(name, f"{name}_member_overload", parameters, result, member=True),
    )
