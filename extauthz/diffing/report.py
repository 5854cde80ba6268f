"""What differs, as a table for a terminal, as Markdown for a pull request, as JSON for a program."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from extauthz.compiling.colours import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.comparison import Case, Change, Comparison, Said
    from engine.comparison.cases import Origin

MOST_SHOWN = 100
"""Changes in Markdown: a comment on a pull request has an end (65,536 characters on GitHub)."""

ORIGINS: Mapping[Origin, str] = {"log": "decision log", "test": "test suites", "generated": "generated"}


def asked(comparison: Comparison) -> str:
    """Say how many questions were asked, and where they come from."""
    counts = comparison.asked
    if not counts:
        return "no questions asked"
    total = sum(counts.values())
    parts = ", ".join(f"{counts[origin]:,} {word}" for origin, word in ORIGINS.items() if counts.get(origin))
    return f"{total:,} question{'s' if total != 1 else ''} asked ({parts})"


def summary(comparison: Comparison) -> str:
    """Say in one line what came of it."""
    changes = comparison.changes
    if not changes:
        return f"no decision changes; {asked(comparison)}"
    grants = sum(change.allows_more for change in changes)
    outputs = sum(bool(change.source) for change in changes)
    kinds = {"allowed now": grants, "denied now": len(changes) - grants - outputs, "other outputs": outputs}
    told = ", ".join(f"{count} {word}" for word, count in kinds.items() if count)
    return f"{len(changes)} change{'s' if len(changes) != 1 else ''}: {told}; {asked(comparison)}"


def _what(change: Change) -> str:
    if change.source:
        return "outputs"
    return "allowed now" if change.allows_more else "denied now"


def _seen(change: Change) -> str:
    return ", ".join(
        f"{change.counts[origin]:,} {word}" for origin, word in ORIGINS.items() if change.counts.get(origin)
    )


def _was_and_is(change: Change) -> tuple[str, str]:
    """Say where the decision came from and comes from, or what the output said and says."""
    if change.source:
        return _json(change.outputs[0]), _json(change.outputs[1])
    return _because(change.old), _because(change.new)


def _action(change: Change) -> str:
    return f"{change.action}, {change.source}" if change.source else change.action


def _because(said: Said) -> str:
    return f"{said.policy}#{said.rule}" if said.rule else said.policy


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _example(case: Case) -> str:
    """Write a question in one line."""
    principal, resource = case.input.principal, case.input.resource
    who = f"{principal.id} [{', '.join(principal.roles)}]"
    parts = [f"{who} {_attributes(principal.attr)}", f"{resource.id} {_attributes(resource.attr)}"]
    if case.input.aux_data.jwt:
        parts.append(f"claims {_attributes(case.input.aux_data.jwt)}")
    return " on ".join(part.strip() for part in parts[:2]) + "".join(f", {part}" for part in parts[2:])


def _attributes(values: Mapping[str, Any]) -> str:
    return _json(values) if values else ""


# --- for a terminal ---------------------------------------------------------------------------------------

_STYLES = {"allowed now": "yellow", "denied now": "red", "outputs": "cyan"}


def table(comparison: Comparison) -> Table:
    """Make the table of changes."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "what", "resource", "action", "was", "is", "seen in"):
        made.add_column(heading, overflow="fold")
    for number, change in enumerate(comparison.changes, 1):
        what = _what(change)
        cells = (change.kind, _action(change), *_was_and_is(change), _seen(change))
        made.add_row(str(number), Text(what, _STYLES[what]), *(Text(printable(cell)) for cell in cells))
    return made


def examples(comparison: Comparison) -> str:
    """Write one question for each change, as the table numbers them."""
    return "\n".join(
        printable(f"{number}. {change.example.name}: {_example(change.example)}")
        for number, change in enumerate(comparison.changes, 1)
    )


# --- for a pull request -----------------------------------------------------------------------------------


def markdown(comparison: Comparison, old: str, new: str) -> str:
    """Write a comment for a pull request."""
    lines = [f"### Decisions: `{_code(old)}` → `{_code(new)}`", "", f"**{summary(comparison)}**", ""]
    changes = comparison.changes[:MOST_SHOWN]
    if changes:
        lines += ["| | resource | action | was | is | seen in |", "|---|---|---|---|---|---|"]
        lines += [_markdown_row(change) for change in changes]
        lines += ["", "<details><summary>One question for each</summary>", ""]
        lines += [_markdown_example(number, change) for number, change in enumerate(changes, 1)]
        lines += ["", "</details>", ""]
    if len(comparison.changes) > len(changes):
        lines += [f"… and {len(comparison.changes) - len(changes)} more.", ""]
    return "\n".join(lines)


_MARKS = {"allowed now": "🟡 allowed now", "denied now": "🔴 denied now", "outputs": "🔵 outputs"}


def _markdown_row(change: Change) -> str:
    cells = (change.kind, _action(change), *_was_and_is(change))
    written = " | ".join(f"`{_code(cell)}`" for cell in cells)
    return f"| {_MARKS[_what(change)]} | {written} | {_seen(change)} |"


def _markdown_example(number: int, change: Change) -> str:
    return f"{number}. `{_code(change.example.name)}`: `{_code(_example(change.example))}`"


def _code(text: str) -> str:
    """Keep a text inside of its backticks and its cell: policies and logs must not write Markdown.

    After a backslash of the text ours would be the second of two, which escape each other and not the bar.
    """
    kept = printable(text).replace("`", "'").replace("\\|", "\\ |")
    return kept.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


# --- for a program ----------------------------------------------------------------------------------------


def document(comparison: Comparison, old: str, new: str) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "old": old,
        "new": new,
        "asked": dict(comparison.asked),
        "changes": [_change(change) for change in comparison.changes],
    }


def _change(change: Change) -> dict[str, Any]:
    old, new = change.outputs
    output = {"output": {"src": change.source, "old": old, "new": new}} if change.source else {}
    return {
        "kind": change.kind,
        "action": change.action,
        "old": _said(change.old),
        "new": _said(change.new),
        **output,
        "seen": dict(change.counts),
        "example": {
            "origin": change.example.origin,
            "name": change.example.name,
            **_asked_json(change.example),
        },
    }


def _said(said: Said) -> dict[str, str]:
    return {"effect": said.effect.value, "policy": said.policy, "rule": said.rule}


def _asked_json(case: Case) -> dict[str, Any]:
    """Write the question as an input of Cerbos's decision log."""
    principal, resource, claims = case.input.principal, case.input.resource, case.input.aux_data.jwt
    question: dict[str, Any] = {
        "principal": {
            "id": principal.id,
            "roles": list(principal.roles),
            "attr": dict(principal.attr),
            "policyVersion": principal.policy_version,
            "scope": principal.scope,
        },
        "resource": {
            "kind": resource.kind,
            "id": resource.id,
            "attr": dict(resource.attr),
            "policyVersion": resource.policy_version,
            "scope": resource.scope,
        },
        "actions": list(case.input.actions),
    }
    return {"input": question | ({"auxData": {"jwt": dict(claims)}} if claims else {}), "now": str(case.now)}
