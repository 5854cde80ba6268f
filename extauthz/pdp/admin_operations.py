"""What the admin API offers over HTTP, for people: a sentence and examples for each call."""

from __future__ import annotations

from typing import Final

from extauthz.pdp import admin_methods
from extauthz.pdp.operations import Operation

PUT_EXAMPLES: Final = {
    "A resource policy": {
        "policies": [
            {
                "apiVersion": "api.cerbos.dev/v1",
                "resourcePolicy": {
                    "resource": "invoice",
                    "version": "default",
                    "rules": [{"actions": ["read"], "effect": "EFFECT_ALLOW", "roles": ["accountant"]}],
                },
            }
        ]
    }
}
SCHEMA_EXAMPLES: Final = {
    "A schema, in base64": {"schemas": [{"id": "invoice.json", "definition": "eyJ0eXBlIjogIm9iamVjdCJ9"}]}
}

ADMIN_OPERATIONS: Final = (
    Operation(
        admin_methods.ADD_OR_UPDATE_POLICY,
        "Put policies",
        "Adds policies, or replaces those of the same kind, name, version and scope: all or none. They are "
        "refused when the store would not compile as a whole with them. Only for stores in databases.",
        PUT_EXAMPLES,
    ),
    Operation(admin_methods.LIST_POLICIES, "List policies", "Tells the ids of policies."),
    Operation(
        admin_methods.GET_POLICY, "Get policies", "Shows policies; those that are not there are left out."
    ),
    Operation(
        admin_methods.INSPECT_POLICIES,
        "Inspect policies",
        "Tells what policies refer to: actions, attributes, variables, constants and derived roles.",
    ),
    Operation(
        admin_methods.DISABLE_POLICY,
        "Disable policies",
        "Takes policies out of force and keeps them. Refused when others in force need them.",
    ),
    Operation(admin_methods.ENABLE_POLICY, "Enable policies", "Puts disabled policies in force again."),
    Operation(
        admin_methods.DELETE_POLICY,
        "Delete policies",
        "Takes policies away. Refused when others in force need them.",
    ),
    Operation(
        admin_methods.ADD_OR_UPDATE_SCHEMA,
        "Put schemas",
        "Adds JSON Schemas, or replaces those of the same id: all or none.",
        SCHEMA_EXAMPLES,
    ),
    Operation(admin_methods.LIST_SCHEMAS, "List schemas", "Tells the ids of JSON Schemas."),
    Operation(admin_methods.GET_SCHEMA, "Get schemas", "Shows JSON Schemas."),
    Operation(
        admin_methods.DELETE_SCHEMA,
        "Delete schemas",
        "Takes JSON Schemas away. Refused when policies could not be used without them.",
    ),
    Operation(
        admin_methods.RELOAD_STORE,
        "Reload the store",
        "Reads the store again and puts in force what is there.",
    ),
    Operation(
        admin_methods.PURGE_STORE_REVISIONS,
        "Purge revisions",
        "Forgets what policies were before. Only for stores in databases.",
    ),
)
"""The calls of the admin API, in the order in which they are shown."""
