"""Coverage as JSON, for machines. The form is documented in ``docs/coverage.md``; it only grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engine.document import json_path

if TYPE_CHECKING:
    from engine.coverage import Coverage, Item, PolicyCoverage, Total

VERSION: Final = 1


def coverage_json(coverage: Coverage) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "version": VERSION,
        "questions": coverage.questions,
        "total": _total(coverage.total),
        "policies": [_policy(policy) for policy in coverage.policies],
    }


def _policy(policy: PolicyCoverage) -> dict[str, Any]:
    return {
        "file": policy.file,
        "policy": policy.key,
        "kind": policy.kind,
        "total": _total(policy.total),
        "totals": {kind: _total(total) for kind, total in policy.totals().items()},
        "items": [_item(item) for item in policy.items],
    }


def _item(item: Item) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "name": item.name,
        "rule": item.rule,
        "path": json_path(item.path),
        "line": item.line,
        "column": item.column,
        "lastLine": item.last_line,
        "covered": item.covered and item.is_used,
        "used": item.is_used,
        "marks": {mark.name: mark.times for mark in item.marks},
        "gap": item.gap,
        "notes": list(item.notes),
    }


def _total(total: Total) -> dict[str, Any]:
    return {"covered": total.covered, "marks": total.marks, "percent": int(total.percent * 100) / 100}
