"""Cerbos's policy-test corpora: suites and fixtures to results, and results to JUnit's XML."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import Engine
from engine.verify import Config, Selection, junit, load_suites, run
from tests.conformance.suite import corpus, parameters, txtar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.rules import RuleTable
    from engine.verify import TestResults


def cases(name: str) -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus(name).glob("*.yaml")):
        golden, archive = path.with_name(f"{path.name}.golden"), path.with_name(f"{path.name}.input")
        yield path.stem, (yaml.safe_load(path.read_text()), txtar(archive.read_text()), golden.read_text())


@functools.cache
def table(store: str) -> RuleTable:
    with Engine.from_directory(corpus(store)) as engine:
        return engine.table


def results(store: str, case: dict[str, Any], archive: dict[str, str]) -> TestResults:
    files = {name: text.encode() for name, text in archive.items()}
    excluded = case.get("config", {})
    selection = Selection(
        excluded_resource_policies=frozenset(excluded.get("excludedResourcePolicyFqns", ())),
        excluded_principal_policies=frozenset(excluded.get("excludedPrincipalPolicyFqns", ())),
    )
    return run(table(store), load_suites(files), Config(selection))


@pytest.mark.parametrize("case", parameters("cerbos/verify/cases", cases("cerbos/verify/cases")))
def test_verify(case: tuple[dict[str, Any], dict[str, str], str]) -> None:
    """Suites have the results that Cerbos finds, errors in the same words."""
    told, archive, golden = case
    found = results("cerbos/store", told, archive).to_json()
    assert comparable(found) == comparable(json.loads(golden))


@pytest.mark.parametrize("case", parameters("cerbos/verify_junit/cases", cases("cerbos/verify_junit/cases")))
def test_junit(case: tuple[dict[str, Any], dict[str, str], str]) -> None:
    """Results become the XML that Cerbos writes, byte for byte."""
    told, archive, golden = case
    found = results("cerbos/verify_junit/store", told, archive)
    assert junit(found, verbose=True) == golden


def comparable(value: Any) -> Any:
    """Return results without what is left open: the order of outputs; blanks that do not break are blanks."""
    if isinstance(value, dict):
        fields = {key: comparable(item) for key, item in value.items()}
        if "outputs" in fields:
            fields["outputs"] = sorted(fields["outputs"], key=lambda output: output["src"])
        return fields
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return value.replace("\u00a0", " ") if isinstance(value, str) else value
