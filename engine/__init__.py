"""The policy engine: Cerbos-format policies in, decisions out. It knows nothing of servers or gateways.

>>> from engine import CheckInput, Engine, Principal, Resource
>>> engine = Engine.from_directory("policies", watch=True)
>>> decision = engine.check(CheckInput(Principal("ann", ("user",)), Resource("expense", "7"), ("read",)))
>>> decision.actions["read"].effect
<Effect.ALLOW: 'EFFECT_ALLOW'>

:meth:`~engine.engine.Engine.check_many` decides several questions at one time,
:meth:`~engine.engine.Engine.explain` tells the way to a decision, :meth:`~engine.engine.Engine.plan` gives
a filter for the resources that are allowed, :meth:`~engine.engine.Engine.reload` brings policies up to date.
``docs/engine.md`` shows each of them, also from inside of web applications.

Names are imported from their modules on first use: who needs only the expression language loads only that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.compile import compile_policies
    from engine.document import Document, DocumentError, Fault, parse
    from engine.engine import Engine, Reload
    from engine.explain import Explanation
    from engine.load import PolicyError, load_policy
    from engine.model import (
        NO_MATCH,
        ActionDecision,
        AuxData,
        CheckInput,
        Decision,
        Effect,
        Evaluation,
        EvaluationError,
        JsonValue,
        Output,
        Principal,
        Resource,
        ValidationError,
        json_value,
    )
    from engine.plan import Plan, PlanInput
    from engine.rules import RuleTable, Settings
    from engine.storage import DRIVERS, Snapshot, Store, StoreError, open_store

_EXPORTS = {
    "engine.compile": ("compile_policies",),
    "engine.document": ("Document", "DocumentError", "Fault", "parse"),
    "engine.engine": ("Engine", "Reload"),
    "engine.explain": ("Explanation",),
    "engine.load": ("PolicyError", "load_policy"),
    "engine.model": (
        "NO_MATCH",
        "ActionDecision",
        "AuxData",
        "CheckInput",
        "Decision",
        "Effect",
        "Evaluation",
        "EvaluationError",
        "JsonValue",
        "Output",
        "Principal",
        "Resource",
        "ValidationError",
        "json_value",
    ),
    "engine.plan": ("Plan", "PlanInput"),
    "engine.rules": ("RuleTable", "Settings"),
    "engine.storage": ("DRIVERS", "Snapshot", "Store", "StoreError", "open_store"),
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "DRIVERS",
    "NO_MATCH",
    "ActionDecision",
    "AuxData",
    "CheckInput",
    "Decision",
    "Document",
    "DocumentError",
    "Effect",
    "Engine",
    "Evaluation",
    "EvaluationError",
    "Explanation",
    "Fault",
    "JsonValue",
    "Output",
    "Plan",
    "PlanInput",
    "PolicyError",
    "Principal",
    "Reload",
    "Resource",
    "RuleTable",
    "Settings",
    "Snapshot",
    "Store",
    "StoreError",
    "ValidationError",
    "compile_policies",
    "json_value",
    "load_policy",
    "open_store",
    "parse",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module `engine` has no attribute `{name}`")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value
