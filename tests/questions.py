"""Principals and resources as Cerbos's JSON has them, read into the engine's values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import Principal, Resource, json_value

if TYPE_CHECKING:
    from collections.abc import Mapping


def principal(given: Mapping[str, Any]) -> Principal:
    return Principal(
        given["id"],
        tuple(given["roles"]),
        json_value(given.get("attr", {})),
        given.get("policyVersion", ""),
        given.get("scope", ""),
    )


def resource(given: Mapping[str, Any]) -> Resource:
    """Read a resource; one that is to be planned for has no id."""
    return Resource(
        given["kind"],
        given.get("id", ""),
        json_value(given.get("attr", {})),
        given.get("policyVersion", ""),
        given.get("scope", ""),
    )
