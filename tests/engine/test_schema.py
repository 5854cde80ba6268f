"""Attribute schemas: what is wrong with attributes, where schemas come from, and when they count."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import (
    CheckInput,
    Effect,
    Engine,
    PolicyError,
    Principal,
    Resource,
    Settings,
    Snapshot,
    json_value,
)
from engine import policy as p
from engine.engine import Loader
from engine.schema import Schema, Schemas
from engine.schema.sources import MAX_BYTES, MissingSchemaError, SchemaError, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.rules import RuleTable, SchemaEnforcement

TABLE = yaml.safe_load((Path(__file__).parents[1] / "cases/schemas.yaml").read_text())

POLICY = b"""
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: doc
  version: default
  schemas: {resourceSchema: {ref: "cerbos:///doc.json", ignoreWhen: {actions: ["create", "view:*"]}}}
  rules: [{actions: ["*"], effect: EFFECT_ALLOW, roles: [user]}]
"""
SCOPED = b"""
apiVersion: api.cerbos.dev/v1
resourcePolicy: {resource: doc, version: default, scope: acme, rules: []}
"""


def absent(url: str) -> bytes:
    raise MissingSchemaError(url)


def schemas(**files: Any) -> Schemas:
    return Schemas(
        {f"_schemas/{name}.json": json.dumps(value).encode() for name, value in files.items()}, fetch=absent
    )


def usable(found: Schema | SchemaError) -> Schema:
    assert isinstance(found, Schema), found
    return found


@pytest.mark.parametrize("case", [pytest.param(case, id=case["why"]) for case in TABLE])
def test_errors(case: dict[str, Any]) -> None:
    """Paths and words are Cerbos's, who was asked for each of these cases."""
    schema = usable(schemas(it=case["schema"]).get("cerbos:///it.json"))
    assert sorted(leaf[:2] for leaf in schema.errors(json_value(case["attr"]))) == sorted(
        map(tuple, case["says"])
    )


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("cerbos:///no.json", "schema _schemas/no.json doesn't exist"),
        ("no.json", "schema no.json doesn't exist"),
        ("https://example.com/no.json", "schema https://example.com/no.json doesn't exist"),
        ("file:///no/such/file.json", "schema /no/such/file.json doesn't exist"),
        (
            "file:///dev/zero",
            "jsonschema file:///dev/zero compilation failed: read /dev/zero: not an ordinary file",
        ),
        (
            "ftp://example.com/x",
            "jsonschema ftp://example.com/x compilation failed: no Loader found for ftp://example.com/x",
        ),
        (
            "cerbos:///refers.json",
            "schema _schemas/no.json referenced by cerbos:///refers.json doesn't exist",
        ),
    ],
)
def test_schemas_that_are_not_there(ref: str, told: str) -> None:
    """What cannot be loaded is told in Cerbos's words; devices are not read."""
    assert str(schemas(refers={"$ref": "no.json"}).get(ref)) == told


@pytest.mark.parametrize(
    "schema", [{"type": "strng"}, {"pattern": "(?=a)"}, {"$ref": "#/$defs/no"}, 3, {"$schema": "x"}]
)
def test_documents_that_are_no_schemas(schema: Any) -> None:
    """A document is checked against its draft; look-around, which is not linear, is refused."""
    assert isinstance(schemas(it=schema).get("cerbos:///it.json"), SchemaError)


def test_hostile_attributes() -> None:
    """Deep nesting, lone surrogates and costly patterns end in an error, soon."""
    schema = {"properties": {"a": {"$ref": "#"}, "s": {"type": "string", "pattern": "^(a+)+$"}}}
    attached = schemas(it=schema).attached(p.Schemas(resource_schema=p.Schema("cerbos:///it.json")))
    assert attached is not None
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for attributes in (deep, {"s": "\ud800"}):
        errors = attached.errors({}, attributes, ("x",))
        assert [error.path for error in errors] == ["/"]
        assert "not JSON" in errors[0].message
    while deep:  # taken apart step by step: the interpreter would do it recursively
        deep = deep["a"]
    assert attached.errors({}, {"s": "a" * 50_000 + "b"}, ("x",))[0].path == "/s"


def test_a_flood_of_errors_is_cut_off() -> None:
    """A value that breaks a schema everywhere does not make an answer without end."""
    schema = usable(schemas(it={"additionalProperties": {"type": "string"}}).get("cerbos:///it.json"))
    assert 0 < len(schema.errors({str(number): 1.0 for number in range(10_000)})) <= 256


# -- in the engine -----------------------------------------------------------------------------------------


def table(enforcement: SchemaEnforcement = "reject", **schema_files: Any) -> RuleTable:
    files = {"doc.yaml": POLICY, "acme.yaml": SCOPED}
    found = schema_files or {"doc": {"required": ["owner"]}}
    raw = {f"_schemas/{name}.json": json.dumps(value).encode() for name, value in found.items()}
    return Loader(Settings(schema_enforcement=enforcement)).table(Snapshot(files, raw))


def ask(engine: Engine, *actions: str, scope: str = "") -> Any:
    return engine.check(CheckInput(Principal("ann", ("user",)), Resource("doc", "1", scope=scope), actions))


@pytest.mark.parametrize(
    ("enforcement", "effect", "errors"),
    [("none", Effect.ALLOW, 0), ("warn", Effect.ALLOW, 1), ("reject", Effect.DENY, 1)],
)
@pytest.mark.parametrize("scope", ["", "acme"])
def test_enforcement(enforcement: SchemaEnforcement, effect: Effect, errors: int, scope: str) -> None:
    """What breaks a schema is ignored, reported or refused; the root policy's schemas count in all scopes."""
    decision = ask(Engine(table(enforcement)), "edit", "view:x", scope=scope)
    assert {action.effect for action in decision.actions.values()} == {effect}
    assert len(decision.validation_errors) == errors
    key = "resource.doc.vdefault/acme" if scope else "resource.doc.vdefault"
    assert {action.policy for action in decision.actions.values()} == {key}


def test_ignored_actions() -> None:
    """A schema is left out only if it is to be ignored for all actions that are asked for."""
    engine = Engine(table())
    assert not ask(engine, "create", "view:public").validation_errors
    assert ask(engine, "create", "edit").validation_errors


def test_planning_knows_no_resource_yet() -> None:
    """For a plan, attributes of the resource may be missing; those of the principal may not."""
    asked = p.Schemas(p.Schema("cerbos:///it.json"), p.Schema("cerbos:///it.json"))
    attached = schemas(it={"required": ["a"], "properties": {"b": {"type": "string"}}}).attached(asked)
    assert attached is not None
    errors = attached.errors({}, {"b": 1.0}, ("x",), planning=True)
    assert [(error.source, error.path) for error in errors] == [
        ("SOURCE_PRINCIPAL", "/"),
        ("SOURCE_RESOURCE", "/b"),
    ]


def test_a_schema_that_cannot_be_used_is_a_fault_of_its_policy() -> None:
    """It is placed at the reference; without enforcement it does not matter."""
    with pytest.raises(PolicyError) as caught:
        table(other=True)
    assert str(caught.value) == (
        'doc.yaml:6:30: Failed to load resource schema "cerbos:///doc.json": '
        "schema _schemas/doc.json doesn't exist"
    )
    assert table("none", other=True).policies


def test_a_changed_schema_is_a_new_table() -> None:
    """A change of a schema file alone reloads; the same state is the same table."""
    loader = Loader(Settings(schema_enforcement="reject"))
    schema = {"_schemas/doc.json": b'{"required": ["owner"]}'}
    before = loader.table(Snapshot({"doc.yaml": POLICY}, schema))
    assert ask(Engine(before), "edit").actions["edit"].effect is Effect.DENY
    assert (
        loader.table(Snapshot({"doc.yaml": POLICY}, {"_schemas/doc.json": b'{"required": ["owner"]}'}))
        is before
    )
    after = loader.table(Snapshot({"doc.yaml": POLICY}, {"_schemas/doc.json": b"{}"}))
    assert ask(Engine(after), "edit").actions["edit"].effect is Effect.ALLOW


# -- the web -----------------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, headers, body = ANSWERS[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/good": (200, {}, b"{}"),
    "/moved": (302, {"location": "/good"}, b""),
    "/to-a-file": (302, {"location": "file:///etc/hostname"}, b""),
    "/circle": (302, {"location": "/circle"}, b""),
    "/large": (200, {}, b" " * (MAX_BYTES + 1)),
    "/broken": (500, {}, b""),
    "/absent": (404, {}, b""),
}


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Server) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_schemas_from_the_web(server: str) -> None:
    """A schema is fetched, also from where the server points to."""
    assert fetch(f"{server}/good") == b"{}"
    assert fetch(f"{server}/moved") == b"{}"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/to-a-file", "which is no web page"),
        ("/circle", "leads elsewhere more than 5 times"),
        ("/large", "is larger than"),
        ("/broken", "returned status code 500"),
        ("/absent", "/absent"),
    ],
)
def test_what_the_web_must_not_do(server: str, path: str, told: str) -> None:
    """Other schemes, endless redirects, large answers and errors are refused."""
    with pytest.raises(SchemaError, match=told):
        fetch(f"{server}{path}")
