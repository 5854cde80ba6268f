"""Cerbos's schema corpus: what is wrong with attributes, by the schemas that a policy attaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine.model import json_value
from engine.policy import IgnoreWhen, Schema
from engine.policy import Schemas as Asked
from engine.schema import Schemas
from engine.schema.sources import MissingSchemaError
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = "cerbos/schema"


def cases() -> Iterator[tuple[str, Any]]:
    for path in sorted((corpus(CORPUS) / "test_cases").glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


def files() -> dict[str, bytes]:
    root = corpus(CORPUS) / "fs"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def absent(url: str) -> bytes:
    raise MissingSchemaError(url)


def asked(refs: dict[str, Any]) -> Asked:
    found = {
        name: Schema(
            ref["ref"], IgnoreWhen(tuple(ref["ignoreWhen"]["actions"])) if "ignoreWhen" in ref else None
        )
        for name, ref in refs.items()
    }
    return Asked(found.get("principalSchema"), found.get("resourceSchema"))


@pytest.mark.parametrize("case", parameters(CORPUS, cases()))
def test_schema(case: dict[str, Any]) -> None:
    """What breaks a schema is reported with Cerbos's paths, words and sources, and nothing else is."""
    attached = Schemas(files(), fetch=absent).attached(asked(case["schemaRefs"]))
    planning = "planResourcesInput" in case
    question = case["planResourcesInput" if planning else "checkInput"]
    actions = tuple(question.get("actions", ())) or (question.get("action", ""),)
    assert attached is not None
    found = attached.errors(
        json_value(question["principal"]["attr"]),
        json_value(question["resource"]["attr"]),
        actions,
        planning=planning,
    )
    wanted = [
        (error.get("path", ""), error["message"], error["source"])
        for error in case.get("wantValidationErrors", [])
    ]
    assert sorted(map(tuple, found)) == sorted(wanted)
