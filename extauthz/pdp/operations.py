"""What the PDP API offers over HTTP, for people: a sentence and examples for each call.

From this table and the declarations of the messages comes the OpenAPI document; a test sends every example.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from extauthz.pdp import services
from extauthz.pdp.admin_methods import ADMIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from extauthz.pdp.method import Method

NONE: Final[Mapping[str, Any]] = MappingProxyType({})

TAGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        services.CERBOS: "Decisions",
        services.OURS: "Explanations",
        services.AUTHZEN: "AuthZEN",
        ADMIN: "Policies and schemas",
        "grpc.health.v1.Health": "Health",
    }
)
"""The headings of the document, in order, by the gRPC service whose calls stand under them."""


class Operation(NamedTuple):
    """A call in words."""

    method: Method
    summary: str
    description: str
    examples: Mapping[str, Any] = NONE
    """Bodies to begin with, by what they show."""
    deprecated: bool = False


ALICE: Final = {"id": "alice", "roles": ["user"], "attr": {"department": "finance"}}
EXPENSE: Final = {"kind": "expense", "id": "1", "attr": {"ownerId": "alice", "region": "EMEA"}}
OTHER_EXPENSE: Final = {"kind": "expense", "id": "2", "attr": {"ownerId": "bob", "region": "NA"}}

CHECK_EXAMPLES: Final = {
    "One resource": {
        "principal": ALICE,
        "resources": [{"actions": ["read", "delete"], "resource": EXPENSE}],
    },
    "Two resources, with the reasons": {
        "requestId": "example-1",
        "includeMeta": True,
        "principal": ALICE,
        "resources": [
            {"actions": ["read", "delete"], "resource": EXPENSE},
            {"actions": ["read"], "resource": OTHER_EXPENSE},
        ],
    },
    "With an entry for the audit log": {
        "principal": ALICE,
        "resources": [{"actions": ["read"], "resource": EXPENSE}],
        "requestContext": {"annotations": {"ticket": "OPS-7"}},
    },
}

PLAN_EXAMPLES: Final = {
    "Which may be read": {
        "action": "read",
        "principal": ALICE,
        "resource": {"kind": "expense"},
        "includeMeta": True,
    },
    "Which may be read and deleted": {
        "actions": ["read", "delete"],
        "principal": ALICE,
        "resource": {"kind": "expense", "attr": {"department": "finance"}},
    },
}

SUBJECT: Final = {
    "type": "user",
    "id": "alice",
    "properties": {"cerbos.roles": ["user"], "department": "finance"},
}
OWN_EXPENSE: Final = {"type": "expense", "id": "1", "properties": {"ownerId": "alice", "region": "EMEA"}}

EVALUATION_EXAMPLES: Final = {
    "One action": {"subject": SUBJECT, "resource": OWN_EXPENSE, "action": {"name": "read"}},
    "With the reasons": {
        "subject": SUBJECT,
        "resource": OWN_EXPENSE,
        "action": {"name": "read"},
        "context": {"cerbos.includeMeta": True, "cerbos.requestId": "example-1"},
    },
}

EVALUATIONS_EXAMPLES: Final = {
    "Two actions": {
        "subject": SUBJECT,
        "resource": OWN_EXPENSE,
        "evaluations": [{"action": {"name": "read"}}, {"action": {"name": "delete"}}],
    },
    "Until the first that is denied": {
        "subject": SUBJECT,
        "action": {"name": "read"},
        "evaluations": [
            {"resource": OWN_EXPENSE},
            {"resource": {"type": "expense", "id": "2", "properties": {"ownerId": "bob"}}},
        ],
        "options": {"evaluations_semantic": "deny_on_first_deny"},
    },
}

SET_EXAMPLES: Final = {
    "Two instances": {
        "actions": ["read", "delete"],
        "principal": ALICE,
        "resource": {
            "kind": "expense",
            "instances": {"1": {"attr": EXPENSE["attr"]}, "2": {"attr": OTHER_EXPENSE["attr"]}},
        },
    }
}

BATCH_EXAMPLES: Final = {
    "Two resources": {
        "principal": ALICE,
        "resources": [
            {"actions": ["read", "delete"], "resource": EXPENSE},
            {"actions": ["read"], "resource": OTHER_EXPENSE},
        ],
    }
}

OPERATIONS: Final = (
    Operation(
        services.CHECK_RESOURCES,
        "Check resources",
        "Decides for one principal which actions are allowed on which resources.",
        CHECK_EXAMPLES,
    ),
    Operation(
        services.PLAN_RESOURCES,
        "Plan resources",
        "Answers with the condition that a resource has to fulfil for the action to be allowed: the filter "
        "for a list, to be turned into a database query.",
        PLAN_EXAMPLES,
    ),
    Operation(services.SERVER_INFO, "Server info", "Tells which version is running."),
    Operation(
        services.CHECK_RESOURCE_SET,
        "Check a resource set",
        "Deprecated: use Check resources. Decides the same actions on several resources of one kind; outputs "
        "are not answered.",
        SET_EXAMPLES,
        deprecated=True,
    ),
    Operation(
        services.CHECK_RESOURCE_BATCH,
        "Check a resource batch",
        "Deprecated: use Check resources. Decides actions on several resources; neither the reasons nor "
        "outputs are answered.",
        BATCH_EXAMPLES,
        deprecated=True,
    ),
    Operation(
        services.ACCESS_EVALUATION,
        "Access evaluation",
        "Decides whether a subject may do one action to one resource, in the words of OpenID AuthZEN.",
        EVALUATION_EXAMPLES,
    ),
    Operation(
        services.ACCESS_EVALUATION_BATCH,
        "Access evaluations",
        "Decides several evaluations at once; what they have in common is said once.",
        EVALUATIONS_EXAMPLES,
    ),
    Operation(services.METADATA, "AuthZEN metadata", "Tells the absolute addresses of the AuthZEN calls."),
)
"""Every call that is always there, in the order in which they are shown."""

EXPLAIN_OPERATION: Final = Operation(
    services.EXPLAIN_RESOURCES,
    "Explain resources",
    "Decides as Check resources does, and tells the whole way to each decision: the scopes and rules that "
    "were looked at, what became of each condition, and the values that it read.",
    {name: body for name, body in CHECK_EXAMPLES.items() if "audit" not in name},
)
"""There only when the configuration says `pdp: {explain: true}`."""
