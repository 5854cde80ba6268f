"""The CEL environment of policies: which variables an expression sees, and of which types."""

from __future__ import annotations

from dataclasses import replace

from engine.cel import Environment, Record

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


def records(*, runtime_action: bool = False) -> tuple[Record, ...]:
    """Return the records that expressions see; with *runtime_action*, ``runtime`` has :data:`ACTION_FIELD`."""
    if not runtime_action:
        return RECORDS
    extended = replace(RUNTIME, fields={**RUNTIME.fields, **ACTION_FIELD})
    return tuple(extended if record is RUNTIME else record for record in RECORDS)


def environment(*, runtime_action: bool = False) -> Environment:
    """Make the environment that policies are compiled in; it takes about 10 ms."""
    return Environment(IDENTIFIERS, records=records(runtime_action=runtime_action), namespaces=NAMESPACES)
