"""Typed values as plain ones, and back: policies, and what was found out about expressions.

Every class is a row in a table, and a value that is of no such class has no form. A value of a class becomes
a tuple of the number of its row and its fields, a tuple becomes a list, and so on: what ``marshal`` writes
is then plain data, which cannot name anything that is not in the table.
"""

from __future__ import annotations

import dataclasses
import marshal
import sys
from typing import TYPE_CHECKING, Any

from engine import policy as p
from engine.advice import uses
from engine.cel import TypeValue, UInt, nodes
from engine.document import Document
from engine.fields import NAME
from engine.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CLASSES: Sequence[type] = (
    p.All,
    p.Any_,
    p.Condition,
    p.Constants,
    p.DerivedRoles,
    p.ExportConstants,
    p.ExportVariables,
    p.Expr,
    p.IgnoreWhen,
    p.Metadata,
    p.None_,
    p.OutputRule,
    p.PrincipalAction,
    p.PrincipalPolicy,
    p.PrincipalRule,
    p.ResourcePolicy,
    p.ResourceRule,
    p.RoleDefinition,
    p.RolePolicy,
    p.RoleRule,
    p.Schema,
    p.Schemas,
    p.SourceAttributes,
    p.Variables,
    p.When,
    nodes.Call,
    nodes.Comprehension,
    nodes.Const,
    nodes.Entry,
    nodes.Ident,
    nodes.ListLiteral,
    nodes.MapLiteral,
    nodes.MessageLiteral,
    nodes.Select,
    nodes.Span,
    nodes.Type,
    uses.Demand,
    uses.Read,
    uses.Uses,
    TypeValue,
)
MEMBERS = (*Effect, *p.ScopePermissions)

_LIST, _SET, _FROZENSET, _MEMBER, _UINT = range(-5, 0)

PLAIN = frozenset((str, bool, int, float, bytes, type(None)))


class FormlessError(Exception):
    """A value of a class that is not in the table."""


def form_of(value: Any) -> Any:
    """Return the plain form of *value*.

    Raises:
        FormlessError: it has none.

    """
    kind = type(value)
    if kind in PLAIN:
        return value
    write = _WRITERS.get(kind)
    if write is None:
        raise FormlessError(kind.__name__)
    return write(value)


def value_of(form: Any) -> Any:
    """Return the value that has *form*."""
    kind = form.__class__
    if kind is str:
        return sys.intern(form) if len(form) <= NAME else form
    if kind is list:
        return tuple([value_of(item) for item in form])
    if kind is tuple:
        number = form[0]
        if number >= 0:
            return CLASSES[number](*[value_of(item) for item in form[1:]])
        return _READERS[number](form[1])
    if kind is dict:
        return {key: value_of(item) for key, item in form.items()}
    return form


def _fields(number: int, cls: type) -> Callable[[Any], Any]:
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        return lambda value: (number, *[form_of(getattr(value, name)) for name in names])
    return lambda value: (number, *map(form_of, value))  # a named tuple


_WRITERS: Mapping[type, Callable[[Any], Any]] = {
    **{cls: _fields(number, cls) for number, cls in enumerate(CLASSES)},
    **dict.fromkeys((Effect, p.ScopePermissions), lambda value: (_MEMBER, MEMBERS.index(value))),
    tuple: lambda value: [form_of(item) for item in value],
    dict: lambda value: {key: form_of(item) for key, item in value.items()},
    list: lambda value: (_LIST, [form_of(item) for item in value]),
    set: lambda value: (_SET, [form_of(item) for item in value]),
    frozenset: lambda value: (_FROZENSET, [form_of(item) for item in value]),
    UInt: lambda value: (_UINT, int(value)),
}
_READERS: Mapping[int, Callable[[Any], Any]] = {
    _LIST: lambda items: [value_of(item) for item in items],
    _SET: lambda items: {value_of(item) for item in items},
    _FROZENSET: lambda items: frozenset(value_of(item) for item in items),
    _MEMBER: lambda number: MEMBERS[number],
    _UINT: UInt,
}


# -- files -------------------------------------------------------------------------------------------------

NOTHING = b"N"
"""The form of a file that holds no policy."""


def policy_form(policy: p.Policy | None) -> bytes:
    """Return the policy of a file as bytes, without the place and the name of the file.

    Raises:
        FormlessError: it has no form.

    """
    if policy is None:
        return NOTHING
    parts = (policy.body, policy.disabled, policy.description, policy.metadata, policy.variables)
    return marshal.dumps((policy.document.position, *map(form_of, parts)))


def policy_of(data: bytes | memoryview, content: bytes, file: str) -> p.Policy | None:
    """Return the policy that has a form, of a *file* with the *content* that it was read from."""
    if data == NOTHING:
        return None
    position, *forms = marshal.loads(data)  # noqa: S302 - ours, see engine.cel.portable
    body, disabled, description, metadata, variables = map(value_of, forms)
    document = Document(sys.intern(file), None, content, position)
    return p.Policy(body, document, disabled, description, metadata, variables)
