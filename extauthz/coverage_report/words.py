"""How things are called that more than one form of the report names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.coverage import Item, Kind, Total

COLUMNS: Final[Mapping[str, tuple[Kind, ...]]] = {
    "rules": ("rule", "refusal"),
    "conditions": ("condition",),
    "roles": ("derived role",),
    "outputs": ("output",),
    "variables": ("variable",),
}
"""The columns of tables, and the kinds of items that each counts."""


def percent(total: Total) -> str:
    """Write a share, rounded down: only what is complete is 100 %."""
    return f"{int(total.percent * 10) / 10:g} %"


def named(item: Item, *, longest: int = 60) -> str:
    """Return an item with its kind: ``rule `rule-001```; a long expression is cut."""
    name = " ".join(item.name.split())
    return f"{item.kind} `{name if len(name) <= longest else name[: longest - 1] + '…'}`"
