"""Compiling: what is kept from one state of a store to the next, and what belongs together."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import CheckInput, Effect, PolicyError, Principal, Resource, RuleTable, Settings, Snapshot
from engine.check import check
from engine.compile import Compiler
from engine.engine import Loader

if TYPE_CHECKING:
    from engine.document import Fault

HEAD = {"apiVersion": "api.cerbos.dev/v1"}


def text(**body: Any) -> bytes:
    return yaml.safe_dump({**HEAD, **body}).encode()


def resource(kind: str, expression: str = "true", **more: Any) -> bytes:
    rule = {
        "actions": ["read"],
        "effect": "EFFECT_ALLOW",
        "roles": ["user"],
        "condition": {"match": {"expr": expression}},
    }
    return text(resourcePolicy={"resource": kind, "version": "default", "rules": [rule], **more})


def faults(files: dict[str, bytes]) -> list[Fault]:
    with pytest.raises(PolicyError) as caught:
        Loader(Settings()).table(Snapshot(files))
    return list(caught.value.faults)


def allows(table: RuleTable, kind: str, **attr: Any) -> bool:
    asked = CheckInput(Principal("ann", ("user",)), Resource(kind, "1", attr), ("read",))
    return check(table, asked).actions["read"].effect is Effect.ALLOW


def test_only_what_changed_is_compiled_again() -> None:
    """After an edit, policies that do not depend on it are the same objects as before."""
    loader = Loader(Settings())
    files = {
        "shared.yaml": text(exportVariables={"name": "shared", "definitions": {"ok": "R.attr.x == 1.0"}}),
        "a.yaml": resource("a", "V.ok", variables={"import": ["shared"]}),
        "b.yaml": resource("b"),
    }
    first = loader.table(Snapshot(files))
    files = {
        **files,
        "shared.yaml": text(exportVariables={"name": "shared", "definitions": {"ok": "R.attr.x == 2.0"}}),
    }
    second = loader.table(Snapshot(files))
    assert allows(first, "a", x=1.0)
    assert not allows(second, "a", x=1.0)
    assert allows(second, "a", x=2.0)
    key = "resource.{}.vdefault".format
    assert first.policies[key("b")] is second.policies[key("b")]
    assert first.policies[key("a")] is not second.policies[key("a")]


def test_derived_roles_are_compiled_again_with_what_they_import() -> None:
    """A resource policy depends on what its derived roles import, too."""
    loader = Loader(Settings())
    rule = {"actions": ["read"], "effect": "EFFECT_ALLOW", "derivedRoles": ["owner"]}
    files = {
        "c.yaml": text(exportConstants={"name": "c", "definitions": {"who": "ann"}}),
        "d.yaml": text(
            derivedRoles={
                "name": "d",
                "constants": {"import": ["c"]},
                "definitions": [
                    {
                        "name": "owner",
                        "parentRoles": ["user"],
                        "condition": {"match": {"expr": "P.id == C.who"}},
                    }
                ],
            }
        ),
        "r.yaml": text(
            resourcePolicy={
                "resource": "r",
                "version": "default",
                "importDerivedRoles": ["d"],
                "rules": [rule],
            }
        ),
    }
    assert allows(loader.table(Snapshot(files)), "r")
    changed = {**files, "c.yaml": text(exportConstants={"name": "c", "definitions": {"who": "bob"}})}
    assert not allows(loader.table(Snapshot(changed)), "r")
    del changed["c.yaml"]
    with pytest.raises(PolicyError, match="Constants import 'c' cannot be found"):
        loader.table(Snapshot(changed))
    assert allows(loader.table(Snapshot(files)), "r")


def test_an_unchanged_store_keeps_its_table() -> None:
    """Reading the same state again gives the same table."""
    loader = Loader(Settings())
    files = {"a.yaml": resource("a")}
    assert loader.table(Snapshot(files)) is loader.table(Snapshot({"a.yaml": resource("a")}))


def test_faults_of_all_files_are_reported_together() -> None:
    """Text that cannot be read, policies that do not compile and duplicates come in one list, sorted."""
    found = faults(
        {
            "a.yaml": resource("a", "V.missing"),
            "b.yaml": b"{",
            "c.yaml": resource("c"),
            "d.yaml": resource("c"),
            "e.yaml": resource("e", "1 +"),
        }
    )
    assert [fault.file for fault in found] == ["a.yaml", "b.yaml", "d.yaml", "e.yaml"]
    assert "first defined in c.yaml" in found[2].message


def test_what_a_missing_set_was_to_define_is_not_reported_as_undefined() -> None:
    """Where a set is not there or cannot be read, its importers miss the set, not every name in it."""
    found = faults({"a.yaml": resource("a", "V.x", variables={"import": ["shared"]}), "shared.yaml": b"{"})
    assert [fault.kind for fault in found if fault.file == "a.yaml"] == ["import not found"]
    assert "shared.yaml" in {fault.file for fault in found}


def test_near_misses_are_suggested() -> None:
    """A name that is nearly right is suggested."""
    shared = text(exportVariables={"name": "shared", "definitions": {"owner": "true"}})
    found = faults(
        {"a.yaml": resource("a", "V.ownr", variables={"import": ["shard"]}), "shared.yaml": shared}
    )
    assert "did you mean `shared`?" in {fault.hint for fault in found}


def test_scopes_must_agree_on_permissions() -> None:
    """In one scope, policies cannot differ in what an allow means; unset means to override."""
    consent = "SCOPE_PERMISSIONS_REQUIRE_PARENTAL_CONSENT_FOR_ALLOWS"
    files = {
        "a.yaml": resource("a"),
        "b.yaml": resource("b"),
        "a1.yaml": resource("a", scope="x", scopePermissions=consent),
        "b1.yaml": resource("b", scope="x"),
    }
    (fault,) = faults(files)
    assert fault.file == "a1.yaml"
    assert fault.message == 'policies of the scope "x" have different scopePermissions'
    agreed = {**files, "b1.yaml": resource("b", scope="x", scopePermissions=consent)}
    Loader(Settings()).table(Snapshot(agreed))


def test_a_role_policy_can_stand_for_a_missing_ancestor() -> None:
    """Where a role policy covers the kind in a scope, the resource's policies need none there."""
    files = {
        "root.yaml": resource("doc"),
        "leaf.yaml": resource("doc", scope="a.b"),
        "role.yaml": text(
            rolePolicy={
                "role": "clerk",
                "scope": "a",
                "rules": [{"resource": "d*", "allowActions": ["read"]}],
            }
        ),
    }
    Loader(Settings()).table(Snapshot(files))
    del files["role.yaml"]
    assert [fault.message for fault in faults(files)] == ['Missing ancestor policy "resource.doc.vdefault/a"']


def test_old_tables_can_be_thrown_away() -> None:
    """What a state of the store compiled to is gone when the next one has taken its place."""
    loader = Loader(Settings())
    seen: list[weakref.ref[Any]] = []
    for number in range(20):
        table = loader.table(Snapshot({"a.yaml": resource("a", f"R.attr.x == {number}.0")}))
        row = table.policies["resource.a.vdefault"].rules[0].rows[0][1]
        seen += [weakref.ref(table), weakref.ref(row.condition)]
    del row
    del table
    gc.collect()
    assert sum(reference() is not None for reference in seen) <= 2


def test_compiling_is_repeatable() -> None:
    """Rows stand in the order of the file, whatever the order of the files."""
    files = {f"{kind}.yaml": resource(kind) for kind in "abc"}
    one = Loader(Settings()).table(Snapshot(files))
    other = Loader(Settings()).table(Snapshot(dict(reversed(files.items()))))
    assert list(one.policies) == list(other.policies)


def test_no_policies_are_a_table_too() -> None:
    """An empty store denies everything."""
    assert not allows(Compiler(Settings()).compile([]), "a")
