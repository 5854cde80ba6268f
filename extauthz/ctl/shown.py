"""How policies and schemas are shown: tables, JSON, YAML."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from engine.policy_messages import coordinates, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from extauthz.pdp.admin_messages import InspectedAttribute, InspectedPolicy, Policy

FORMATS: Final = ("json", "yaml", "prettyjson")


@dataclass(frozen=True, slots=True)
class Row:
    """What a list tells of a policy."""

    id: str
    name: str
    version: str
    scope: str
    kind: str
    disabled: bool

    def cells(self) -> tuple[str, ...]:
        """Return the cells of its line; sets have neither version nor scope."""
        return (self.id, self.name, self.version, self.scope)[: 4 if self.kind in VERSIONED else 2]


VERSIONED: Final = frozenset(("RESOURCE", "PRINCIPAL", "ROLE"))
HEADINGS: Final = ("POLICY ID", "NAME", "VERSION", "SCOPE")


def row(policy: Policy) -> Row:
    """Read what a list tells of *policy*."""
    message = decode(policy.definition)
    found = coordinates(message)
    identifier = message.metadata.store_identifier or found.key
    return Row(identifier, found.name, found.version, found.scope, found.kind, message.disabled)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Write lines of columns; without *headings* none for them."""
    lines = [*([tuple(headings)] if headings else []), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)] if lines else []
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(cells).rstrip()


def written(document: Any, form: str) -> str:
    """Write a document as ``json`` (one line), ``prettyjson`` or ``yaml``."""
    if form == "yaml":
        return f"---\n{as_yaml(document)}".rstrip("\n")
    return json.dumps(document, ensure_ascii=False, indent=2 if form == "prettyjson" else None)


def as_yaml(document: Any) -> str:
    """Write YAML as people do: blocks, keys sorted, no references."""
    text: str = yaml.dump(document, Dumper=_Dumper, allow_unicode=True, sort_keys=True, width=120)
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # the signature is PyYAML's
        return True


def inspected(results: Mapping[str, InspectedPolicy], *, headings: bool) -> Iterator[str]:
    """Write what policies refer to."""
    for found in sorted(results.values(), key=lambda each: each.policy_id):
        parts = (
            ("POLICY ID", found.policy_id),
            ("ACTIONS", ",".join(found.actions)),
            ("DERIVED ROLES", ",".join(each.name for each in found.derived_roles)),
            ("ATTRIBUTES", ",".join(map(_attribute, found.attributes))),
            ("CONSTANTS", ",".join(each.name for each in found.constants)),
            ("VARIABLES", ",".join(each.name for each in found.variables)),
        )
        for heading, value in parts:
            if value:
                yield f"{heading.ljust(13)}: {value}" if headings else value
        yield "-" * 80


def _attribute(attribute: InspectedAttribute) -> str:
    prefix = {"KIND_PRINCIPAL_ATTRIBUTE": "P.attr.", "KIND_RESOURCE_ATTRIBUTE": "R.attr."}
    return f"{prefix.get(attribute.kind, '')}{attribute.name}"
