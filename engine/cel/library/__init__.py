"""The functions that CEL expressions can call, as tables; operators and conversions are in ``runtime``.

One Python function stands behind each CEL function name. Members get their target first. Every function
looks at the types of its arguments and raises :class:`~engine.cel.values.NoSuchOverload` where it has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cel.library import (
    encoders,
    formatting,
    hierarchy,
    intersection,
    lists,
    maths,
    network,
    optionals,
    paths,
    regex,
    sets,
    spiffe,
    strings,
    times,
)
from engine.cel.library.declaration import Declaration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DECLARATIONS", "FUNCTIONS", "NEEDS_NOW", "TYPES", "Declaration"]

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **strings.FUNCTIONS,
    **formatting.FUNCTIONS,
    **regex.FUNCTIONS,
    **lists.FUNCTIONS,
    **sets.FUNCTIONS,
    **maths.FUNCTIONS,
    **encoders.FUNCTIONS,
    **optionals.FUNCTIONS,
    **times.FUNCTIONS,
    **network.FUNCTIONS,
    **intersection.FUNCTIONS,
    **hierarchy.FUNCTIONS,
    **paths.FUNCTIONS,
    **spiffe.FUNCTIONS,
}
"""CEL function name -> Python function."""

DECLARATIONS: tuple[Declaration, ...] = (
    *encoders.DECLARATIONS,
    *optionals.DECLARATIONS,
    *times.DECLARATIONS,
    *network.DECLARATIONS,
    *intersection.DECLARATIONS,
    *hierarchy.DECLARATIONS,
    *paths.DECLARATIONS,
    *spiffe.DECLARATIONS,
)
"""Overloads that Google's environment lacks, also of its own ``size``, ``string`` and ``_[_]``."""

TYPES: tuple[str, ...] = (*network.TYPES, *hierarchy.TYPES, *spiffe.TYPES)
"""Names of the abstract types of these functions, which an expression may name (``type(x) == net.IP``)."""

NEEDS_NOW: frozenset[str] = times.NEEDS_NOW
"""Names of the functions that get the time of the check as an additional first argument."""
