"""The OpenAPI document: it says of the calls and messages what the codecs know, and its examples work."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from engine import Engine
from extauthz.pdp import Pdp, admin_methods, openapi, protojson
from extauthz.pdp.admin_messages import POLICY
from extauthz.pdp.admin_operations import ADMIN_OPERATIONS
from extauthz.pdp.auxdata import AuxDataReader
from extauthz.pdp.field_words import EVERYWHERE, HERE
from extauthz.pdp.method import Caller
from extauthz.pdp.operations import EXPLAIN_OPERATION, OPERATIONS
from extauthz.pdp.rest import HEALTH_PATH, Rest
from extauthz.pdp.schema import message_type
from extauthz.pdp.services import FILES, METHODS, answers
from tests.extauthz.pdp.authzen_cases import POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

TYPES = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
}


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(openapi.document())
    return loaded


@cache
def explaining() -> dict[str, Any]:
    """Return the document where decisions are explained too."""
    loaded: dict[str, Any] = json.loads(openapi.document(explain=True))
    return loaded


@cache
def whole() -> dict[str, Any]:
    """Return the document where everything is served."""
    loaded: dict[str, Any] = json.loads(openapi.document(explain=True, admin=True))
    return loaded


def rest(*, explain: bool = False) -> Rest:
    pdp = Pdp(Engine.from_directory(POLICIES), AuxDataReader({}), lambda: "call")
    return Rest(answers(pdp, explain=explain), health=lambda _: True, version="1")


def test_every_call_is_described() -> None:
    """The document has the calls that are served, neither more nor fewer."""
    described = {(path, verb.upper()) for path, verbs in document()["paths"].items() for verb in verbs}
    assert described == {(method.path, method.verb) for method in METHODS} | {(HEALTH_PATH, "GET")}
    assert {each.method for each in OPERATIONS} == set(METHODS)


@pytest.mark.parametrize("explain", [False, True])
def test_what_is_described_is_served(explain: bool) -> None:
    """The HTTP port has a route for each path of the document, and no other."""
    served = {(path, verb) for path, verbs in rest(explain=explain)._routes.items() for verb in verbs}
    paths = (explaining() if explain else document())["paths"]
    assert served == {(path, verb.upper()) for path, verbs in paths.items() for verb in verbs}


def test_explanations_are_an_addition() -> None:
    """The document says of explanations nothing when they are off, and else only adds to what it says."""
    assert "xplain" not in openapi.document().decode()
    for part in ("paths", "definitions"):
        added = explaining()[part].keys() - document()[part].keys()
        assert all("xplain" in name for name in added)
        assert {name: explaining()[part][name] for name in document()[part]} == document()[part]
    assert "x-grpc-method" not in explaining()["paths"]["/api/explain/resources"]["post"]
    assert len(explaining()["tags"]) == len(document()["tags"]) + 1


def test_the_admin_api_is_an_addition() -> None:
    """The document tells of the admin API where it is served, alone or beside decisions."""
    admin = json.loads(openapi.document(pdp=False, admin=True))
    calls = {(path, verb.upper()) for path, verbs in admin["paths"].items() for verb in verbs}
    assert calls == {(each.path, each.verb) for each in admin_methods.METHODS} | {(HEALTH_PATH, "GET")}
    assert {each.method for each in ADMIN_OPERATIONS} == set(admin_methods.METHODS)
    assert whole()["paths"].keys() == explaining()["paths"].keys() | admin["paths"].keys()
    assert "securityDefinitions" not in document()
    guarded = {
        path: verbs
        for path, verbs in whole()["paths"].items()
        if any("security" in x for x in verbs.values())
    }
    assert guarded == {path: verbs for path, verbs in admin["paths"].items() if path != HEALTH_PATH}
    (names,) = list(admin["paths"]["/admin/policy/delete"]["post"]["parameters"])
    assert (names["name"], names["in"], names["collectionFormat"]) == ("id", "query", "multi")


@pytest.mark.parametrize("said", [document(), explaining(), whole()], ids=["plain", "explaining", "whole"])
def test_every_reference_leads_somewhere(said: dict[str, Any]) -> None:
    """No reference dangles, and no definition is left without one."""
    assert set(references(said)) == {f"#/definitions/{name}" for name in said["definitions"]}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


OURS = sorted(whole()["definitions"].keys() - openapi.FOREIGN.keys() - {POLICY})


@pytest.mark.parametrize("name", OURS)
def test_definitions_are_the_descriptors(name: str) -> None:
    """Each definition has the fields of the message's descriptor, by their JSON names, with their types."""
    message = FILES.pool.FindMessageTypeByName(name)
    properties = whole()["definitions"][name]["properties"]
    assert {key: kind(schema) for key, schema in properties.items()} == {
        field.json_name: described(field) for field in message.fields
    }


def kind(schema: dict[str, Any]) -> dict[str, Any]:
    """Keep of a schema what a descriptor knows; where a text may be empty, its choices are no enumeration."""
    kept: dict[str, Any] = {key: schema[key] for key in ("type", "format", "$ref") if key in schema}
    if "" not in schema.get("enum", [""]):
        kept["enum"] = schema["enum"]
    kept.update({key: kind(schema[key]) for key in ("items", "additionalProperties") if key in schema})
    return kept


def described(field: FieldDescriptor) -> dict[str, Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": single(entry.fields_by_name["value"])}
    one = single(field)
    return {"type": "array", "items": one} if field.is_repeated else one


def single(field: FieldDescriptor) -> dict[str, Any]:
    message: Descriptor | None = field.message_type
    if message is not None:
        return (
            {}
            if message.full_name == "google.protobuf.Value"
            else {"$ref": f"#/definitions/{message.full_name}"}
        )
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return TYPES[field.type]


def test_every_sentence_has_its_field() -> None:
    """Nothing is said about fields that do not exist, and no sentence is hidden behind another."""
    requests = [message_type(each.request).full_name for each in admin_methods.METHODS]
    fields = {name: set(FILES.pool.FindMessageTypeByName(name).fields_by_name) for name in (*OURS, *requests)}
    assert {name: set(words) - fields.get(name, set()) for name, words in HERE.items()} == {
        name: set() for name in HERE
    }
    general = {(name, field) for name, known in fields.items() for field in known - set(HERE.get(name, {}))}
    assert {field for _, field in general} == set(EVERYWHERE)


def test_required_fields_are_those_that_a_request_is_refused_without() -> None:
    """What the document calls required, an empty request is refused for."""
    found = {name: definition.get("required") for name, definition in document()["definitions"].items()}
    assert found["cerbos.request.v1.CheckResourcesRequest"] == ["principal", "resources"]
    assert found["authzen.authorization.v1.Action"] == ["name"]
    assert found["cerbos.response.v1.CheckResourcesResponse"] is None


EXAMPLES = [
    pytest.param(each.method, body, id=f"{each.summary}: {name}")
    for each in (*OPERATIONS, EXPLAIN_OPERATION)
    for name, body in each.examples.items()
]


@pytest.mark.parametrize(("method", "body"), EXAMPLES)
async def test_examples_are_answered(method: Any, body: dict[str, Any]) -> None:
    """Each example is a request that gets an answer."""
    pdp = Pdp(Engine.from_directory(POLICIES), AuxDataReader({}), lambda: "call")
    request = protojson.decode(method.request, json.dumps(body).encode())
    response = await answers(pdp, explain=True)[method](request, lambda: Caller({}))
    assert type(response) is method.response


def test_each_call_with_a_body_has_an_example() -> None:
    """Nobody has to begin with an empty page."""
    assert {each.method.path for each in OPERATIONS if each.examples} == {
        method.path for method in METHODS if method.verb == "POST"
    }


def test_the_document_names_no_host() -> None:
    """Whoever asks cannot make the document point elsewhere."""
    assert not {"host", "schemes", "basePath"} & document().keys()
