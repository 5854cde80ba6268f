"""Cerbos's compile corpus: what is wrong with policies, all at once, with kinds, words and places."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import PolicyError, load_policy, names
from engine import policy as p
from engine.compile import Compiler
from engine.document import PARSE_ERROR, VALIDATION_ERROR, json_path
from engine.library import MISSING_POLICY
from engine.rules import CompiledPolicy, DerivedRole, Parameters, RuleTable, Settings
from tests.conformance.suite import corpus, parameters, txtar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.document import Fault
    from engine.policy import Policy

CORPUS = "cerbos/compile"


def cases() -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus(CORPUS).glob("*.yaml")):
        archive = txtar(path.with_name(f"{path.name}.input").read_text())
        yield path.stem, (yaml.safe_load(path.read_text()), archive)


@cache
def schemas() -> dict[str, bytes]:
    root = corpus("cerbos/schema") / "fs"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def policies(archive: dict[str, str]) -> list[Policy]:
    found = [load_policy(text, file, spanning=False) for file, text in archive.items()]
    return [policy for policy in found if policy is not None]


def unit(main: Policy, all_policies: list[Policy]) -> set[str]:
    """Return the files that Cerbos compiles together: a policy, its ancestors, everything they import."""
    files: set[str] = set()
    waiting = [main]
    while waiting:
        policy = waiting.pop()
        if policy.file not in files:
            files.add(policy.file)
            wanted_keys = {*policy.imports, *ancestor_keys(policy.body)}
            waiting += [other for other in all_policies if other.key in wanted_keys]
    return files


def ancestor_keys(body: p.Body) -> list[str]:
    if isinstance(body, p.ResourcePolicy):
        return [
            names.resource_key(body.resource, body.version, scope) for scope in names.ancestors(body.scope)
        ]
    if isinstance(body, p.PrincipalPolicy):
        return [
            names.principal_key(body.principal, body.version, scope) for scope in names.ancestors(body.scope)
        ]
    return []


def described(fault: Fault) -> tuple[Any, ...]:
    # Cerbos places a block mapping at its first colon, and we at its first key: only the line is compared.
    column = (
        0 if fault.path and isinstance(fault.path[-1], int) and fault.path[-2] == "rules" else fault.column
    )
    path = json_path(fault.path) if fault.line else ""
    return fault.file, fault.kind, fault.message, fault.line, column, path


def wanted(error: dict[str, Any]) -> tuple[Any, ...]:
    position = error.get("position", {"line": 0, "column": 0, "path": ""})
    path = position["path"]
    column = 0 if path.endswith("]") and "rules" in path.rpartition(".")[2] else position["column"]
    return error["file"], error["error"], error["description"].strip(), position["line"], column, path


@pytest.mark.parametrize("case", parameters(CORPUS, cases()))
def test_compile(case: tuple[dict[str, Any], dict[str, str]]) -> None:
    """Every fault is found, and none that is not there; where there is none, the policies compile."""
    expected, archive = case
    loaded = policies(archive)
    main = next(policy for policy in loaded if policy.file == expected["mainDef"])
    found: list[Fault] = []
    table = None
    try:
        table = Compiler(Settings(schema_enforcement="reject")).compile(loaded, schemas())
    except PolicyError as error:
        found = [fault for fault in error.faults if fault.kind not in (PARSE_ERROR, VALIDATION_ERROR)]
    files = unit(main, loaded)
    concerning = [
        fault
        for fault in found
        if fault.file in files and (fault.kind != MISSING_POLICY or fault.file == main.file)
    ]
    errors = expected.get("wantErrors", [])
    assert sorted(map(described, concerning)) == sorted(map(wanted, errors))
    if table is not None and "wantVariables" in expected:
        check_variables(table, main, expected["wantVariables"])


def check_variables(table: RuleTable, main: Policy, expected: list[dict[str, Any]]) -> None:
    body = main.body
    assert isinstance(body, p.ResourcePolicy)
    for want in expected:
        suffix = f"/{want['scope']}" if want["scope"] else ""
        policy = table.policies[f"resource.{body.resource}.v{body.version}{suffix}"]
        own, roles = used(policy)
        assert named(own) == (set(want["constants"]), set(want["variables"]))
        assert {role.name: named([role.parameters]) for role in roles} == {
            role["name"]: (set(role["constants"]), set(role["variables"])) for role in want["derivedRoles"]
        }


def used(policy: CompiledPolicy) -> tuple[list[Parameters], tuple[DerivedRole, ...]]:
    return [row.parameters for rule in policy.rules for _, row in rule.rows], policy.derived_roles


def named(parameters: list[Parameters]) -> tuple[set[str], set[str]]:
    constants = {name for one in parameters for name in one.constants}
    return constants, {name for one in parameters for name, _ in one.variables}
