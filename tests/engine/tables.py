"""Decision tables: policies, questions and the answers expected, as YAML.

A file shows one rule of the policy language. ``actions`` of a check maps each action to ``allow`` or
``deny``, or to one of these for each evaluation mode; what else a check lists (``policies``, ``scopes``,
``rules`` by action; ``outputs``, ``derivedRoles``, ``effectivePolicies``, ``errors``) is compared as it
stands, and what it does not list is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from engine import AuxData, CheckInput, Decision, Effect, RuleTable, Settings, json_value
from engine.cel import Timestamp
from engine.compile import compile_policies
from engine.document import parse
from engine.load import load_document
from tests import questions as read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.policy import Policy

FOLDER = Path(__file__).resolve().parents[1] / "cases/engine"
MODES = ("lenient", "strict", "safe")
EFFECTS = {"allow": Effect.ALLOW, "deny": Effect.DENY}


@dataclass(frozen=True)
class Row:
    """One check of a table, in one evaluation mode."""

    table: dict[str, Any]
    check: dict[str, Any]
    mode: str

    @property
    def question(self) -> CheckInput:
        """What is asked."""
        principal = self.check.get("principal") or self.table["principal"]
        resource = self.check["resource"]
        aux_data = self.check.get("auxData") or self.table.get("auxData") or {}
        return CheckInput(
            read.principal(principal),
            read.resource(resource),
            tuple(self.check["actions"]),
            AuxData(json_value(aux_data.get("jwt", {})), json_value(aux_data.get("jwts", {}))),
        )

    @property
    def now(self) -> Timestamp | None:
        """When it is asked."""
        return Timestamp.parse(self.table["now"]) if "now" in self.table else None

    @property
    def effects(self) -> dict[str, Effect]:
        """The effects that are expected."""
        return {
            action: EFFECTS[word if isinstance(word, str) else word[self.mode]]
            for action, word in self.check["actions"].items()
        }

    def rule_table(self) -> RuleTable:
        """Compile the policies."""
        settings = Settings(
            evaluation=self.mode,  # type: ignore[arg-type]  # one of MODES
            globals=json_value(self.table.get("globals", {})),
            lenient_scope_search=self.table.get("lenientScopeSearch", False),
            runtime_action=self.table.get("runtimeAction", False),
        )
        return compile_policies(self.policies(), settings)

    def policies(self) -> list[Policy]:
        """Load the policies."""
        return [
            load_document(parse(yaml.safe_dump(policy), f"{index}.yaml"))
            for index, policy in enumerate(self.table["policies"])
        ]


def rows() -> Iterator[tuple[str, Row]]:
    """Yield each check of each table, with its name; in every mode where the mode makes a difference."""
    for path in sorted(FOLDER.glob("*.yaml")):
        table = yaml.safe_load(path.read_text())
        for index, check in enumerate(table["checks"]):
            for mode in MODES if has_modes(check) else MODES[:1]:
                yield f"{path.stem}-{index + 1}-{mode}", Row(table, check, mode)


def has_modes(check: dict[str, Any]) -> bool:
    return any(isinstance(word, dict) for word in check["actions"].values())


def by_action(decision: Decision, attribute: str, like: dict[str, Any]) -> dict[str, Any]:
    """Return an attribute of the decisions that *like* lists."""
    return {action: getattr(decision.actions[action], attribute) for action in like}


def outputs(decision: Decision) -> list[dict[str, Any]]:
    """Return outputs as tables write them."""
    return [
        {
            "src": out.src,
            "action": out.action,
            **({"error": out.error} if out.error else {"value": out.value}),
        }
        for out in decision.outputs
    ]
