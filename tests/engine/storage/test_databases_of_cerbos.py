"""The real Cerbos and we in one database: each reads what the other has written, in the same rows."""

from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from engine import CheckInput, Effect, Engine, Principal, Resource, policy_messages
from engine.storage import PolicyFilter, open_store
from engine.storage.sql.tables import UPDATED, module_id
from tests.differential.oracle import cerbos
from tests.engine.storage.contract import allows, closed, eventually
from tests.engine.storage.database_places import POLL_INTERVAL, rule_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from engine.storage import StoredPolicy
    from tests.differential.oracle import Oracle

CREDENTIALS = base64.b64encode(b"cerbos:cerbosAdmin").decode()
"""What Cerbos has when nothing else is configured."""

SCHEMA = b'{"type": "object",  "properties": {"owner": {"type": "string"}}}'

DOCUMENTS: list[dict[str, Any]] = [
    {
        "resourcePolicy": {
            "resource": "leave_request",
            "version": "default",
            "importDerivedRoles": ["common"],
            "schemas": {"resourceSchema": {"ref": "cerbos:///deep/leave.json"}},
            "rules": [
                {"actions": ["view"], "roles": ["user"], "effect": "EFFECT_ALLOW"},
                {"actions": ["edit"], "derivedRoles": ["owner"], "effect": "EFFECT_ALLOW"},
            ],
        }
    },
    {
        "resourcePolicy": {
            "resource": "leave_request",
            "version": "default",
            "scope": "acme",
            "constants": {"import": ["limits"]},
            "rules": [
                {
                    "actions": ["view"],
                    "roles": ["user"],
                    "effect": "EFFECT_DENY",
                    "condition": {"match": {"expr": "R.attr.days > C.most"}},
                }
            ],
        }
    },
    {
        "description": "roles for all",
        "derivedRoles": {
            "name": "common",
            "variables": {"import": ["vars"]},
            "definitions": [
                {
                    "name": "owner",
                    "parentRoles": ["user"],
                    "condition": {"match": {"expr": "V.is_owner"}},
                }
            ],
        },
    },
    {"exportVariables": {"name": "vars", "definitions": {"is_owner": "R.attr.owner == P.id"}}},
    {"exportConstants": {"name": "limits", "definitions": {"most": 5, "list": [1, "x", None]}}},
    {
        "rolePolicy": {
            "role": "guest",
            "parentRoles": ["user"],
            "rules": [{"resource": "leave_request", "allowActions": ["view"]}],
        }
    },
    {
        "principalPolicy": {
            "principal": "eve@example.com",
            "version": "default",
            "rules": [
                {"resource": "leave_request", "actions": [{"action": "view", "effect": "EFFECT_DENY"}]}
            ],
        }
    },
    {
        "resourcePolicy": {
            "resource": "spare-kind",
            "version": "v1",
            "rules": [{"actions": ["*"], "roles": ["user"], "effect": "EFFECT_ALLOW"}],
        }
    },
]
DOCUMENTS = [{"apiVersion": "api.cerbos.dev/v1", **document} for document in DOCUMENTS]
SPARE = "resource.spare_kind.vv1"

QUESTIONS = [
    CheckInput(
        Principal(principal, (role,), {}),
        Resource("leave_request", "1", {"owner": "ann", "days": days}, scope=scope),
        ("view", "edit"),
    )
    for principal in ("ann", "eve@example.com")
    for role in ("user", "guest", "other")
    for scope in ("", "acme")
    for days in (3, 9)
]


@dataclass(frozen=True)
class Place:
    """A database, as we and as Cerbos are told of it."""

    driver: str
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]

    def open(self) -> Any:
        """Open it with our store."""
        return open_store(self.driver, {**self.ours, "updatePollInterval": POLL_INTERVAL})


@pytest.fixture(params=["sqlite3", "postgres", "mysql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """Two databases of one kind."""
    first, second = (_place(request, tmp_path, number) for number in (1, 2))
    return first, second


def _place(request: pytest.FixtureRequest, tmp_path: Path, number: int) -> Place:
    if request.param == "sqlite3":
        settings = {"dsn": f"file:{tmp_path}/policies{number}.sqlite?mode=rwc&_fk=true"}
    elif request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        settings = {"url": server.url(server.database("postgres"))}
    else:
        server = request.getfixturevalue("mysql_server")
        settings = {"dsn": server.dsn(server.database())}
    return Place(request.param, settings, settings)


class Admin:
    """Cerbos's Admin API."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make a request; return the JSON of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.oracle.http_port, timeout=60)
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {CREDENTIALS}"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, content
        return json.loads(content)

    def put_all(self) -> None:
        """Put the policies and the schema of this test."""
        definition = base64.b64encode(SCHEMA).decode()
        self.call("POST", "/admin/schema", {"schemas": [{"id": "deep/leave.json", "definition": definition}]})
        self.call("POST", "/admin/policy", {"policies": DOCUMENTS})

    def disable(self, key: str) -> None:
        """Disable a policy."""
        self.call("PUT", f"/admin/policy/disable?id={quote(key, safe='')}", {"id": [key]})

    def delete(self, key: str) -> None:
        """Delete a policy."""
        self.call("POST", f"/admin/policy/delete?id={quote(key, safe='')}", {"id": [key]})

    def keys(self) -> list[str]:
        """Return the ids of all policies, disabled ones too."""
        found: list[str] = self.call("GET", "/admin/policies?includeDisabled=true")["policyIds"]
        return found

    def get(self, key: str) -> Any:
        """Return a policy, without what Cerbos adds when it shows one."""
        (found,) = self.call("GET", f"/admin/policy?id={quote(key, safe='')}")["policies"]
        return {name: value for name, value in found.items() if name != "metadata"}

    def reload(self) -> None:
        """Let Cerbos read the database."""
        self.call("GET", "/admin/store/reload?wait=true")


@pytest.fixture
def oracle(places: tuple[Place, Place], tmp_path: Path) -> Iterator[Admin]:
    """Run a Cerbos on the first of the databases."""
    place = places[0]
    settings = {
        "server": {"adminAPI": {"enabled": True}},
        "storage": {"driver": place.driver, place.driver: dict(place.theirs)},
    }
    with cerbos(tmp_path, settings) as running:
        yield Admin(running)


def shown(policy: StoredPolicy) -> dict[str, Any]:
    """Return a policy as :meth:`Admin.get` does."""
    said = policy_messages.to_json(policy_messages.decode(policy.definition))
    return {name: value for name, value in said.items() if name != "metadata"}


def put_all(store: Any) -> None:
    """Put the policies and the schema of this test."""
    store.put_schemas({"deep/leave.json": SCHEMA})
    store.put_policies(map(policy_messages.encode, map(policy_messages.from_json, DOCUMENTS)))


def answers(engine: Engine) -> list[dict[str, bool]]:
    """Return which actions we allow, question by question."""
    return [
        {action: each.effect is Effect.ALLOW for action, each in engine.check(question).actions.items()}
        for question in QUESTIONS
    ]


def their_answers(oracle: Oracle) -> list[dict[str, bool]]:
    """Return which actions Cerbos allows."""
    found = []
    for question in QUESTIONS:
        principal, resource = question.principal, question.resource
        who = {"id": principal.id, "roles": list(principal.roles)}
        what = {
            "kind": resource.kind,
            "id": resource.id,
            "attr": dict(resource.attr),
            "scope": resource.scope,
        }
        body = {"principal": who, "resources": [{"actions": list(question.actions), "resource": what}]}
        (result,) = oracle.check(body)["results"]
        found.append({action: effect == "EFFECT_ALLOW" for action, effect in result["actions"].items()})
    return found


def rows(store: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the tables hold, without times."""
    with store.reading() as connection:
        policies = connection.exec_driver_sql(
            "SELECT id, kind, name, version, scope, description, disabled, definition FROM policy"
        ).all()
        revisions = connection.exec_driver_sql(
            "SELECT action, id, kind, name, version, scope, description, disabled FROM policy_revision"
        ).all()
        links = {
            table: sorted(map(tuple, connection.exec_driver_sql(f"SELECT * FROM {table}").all()))  # noqa: S608 - ours
            for table in ("policy_dependency", "policy_ancestor")
        }
        schemas = connection.exec_driver_sql("SELECT id FROM attr_schema_defs").all()
    return {
        "policy": sorted((*row[:-1], _timeless(row[-1])) for row in policies),
        "policy_revision": sorted(map(tuple, revisions)),
        "attr_schema_defs": sorted(map(tuple, schemas)),
        **links,
    }


def _timeless(definition: bytes) -> str:
    policy = policy_messages.decode(bytes(definition))
    assert policy.metadata.source_attributes.attributes[UPDATED].string_value.endswith("Z")
    policy.metadata.source_attributes.attributes[UPDATED].string_value = ""
    return repr(policy)


def test_we_write_what_cerbos_writes(places: tuple[Place, Place], oracle: Admin) -> None:
    """The rows of all tables are the same, whoever makes the same changes."""
    oracle.put_all()
    oracle.disable(SPARE)
    with closed(places[0].open()) as theirs, closed(places[1].open()) as ours:
        put_all(ours)
        ours.disable_policies([SPARE])
        assert rows(ours) == rows(theirs)
        assert oracle.keys() == ours.list_policies(PolicyFilter(include_disabled=True))
        assert dict(ours.read().files).keys() == dict(theirs.read().files).keys()


def test_we_read_what_cerbos_writes(places: tuple[Place, Place], oracle: Admin) -> None:
    """We decide as Cerbos does by what it has written, show the same policies, and notice what it changes."""
    oracle.put_all()
    with closed(places[0].open()) as store, Engine.from_store(store, watch=True) as engine:
        assert len(store.read().files) == len(DOCUMENTS)
        loaded = engine.status.policies
        assert answers(engine) == their_answers(oracle.oracle)
        assert True in {action for answer in answers(engine) for action in answer.values()}
        keys = oracle.keys()
        got = store.get_policies(keys)
        assert [each.id for each in got] == keys
        for each in got:
            assert shown(each) == oracle.get(each.id)
        oracle.disable(SPARE)
        eventually(lambda: engine.status.policies == loaded - 1)
        oracle.delete("principal.eve_example.com.vdefault")
        eventually(lambda: engine.status.policies == loaded - 2)
        assert answers(engine) == their_answers(oracle.oracle)


def test_cerbos_reads_what_we_write(places: tuple[Place, Place], oracle: Admin) -> None:
    """Cerbos decides as we do by what we have written, and shows the same policies."""
    with closed(places[0].open()) as store:
        put_all(store)
        oracle.reload()
        with Engine.from_store(store) as engine:
            assert answers(engine) == their_answers(oracle.oracle)
            assert oracle.keys() == store.list_policies()
            for each in store.get_policies(oracle.keys()):
                said = policy_messages.to_json(policy_messages.decode(each.definition))
                assert {name: value for name, value in said.items() if name != "metadata"} == oracle.get(
                    each.id
                )
            store.put_policies([rule_policy("added")])
            store.disable_policies([SPARE])
            store.delete_policies(["principal.eve_example.com.vdefault"])
            oracle.reload()
            assert engine.reload().ok
            assert answers(engine) == their_answers(oracle.oracle)
            assert allows(engine, kind="added")
            assert oracle.get("resource.added.vdefault")["resourcePolicy"]["resource"] == "added"


def test_ids_are_those_of_cerbos() -> None:
    """Ids are Cerbos's hashes, as signed integers (these are from a database that Cerbos made)."""
    assert module_id("resource.leave_request.vdefault") == -1185401166816183648
    assert module_id("role.admin.vdefault/acme") == -3804101133702232860
    assert module_id("principal.bob.vdefault/a") == 5337313110426874475
