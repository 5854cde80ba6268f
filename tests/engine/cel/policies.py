"""An environment like that of policies, for tests: records, a namespace, attributes of any type."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.cel import Environment, EvaluationError, Record, Timestamp

RECORDS = (
    Record(
        "test.Principal",
        {
            "id": ("string", "id"),
            "roles": ("list<string>", "roles"),
            "attr": ("map<string, dyn>", "attr"),
            "policyVersion": ("string", "policy_version"),
        },
    ),
    Record(
        "test.Request", {"principal": ("test.Principal", "principal"), "names": ("list<string>", "names")}
    ),
)

VARIABLES = {
    "P": "test.Principal",
    "request": "test.Request",
    "V": "dyn",
    "x": "dyn",
    "headers": "map<string, string>",
    "ids": "list<string>",
}


class Names(dict[str, Any]):
    """The values of a namespace."""

    def __missing__(self, name: str) -> Any:
        raise EvaluationError(f"undefined field '{name}'")


def environment() -> Environment:
    return Environment(VARIABLES, records=RECORDS, namespaces=["V"])


def activation(**changes: Any) -> SimpleNamespace:
    principal = SimpleNamespace(
        id="ana",
        roles=("user", "manager"),
        attr={
            "region": "EMEA",
            "level": 3.0,
            "tags": ["a"],
            "nested": {"deep": {"value": "here"}},
            "ok": True,
        },
        policy_version="",
    )
    given = {
        "P": principal,
        "request": SimpleNamespace(principal=principal, names=("n",)),
        "V": Names(limit=10.0, allowed=True),
        "x": None,
        "headers": {"host": "example.com"},
        "ids": ("a", "b"),
        "now": Timestamp.parse("2024-05-06T07:08:09Z"),
    }
    return SimpleNamespace(**{**given, **changes})
