"""The admin API as its clients see it, over HTTP and gRPC, on real stores."""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import yaml
from cerbos.policy.v1 import policy_pb2
from cerbos.request.v1 import request_pb2
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauthz.admin.calls import MAX_IDS
from extauthz.admin.credentials import FREE_GUESSES
from extauthz.pdp.admin_methods import METHODS
from tests.extauthz.admin.serving import (
    BASIC,
    USERNAME,
    Served,
    disk,
    owned,
    password_hash,
    resource,
    roles,
    served,
    sqlite,
)
from tests.extauthz.pdp.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METADATA = (("authorization", BASIC),)
DENIED = {"code": 12, "message": "Configured store is not mutable"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    """Serve an empty database."""
    with served(sqlite(tmp_path)) as service:
        yield service


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """Serve a directory that is not watched."""
    folder = tmp_path_factory.mktemp("policies")
    for path, document in {"album.yaml": owned(), "deep/roles.yaml": roles()}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(document), encoding="utf-8")
    disabled = {**resource("gone"), "disabled": True}
    (folder / "gone.json").write_text(json.dumps(disabled), encoding="utf-8")
    (folder / "_schemas").mkdir()
    (folder / "_schemas" / "album.json").write_text('{"type": "object"}', encoding="utf-8")
    with served(disk(folder)) as service:
        yield service, folder


def listed(api: Served, query: str = "") -> list[str]:
    status, answer = api.ask("GET", f"/admin/policies{query}")
    assert status == 200
    found: list[str] = answer.get("policyIds", [])
    return found


# --- who may ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
def test_nobody_passes_without_the_password(tree: tuple[Served, Path], method: Any) -> None:
    """No call is answered, over HTTP by any of its verbs or over gRPC, to who has not the password."""
    api, _ = tree
    for verb, path in ((method.verb, method.path), *method.also):
        response = httpx.request(
            verb, f"{api.service.served.http}{path}", content=b"no json", trust_env=False
        )
        assert (response.status_code, response.json()["code"]) == (401, 16)
        assert response.headers["www-authenticate"].startswith("Basic ")
    with grpc.insecure_channel(api.service.served.grpc) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"/{method.service}/{method.name}"
        )
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff", timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_other_calls_need_no_password(tree: tuple[Served, Path]) -> None:
    """Decisions and health are asked as before."""
    api, _ = tree
    for path in ("/_cerbos/health", "/readyz", "/api/server_info", "/schema/swagger.json"):
        assert httpx.get(f"{api.service.served.http}{path}", trust_env=False).status_code == 200


def test_it_is_served_only_when_enabled(tmp_path: Path) -> None:
    """Without the key in the configuration there is no admin API, and the answer says so."""
    text = json.dumps({"storage": disk(tmp_path)})
    with running(text) as service:
        for path in ("/admin/policies", "/admin/auditlog/list/KIND_ACCESS"):
            response = httpx.get(
                f"{service.served.http}{path}", headers={"authorization": BASIC}, trust_env=False
            )
            told = "Admin service is disabled by the configuration"
            assert (response.status_code, response.json()["message"]) == (501, told)


def test_it_stands_beside_envoys_calls_alone(tmp_path: Path) -> None:
    """A gateway's configuration, without the API that decides for services, can have the admin API."""
    api = {"enabled": True, "adminCredentials": {"username": USERNAME, "passwordHash": password_hash()}}
    server = {"httpListenAddr": "127.0.0.1:0", "grpcListenAddr": "127.0.0.1:0", "adminAPI": api}
    text = json.dumps(
        {"server": server, "storage": disk(tmp_path), "extAuthz": {"routes": [{"GET /healthz": "allow"}]}}
    )
    with running(text) as service:
        headers = {"authorization": BASIC}
        base = service.served.http
        assert httpx.get(f"{base}/admin/policies", headers=headers, trust_env=False).json() == {}
        assert httpx.post(f"{base}/api/check/resources", json={}, trust_env=False).status_code == 404
        document = httpx.get(f"{base}/schema/swagger.json", trust_env=False).json()
        assert "/admin/policy" in document["paths"]
        assert "/api/check/resources" not in document["paths"]


def test_guesses_count_over_both_ports(tmp_path: Path) -> None:
    """Whoever has guessed over gRPC waits over HTTP too; who has passed just now does not wait."""
    wrong = (("authorization", "Basic " + base64.b64encode(b"ada:guess").decode()),)
    with served(disk(tmp_path)) as api:
        assert listed(api) == []
        with api.stub() as stub:
            for _ in range(FREE_GUESSES):
                with pytest.raises(grpc.RpcError) as refused:
                    stub.ListPolicies(request_pb2.ListPoliciesRequest(), metadata=wrong, timeout=30)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        base = api.service.served.http.replace("localhost", "127.0.0.1")
        answer = httpx.get(f"{base}/admin/policies", headers=dict(wrong), trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (429, 8)
        assert listed(api) == []


# --- a database -------------------------------------------------------------------------------------------


def test_a_policy_is_in_force_at_once(api: Served) -> None:
    """What was put decides the very next request; what was disabled or deleted does not."""
    assert api.decides() == "EFFECT_DENY"
    assert api.put(resource()) == (200, {"success": {}})
    assert api.decides() == "EFFECT_ALLOW"
    assert api.ask("PUT", "/admin/policy/disable?id=resource.album.vdefault") == (
        200,
        {"disabledPolicies": 1},
    )
    assert api.decides() == "EFFECT_DENY"
    assert api.ask("POST", "/admin/policy/enable?id=resource.album.vdefault") == (200, {"enabledPolicies": 1})
    assert api.decides() == "EFFECT_ALLOW"
    assert api.put(resource(effect="EFFECT_DENY")) == (200, {"success": {}})
    assert api.decides() == "EFFECT_DENY"
    assert api.ask("POST", "/admin/policy/delete?id=resource.album.vdefault") == (200, {"deletedPolicies": 1})
    assert listed(api, "?includeDisabled=true") == []


def test_policies_are_listed_and_shown(api: Served) -> None:
    """Lists are sorted and filtered; a policy is shown as it was put, with what the store knows of it."""
    put = [resource(), resource(scope="acme"), owned("photo"), roles(), {**resource("off"), "disabled": True}]
    assert api.put(*put)[0] == 200
    everything = [
        "derived_roles.roles",
        "resource.album.vdefault",
        "resource.album.vdefault/acme",
        "resource.photo.vdefault",
    ]
    assert listed(api) == everything
    assert listed(api, "?includeDisabled=true") == sorted([*everything, "resource.off.vdefault"])
    assert listed(api, "?nameRegexp=^al&scopeRegexp=^acme$") == ["resource.album.vdefault/acme"]
    assert listed(api, "?policyId=derived_roles.roles&policyId=nothing") == ["derived_roles.roles"]
    status, answer = api.ask(
        "GET", "/admin/policy?id=resource.off.vdefault&id=nothing&id=derived_roles.roles"
    )
    assert status == 200
    off, shown = answer["policies"]
    assert shown["derivedRoles"] == roles()["derivedRoles"]
    assert shown["metadata"]["storeIdentifier"] == "derived_roles.roles"
    assert shown["metadata"]["sourceAttributes"]["attributes"]["driver"] == "sqlite3"
    assert off["disabled"] is True


def test_what_is_wrong_is_not_stored(api: Served) -> None:
    """A policy that is wrong by itself is refused with all its faults, and nothing of the call is stored."""
    wrong = resource("wrong", rules=[{"actions": [], "effect": "EFFECT_MAYBE"}])
    status, answer = api.put(
        resource(), resource("wrong", rules=[{"actions": ["a"], "effect": "EFFECT_ALLOW"}])
    )
    assert (status, answer["code"]) == (400, 3)
    assert answer["message"].startswith("Invalid policy: policies[1]: ")
    assert api.put(wrong)[0] == 400
    assert listed(api) == []
    assert api.decides() == "EFFECT_DENY"


def test_what_does_not_compile_is_not_stored(api: Served) -> None:
    """A policy that does not compile beside the others is refused, and those in force stay."""
    bad = resource(rules=[{"actions": ["view"], "effect": "EFFECT_ALLOW", "roles": ["user"],
                           "condition": {"match": {"expr": "R.attr.x ==="}}}])  # fmt: skip
    assert api.put(resource())[0] == 200
    status, answer = api.put(bad)
    assert status == 400
    assert "the policies cannot be put: resource.album.vdefault: Invalid expression" in answer["message"]
    assert api.decides() == "EFFECT_ALLOW"
    status, answer = api.put(owned("photo"))
    assert status == 400
    assert answer["message"].endswith("cannot be found (put what they need first, or in the same call)")
    status, answer = api.put(resource(scope="acme.hr"))
    assert 'Missing ancestor policy "resource.album.vdefault/acme"' in answer["message"]
    assert listed(api) == ["resource.album.vdefault"]
    assert api.put(owned("photo"), roles())[0] == 200  # both at once


def test_what_was_refused_is_forgotten(api: Served) -> None:
    """A policy that was refused is not there for anything that comes later."""
    assert api.put(roles())[0] == 200
    refused = owned()
    refused["resourcePolicy"]["rules"][0]["derivedRoles"] = ["nobody"]
    assert api.put(refused)[0] == 400
    assert api.ask("GET", "/admin/policies/inspect?policyId=resource.album.vdefault") == (200, {})
    delete = "/admin/policy/delete?id=derived_roles.roles"
    assert api.ask("POST", delete) == (200, {"deletedPolicies": 1})


def test_twice_the_same_is_refused(api: Served) -> None:
    """One call cannot say two things about one policy."""
    status, answer = api.put(resource(), resource(effect="EFFECT_DENY"))
    assert status == 400
    assert answer["message"].endswith("more than one definition of `resource.album.vdefault`")


def test_what_others_need_stays(api: Served) -> None:
    """Neither imports nor scopes above others are taken away, unless with all that need them."""
    assert api.put(roles(), owned(), resource("photo"), resource("photo", scope="acme"))[0] == 200
    status, answer = api.ask("POST", "/admin/policy/delete?id=derived_roles.roles&id=resource.photo.vdefault")
    assert (status, answer["code"]) == (400, 3)
    assert answer["details"] == [
        {
            "@type": "type.googleapis.com/cerbos.response.v1.DeletePolicyErrorDetails",
            "errors": {
                "derived_roles.roles": {
                    "requiredByOtherPolicies": {"dependents": ["resource.album.vdefault"]}
                },
                "resource.photo.vdefault": {
                    "breaksScopeChain": {"descendants": ["resource.photo.vdefault/acme"]}
                },
            },
        }
    ]
    status, answer = api.ask("DELETE", "/admin/policy?id=derived_roles.roles")
    assert (status, answer["details"][0]["@type"].rpartition(".")[2]) == (400, "DisablePolicyErrorDetails")
    assert len(listed(api)) == 4
    both = "/admin/policy/delete?id=derived_roles.roles&id=resource.album.vdefault"
    assert api.ask("POST", both) == (200, {"deletedPolicies": 2})


def test_what_needs_something_gone_is_not_enabled(api: Served) -> None:
    """A disabled policy stays so while what it needs is not there."""
    assert api.put(roles(), owned())[0] == 200
    assert api.ask("POST", "/admin/policy/disable?id=resource.album.vdefault")[0] == 200
    assert api.ask("POST", "/admin/policy/delete?id=derived_roles.roles")[0] == 200
    status, answer = api.ask("POST", "/admin/policy/enable?id=resource.album.vdefault")
    assert status == 400
    assert "the policies cannot be enabled" in answer["message"]
    assert listed(api) == []


def test_policies_may_wait_where_that_is_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With `acceptIncomplete` a policy can be put before what it needs; until then the others decide."""
    with served(sqlite(tmp_path), acceptIncomplete=True) as api:
        assert api.put(resource("photo"))[0] == 200
        assert api.put(owned())[0] == 200
        assert "not in force until the store is complete" in caplog.text
        assert api.decides(owner="ann") == "EFFECT_DENY"
        assert api.decides("photo") == "EFFECT_ALLOW"
        assert api.put(roles())[0] == 200
        assert api.decides(owner="ann") == "EFFECT_ALLOW"
        bad = resource("x", rules=[{"actions": ["a"], "effect": "EFFECT_ALLOW", "roles": ["u"],
                                    "condition": {"match": {"expr": "nothing"}}}])  # fmt: skip
        assert api.put(bad)[0] == 400


def test_a_broken_store_can_be_mended(tmp_path: Path) -> None:
    """Where somebody else has broken the store, a change may mend it, and may not add to it."""
    with served(sqlite(tmp_path)) as api:
        assert api.put(roles(), owned(), resource("photo"))[0] == 200
        with sqlite3.connect(tmp_path / "policies.db") as database:
            database.execute("DELETE FROM policy WHERE kind = 'DERIVED_ROLES'")
        database.close()
        status, answer = api.ask("GET", "/admin/store/reload?wait=true")
        assert (status, answer["code"]) == (400, 9)
        assert "cannot be found" in answer["message"]
        assert api.decides("photo") == "EFFECT_ALLOW"
        assert api.put(owned("another"))[0] == 400
        assert api.put(resource("third"))[0] == 200
        assert api.put(roles())[0] == 200
        assert api.decides("third") == "EFFECT_ALLOW"
        assert api.ask("GET", "/admin/store/reload?wait=true") == (200, {})


def test_what_others_have_changed_counts(tmp_path: Path) -> None:
    """A change is tried out with what the store holds now, also when nobody has told us of it yet."""
    with served(sqlite(tmp_path)) as api:
        assert api.put(roles(), owned(), resource("photo"))[0] == 200
        with sqlite3.connect(tmp_path / "policies.db") as database:
            database.execute("DELETE FROM policy WHERE kind = 'DERIVED_ROLES' OR name = 'album'")
        database.close()
        status, answer = api.put(owned("another"))
        assert (status, answer["code"]) == (400, 3)
        assert listed(api) == ["resource.photo.vdefault"]


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    """When the store cannot be reached, the answer says so and no more, and decisions go on."""
    with served(sqlite(tmp_path)) as api:
        assert api.put(resource())[0] == 200
        (tmp_path / "policies.db").write_bytes(b"this is no database, and never was" * 100)
        for verb, path in (("GET", "/admin/policies"), ("POST", "/admin/policy/delete?id=x")):
            status, answer = api.ask(verb, path)
            assert (status, answer) == (503, {"code": 14, "message": "the store cannot be reached"})
        assert api.put(resource("photo"))[0] == 503
        assert api.decides() == "EFFECT_ALLOW"


def test_schemas(api: Served) -> None:
    """Schemas are put, listed, shown and deleted; what is no JSON, or a path out of the store, is refused."""
    definition = base64.b64encode(b'{"type": "object"}').decode()
    schemas = {"schemas": [{"id": "album.json", "definition": definition},
                           {"id": "common/a.json", "definition": definition.rstrip("=")}]}  # fmt: skip
    assert api.ask("POST", "/admin/schema", schemas) == (200, {})
    assert api.ask("GET", "/admin/schemas") == (200, {"schemaIds": ["album.json", "common/a.json"]})
    assert api.ask("GET", "/admin/schema?id=album.json") == (
        200,
        {"schemas": [{"id": "album.json", "definition": definition}]},
    )
    assert api.ask("GET", "/admin/schema?id=nothing") == (
        404,
        {"code": 5, "message": "could not get the schema with id nothing"},
    )
    for id_, content in (("x.json", b"this is no JSON"), ("../x.json", b'{"type": "object"}')):
        bad = {"schemas": [{"id": id_, "definition": base64.b64encode(content).decode()}]}
        assert api.ask("PUT", "/admin/schema", bad)[0] == 400
    twice = {"schemas": [schemas["schemas"][0]] * 2}
    assert api.ask("PUT", "/admin/schema", twice)[0] == 400
    assert api.ask("DELETE", "/admin/schema?id=album.json&id=nothing") == (200, {"deletedSchemas": 1})


def test_a_schema_that_is_needed_stays(tmp_path: Path) -> None:
    """Where schemas are enforced, a policy needs the one that it names, and that one is not deleted."""
    policy = resource(schemas={"resourceSchema": {"ref": "cerbos:///album.json"}})
    definition = base64.b64encode(b'{"type": "object"}').decode()
    with served(sqlite(tmp_path), blocks={"schema": {"enforcement": "reject"}}) as api:
        assert api.put(policy)[0] == 400
        body = {"schemas": [{"id": "album.json", "definition": definition}]}
        assert api.ask("POST", "/admin/schema", body) == (200, {})
        assert api.put(policy)[0] == 200
        status, answer = api.ask("DELETE", "/admin/schema?id=album.json")
        assert status == 400
        assert "the schemas cannot be deleted" in answer["message"]


def test_revisions_are_purged(api: Served) -> None:
    """The store forgets what policies were, but for the newest."""
    for effect in ("EFFECT_ALLOW", "EFFECT_DENY", "EFFECT_ALLOW"):
        assert api.put(resource(effect=effect))[0] == 200
    assert api.ask("DELETE", "/admin/store/revisions?keepLast=1") == (200, {"affectedRows": 2})
    assert api.ask("DELETE", "/admin/store/revisions") == (200, {"affectedRows": 1})
    assert api.decides() == "EFFECT_ALLOW"


def test_changes_are_in_the_log(api: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Who changed which policies is told; what they say, and the password, are not."""
    caplog.set_level(logging.INFO)
    assert api.put(resource())[0] == 200
    assert api.ask("POST", "/admin/policy/delete?id=resource.album.vdefault")[0] == 200
    told = [
        (record.getMessage(), vars(record)["changed"], vars(record)["peer"])
        for record in caplog.records
        if record.name == "extauthz.admin.calls"
    ]
    assert told == [
        ("admin: AddOrUpdatePolicy", ["resource.album.vdefault"], "127.0.0.1"),
        ("admin: DeletePolicy", ["resource.album.vdefault"], "127.0.0.1"),
    ]


def test_inspection(api: Served) -> None:
    """It tells what policies refer to, also when they are disabled, and only those that were asked for."""
    assert api.put(roles(), owned(), {**owned("off"), "disabled": True})[0] == 200
    _, answer = api.ask("GET", "/admin/policies/inspect?policyId=resource.off.vdefault&includeDisabled=1")
    assert answer == {
        "results": {
            "resource.off.vdefault": {
                "actions": ["view"],
                "policyId": "resource.off.vdefault",
                "derivedRoles": [{"name": "owner", "kind": "KIND_IMPORTED", "source": "derived_roles.roles"}],
            }
        }
    }
    _, answer = api.ask("GET", "/admin/policies/inspect")
    assert sorted(answer["results"]) == ["derived_roles.roles", "resource.album.vdefault"]


# --- a directory ------------------------------------------------------------------------------------------


def test_files_are_shown_by_their_paths(tree: tuple[Served, Path]) -> None:
    """In a store of files a policy is known by the path of its file."""
    api, _ = tree
    assert listed(api) == ["album.yaml", "deep/roles.yaml"]
    assert listed(api, "?includeDisabled=true") == ["album.yaml", "deep/roles.yaml", "gone.json"]
    _, answer = api.ask("GET", "/admin/policy?id=deep/roles.yaml&id=../secret")
    (shown,) = answer["policies"]
    assert shown["derivedRoles"] == roles()["derivedRoles"]
    assert shown["metadata"] == {
        "sourceFile": "deep/roles.yaml",
        "storeIdentifer": "deep/roles.yaml",
        "storeIdentifier": "deep/roles.yaml",
        "sourceAttributes": {"attributes": {"driver": "disk", "source": "deep/roles.yaml"}},
    }
    _, answer = api.ask("GET", "/admin/policies/inspect?policyId=album.yaml")
    assert answer["results"]["resource.album.vdefault"]["policyId"] == "album.yaml"
    assert api.ask("GET", "/admin/schemas") == (200, {"schemaIds": ["album.json"]})
    assert api.ask("GET", "/admin/schema?id=../album.yaml")[0] == 404


def test_files_are_not_written(tree: tuple[Served, Path]) -> None:
    """Whatever would change a store of files is refused in Cerbos's words."""
    api, _ = tree
    definition = base64.b64encode(b'{"type": "object"}').decode()
    assert api.put(resource()) == (501, DENIED)
    for verb, path in (
        ("POST", "/admin/policy/delete?id=album.yaml"),
        ("POST", "/admin/policy/disable?id=album.yaml"),
        ("PUT", "/admin/policy/enable?id=album.yaml"),
        ("DELETE", "/admin/schema?id=album.json"),
        ("DELETE", "/admin/store/revisions?keepLast=1"),
    ):
        assert api.ask(verb, path) == (501, DENIED)
    body = {"schemas": [{"id": "x.json", "definition": definition}]}
    assert api.ask("POST", "/admin/schema", body) == (501, DENIED)
    told = {"code": 12, "message": "Store does not support regexp filters"}
    assert api.ask("GET", "/admin/policies?nameRegexp=a") == (501, told)
    assert api.ask("GET", "/admin/policies/inspect?scopeRegexp=a") == (501, told)


def test_a_directory_is_read_again(tree: tuple[Served, Path]) -> None:
    """A store that does not watch its files reads them when it is told to; what is broken stays out."""
    api, folder = tree
    file = folder / "new.yaml"
    try:
        file.write_text(yaml.safe_dump(resource("new")), encoding="utf-8")
        assert api.decides("new") == "EFFECT_DENY"
        assert api.ask("GET", "/admin/store/reload?wait=true") == (200, {})
        assert api.decides("new") == "EFFECT_ALLOW"
        file.write_text("apiVersion: what", encoding="utf-8")
        status, answer = api.ask("GET", "/admin/store/reload?wait=true")
        assert (status, answer["code"]) == (400, 9)
        assert "new.yaml" in answer["message"]
        assert api.decides("new") == "EFFECT_ALLOW"
    finally:
        file.unlink()
        assert api.ask("GET", "/admin/store/reload?wait=true") == (200, {})


def test_there_is_no_audit_log(tree: tuple[Served, Path]) -> None:
    """The log that there is not is refused as Cerbos refuses it, over both ports."""
    api, _ = tree
    told = {"code": 12, "message": "Audit logs are not enabled"}
    assert api.ask("GET", "/admin/auditlog/list/KIND_DECISION?tail=3") == (501, told)
    request = request_pb2.ListAuditLogEntriesRequest(kind="KIND_ACCESS", tail=1)
    with api.stub() as stub, pytest.raises(grpc.RpcError) as refused:
        list(stub.ListAuditLogEntries(request, metadata=METADATA, timeout=30))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert refused.value.details() == "Audit logs are not enabled"


# --- gRPC -------------------------------------------------------------------------------------------------


def test_the_official_client_over_grpc(api: Served) -> None:
    """Cerbos's own generated client puts, lists, gets, and is told why something has to stay."""
    policies = [json_format.ParseDict(each, policy_pb2.Policy()) for each in (roles(), owned())]
    with api.stub() as stub:
        put = request_pb2.AddOrUpdatePolicyRequest(policies=policies)
        assert stub.AddOrUpdatePolicy(put, metadata=METADATA, timeout=30).HasField("success")
        found = stub.ListPolicies(request_pb2.ListPoliciesRequest(), metadata=METADATA, timeout=30)
        assert list(found.policy_ids) == ["derived_roles.roles", "resource.album.vdefault"]
        asked = request_pb2.GetPolicyRequest(id=["resource.album.vdefault"])
        (shown,) = stub.GetPolicy(asked, metadata=METADATA, timeout=30).policies
        assert shown.resource_policy == policies[1].resource_policy
        delete = request_pb2.DeletePolicyRequest(id=["derived_roles.roles"])
        with pytest.raises(grpc.RpcError) as refused:
            stub.DeletePolicy(delete, metadata=METADATA, timeout=30)
        trailing = {each.key: each.value for each in refused.value.trailing_metadata()}
        assert b"cerbos.response.v1.DeletePolicyErrorDetails" in trailing["grpc-status-details-bin"]
        inspected = stub.InspectPolicies(
            request_pb2.InspectPoliciesRequest(), metadata=METADATA, timeout=30
        ).results
        assert list(inspected["resource.album.vdefault"].actions) == ["view"]


# --- whatever is sent -------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
VERSION = {"apiVersion": "api.cerbos.dev/v1"}
ODD = st.sampled_from(
    [
        {"policies": [{}]},
        {"policies": [{**VERSION, "resourcePolicy": {}}]},
        {"policies": [{**VERSION, "resourcePolicy": {"resource": "x" * 5000}}]},
        {"policies": [{**VERSION, "exportConstants": {"name": "a", "definitions": {"b": 1e999}}}]},
        {"policies": [resource("\ud800")]},
        {"policies": [{**resource(), "derivedRoles": {"name": "both"}}]},
        {"policies": [{**resource(), "metadata": {"hash": "many"}}]},
        {"schemas": [{"id": "x", "definition": "###"}]},
    ]
)  # fmt: skip
IDS = st.lists(st.text(max_size=12) | st.just("resource.album.vdefault"), max_size=30)


NAMES = st.sampled_from(["nameRegexp", "scope_regexp", "keepLast", "wait", "policyId", "includeDisabled"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(METHODS), JSON | ODD, IDS, st.dictionaries(NAMES, st.text(max_size=8)))
def test_no_request_is_a_failure_of_ours(
    api: Served, method: Any, body: Any, ids: list[str], query: dict[str, str]
) -> None:
    """Whatever an authenticated client sends, it gets an answer or a refusal that is its own fault."""
    parameters = [("id", each) for each in ids] + list(query.items())
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    try:
        url = httpx.URL(method.path, params=parameters)
    except UnicodeEncodeError:
        return
    status, _ = api.ask(method.verb, str(url), content if not method.in_query else None)
    assert status in {200, 400, 404, 413}


def test_requests_are_bounded(api: Served) -> None:
    """A call names a bounded number of policies, and its body is of bounded length."""
    many = "&".join(f"id=x{number}" for number in range(MAX_IDS + 1))
    with api.stub() as stub:
        asked = request_pb2.GetPolicyRequest(id=[f"x{number}" for number in range(MAX_IDS + 1)])
        with pytest.raises(grpc.RpcError) as refused:
            stub.GetPolicy(asked, metadata=METADATA, timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert api.ask("GET", f"/admin/policy?{many}")[0] == 400
    assert api.ask("POST", f"/admin/policy/delete?{'&'.join(f'id={n}' for n in range(21))}")[0] == 400
    assert api.put(*[resource(f"a{number}") for number in range(101)])[0] == 400
    assert api.ask("POST", "/admin/policy", b" " * (5 << 20))[0] == 413
