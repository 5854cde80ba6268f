"""Cerbos's parser corpus: YAML and JSON text to policies, faults with their places."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from engine.document import DocumentError, json_path, parse_all
from engine.load import PolicyError, load_document
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.document import Fault


def cases() -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus("cerbos/parser").glob("*.json")):
        text = path.with_name(f"{path.name}.input").read_bytes()
        yield path.stem, (json.loads(path.read_text()), text)


def read(text: bytes) -> tuple[list[dict[str, Any]], list[Fault]]:
    """Read every document that is not empty; returns the well-formed ones and the faults of the others."""
    policies: list[dict[str, Any]] = []
    faults: list[Fault] = []
    try:
        documents = parse_all(text, "policy.yaml")
    except DocumentError as error:
        return [], list(error.faults)
    for document in documents:
        if document.value is None:
            continue
        value = document.value
        try:
            load_document(document)
            policies.append(value)
        except PolicyError as error:
            faults.extend(error.faults)
    return policies, faults


def wanted(errors: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted(
        (
            error["position"]["line"],
            error["position"]["column"],
            error["position"].get("path", "$"),
            error["message"],
        )
        for error in errors
    )


@pytest.mark.parametrize("case", parameters("cerbos/parser", cases()))
def test_parser(case: tuple[dict[str, Any], bytes]) -> None:
    """Documents are read, and faults found, as in Cerbos: same messages, same places, same paths."""
    expected, text = case
    policies, faults = read(text)
    found = [(fault.line, fault.column, json_path(fault.path), fault.message) for fault in faults]
    assert sorted(found) == wanted(expected.get("wantErrors", []))
    good = [want["message"] for want in expected.get("want", []) if not want.get("errors")]
    assert len(policies) == len(good)
    for policy, message in zip(policies, good, strict=True):
        assert as_protobuf(policy) == as_protobuf(message)


def as_protobuf(value: Any, *, free: bool = False) -> Any:
    """Write plain values as protobuf's JSON would: scalars of string fields as text, no empty fields."""
    if isinstance(value, dict):
        items = {
            key: as_protobuf(item, free=free or key in ("local", "definitions", "variables"))
            for key, item in value.items()
        }
        return {key: item for key, item in items.items() if item is not None and key != "$schema"}
    if isinstance(value, list):
        return [as_protobuf(item, free=free) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and not free else value
