"""Checked nodes to a Python function: the operators, loops and branches of an expression as Python's own.

What the types settle is settled here, once: ``R.attr.region == "EMEA"`` becomes two attributes, a subscript
and a comparison. :mod:`engine.cel.generator` has the parts and the names, :mod:`engine.cel.operators` and
:mod:`engine.cel.control` say what each function of CEL becomes.
"""

from __future__ import annotations

import ast
import types
from typing import TYPE_CHECKING, Any

from engine.cel import control, operators
from engine.cel.generator import Generated, Generator, UnsupportedError, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.cel.nodes import Node
    from engine.cel.runtime import Listing

__all__ = ["Generated", "UnsupportedError", "Vocabulary", "build", "built", "generate"]

CALLS = {**operators.CALLS, **control.CALLS}


def generate(root: Node, vocabulary: Vocabulary) -> Generated:
    """Generate the function of a checked expression; raises :class:`UnsupportedError`."""
    return Generator(vocabulary, CALLS, control.comprehension).function(root)


def build(generated: Generated, listing: Listing, names: dict[str, Any]) -> Callable[[object], Any]:
    """Make the Python function; *names* is all that it can reach beside its own constants."""
    return built(generated.definition, listing.file, names, (listing, *generated.constants))


def built(
    definition: ast.FunctionDef, file: str, names: dict[str, Any], constants: tuple[object, ...]
) -> Callable[..., Any]:
    """Make a Python function whose last parameters are bound to *constants*."""
    return function(compiled(definition, file), names, constants)


def compiled(definition: ast.FunctionDef, file: str) -> types.CodeType:
    """Return the code of a function, which says in tracebacks that it stands in *file*."""
    module = ast.Module([definition], [])
    code = compile(module, file, "exec", dont_inherit=True, optimize=0)
    return next(constant for constant in code.co_consts if isinstance(constant, types.CodeType))


def function(
    code: types.CodeType, names: dict[str, Any], constants: tuple[object, ...]
) -> Callable[..., Any]:
    """Make a Python function of its code; its last parameters are bound to *constants*."""
    return types.FunctionType(code, names, code.co_name, constants)
