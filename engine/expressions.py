"""The CEL environment of policies: which variables an expression sees, and of which types."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.cel import Environment, Record
from engine.cel.environment import vocabulary as vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.cel.codegen import Vocabulary
    from engine.cel.nodes import Node

CONSTANTS = ("C", "constants")
VARIABLES = ("V", "variables")
GLOBALS = ("G", "globals")
NAMESPACES = (*CONSTANTS, *VARIABLES, *GLOBALS)

RUNTIME = Record(
    "cerbos.Runtime",
    {
        "effectiveDerivedRoles": ("list<string>", "effective_derived_roles"),
        "effective_derived_roles": ("list<string>", "effective_derived_roles"),
    },
)

RECORDS = (
    Record(
        "cerbos.Principal",
        {
            "id": ("string", "id"),
            "roles": ("list<string>", "roles"),
            "attr": ("map<string, dyn>", "attr"),
            "policyVersion": ("string", "policy_version"),
            "policy_version": ("string", "policy_version"),
            "scope": ("string", "scope"),
        },
    ),
    Record(
        "cerbos.Resource",
        {
            "kind": ("string", "kind"),
            "id": ("string", "id"),
            "attr": ("map<string, dyn>", "attr"),
            "policyVersion": ("string", "policy_version"),
            "policy_version": ("string", "policy_version"),
            "scope": ("string", "scope"),
        },
    ),
    Record(
        "cerbos.AuxData",
        {
            "jwt": ("map<string, dyn>", "jwt"),
            "jwts": ("map<string, dyn>", "jwts"),
        },
    ),
    Record(
        "cerbos.Request",
        {
            "principal": ("cerbos.Principal", "principal"),
            "resource": ("cerbos.Resource", "resource"),
            "auxData": ("cerbos.AuxData", "aux_data"),
            "aux_data": ("cerbos.AuxData", "aux_data"),
        },
    ),
    RUNTIME,
)
"""The values are :mod:`engine.model`'s objects and :class:`engine.check.Runtime`, read by attribute."""

IDENTIFIERS = {
    "request": "cerbos.Request",
    "P": "cerbos.Principal",
    "R": "cerbos.Resource",
    "runtime": "cerbos.Runtime",
    **dict.fromkeys(NAMESPACES, "dyn"),
}


ACTION_FIELD = {"action": ("string", "action")}
"""What ``runtime`` has besides, where the settings say so; Cerbos does not have it."""

FIELDS = {record.name: record.fields for record in RECORDS}

ATTRIBUTES = {
    field: attribute
    for fields in (*(record.fields for record in RECORDS), ACTION_FIELD)
    for field, (_, attribute) in fields.items()
}
"""The attribute behind each field of a record; a field has the same one in every record that has it."""


def environment(*, runtime_action: bool = False, inspect: Callable[[Node], Any] | None = None) -> Environment:
    """Make the environment that policies are compiled in; it takes about 10 ms.

    What *inspect* says of each checked expression is kept with it.
    """
    records: tuple[Record, ...] = RECORDS
    if runtime_action:
        extended = replace(RUNTIME, fields={**RUNTIME.fields, **ACTION_FIELD})
        records = tuple(extended if record is RUNTIME else record for record in RECORDS)
    return Environment(IDENTIFIERS, records=records, namespaces=NAMESPACES, inspect=inspect)


@functools.cache
def vocabulary() -> Vocabulary:
    """Return what code can refer to that is generated from checked expressions of policies."""
    return vocabulary_of(RECORDS, NAMESPACES)
