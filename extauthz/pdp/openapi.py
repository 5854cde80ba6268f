"""The OpenAPI document of the PDP API, made from the declarations that also make the codecs and the checks.

Version 2.0 of the format, which Cerbos serves at the same place and generators of clients read. The document
names no host: a reader takes the one that it got the document from (OpenAPI 2.0, `host`), so nothing in it
depends on a request. Definitions have the full names of the messages.
"""

from __future__ import annotations

import importlib.metadata
import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from extauthz.pdp.admin_methods import ADMIN
from extauthz.pdp.admin_operations import ADMIN_OPERATIONS
from extauthz.pdp.field_words import words
from extauthz.pdp.operations import EXPLAIN_OPERATION, OPERATIONS, TAGS
from extauthz.pdp.schema import Field, Kind, Shape, message_type
from extauthz.pdp.services import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from extauthz.pdp.method import Method
    from extauthz.pdp.operations import Operation

Schema = dict[str, Any]

STATUS: Final = "google.rpc.Status"
"""What is answered instead, when something is wrong."""
HEALTH: Final = "grpc.health.v1.HealthCheckResponse"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
BASIC: Final = {"BasicAuth": {"type": "basic"}}
HEALTH_PATH: Final = "/_cerbos/health"

FOREIGN: Final[Mapping[str, Schema]] = {
    STATUS: {
        "type": "object",
        "properties": {
            "code": {"type": "integer", "format": "int32", "description": "The gRPC status code."},
            "message": {"type": "string", "description": "What is wrong."},
            "details": {
                "type": "array",
                "description": "More about it, such as the fields that break a rule.",
                "items": {
                    "type": "object",
                    "properties": {"@type": {"type": "string"}},
                    "additionalProperties": {},
                },
            },
        },
    },
    HEALTH: {
        "type": "object",
        "properties": {
            "status": {
                "type": "string",
                "enum": ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"],
                "description": "Whether requests may come.",
            }
        },
    },
}
"""Messages that are not ours to declare."""


@cache
def document(*, pdp: bool = True, explain: bool = False, admin: bool = False) -> bytes:
    """Return the document, as JSON, with the calls that are served.

    *pdp*: those that decide; *explain*: the one that explains decisions; *admin*: those about the store.
    """
    operations = (
        *(OPERATIONS if pdp else ()),
        *((EXPLAIN_OPERATION,) if explain else ()),
        *(ADMIN_OPERATIONS if admin else ()),
    )
    return json.dumps(_document(operations), ensure_ascii=False, indent=1).encode()


def _document(operations: Sequence[Operation]) -> Schema:
    services = {each.method.service for each in operations} | {HEALTH_SERVICE}
    with_password = {"securityDefinitions": BASIC} if ADMIN in services else {}
    return {
        "swagger": "2.0",
        "info": {
            "title": "extauthz: PDP API",
            "description": "Decisions by Cerbos policies, over the API that Cerbos's clients speak.",
            "version": importlib.metadata.version("extauthz"),
            "license": {"name": "Apache-2.0"},
        },
        "tags": [
            {"name": service, "description": heading}
            for service, heading in TAGS.items()
            if service in services
        ],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        **with_password,
        "paths": _paths(operations),
        "definitions": _definitions(operations),
    }


# --- calls ------------------------------------------------------------------------------------------------


def _paths(operations: Sequence[Operation]) -> Schema:
    found: Schema = {}
    for each in operations:
        found.setdefault(each.method.path, {})[each.method.verb.lower()] = _operation(each)
    return found | {HEALTH_PATH: {"get": _health()}}


def _operation(operation: Operation) -> Schema:
    method = operation.method
    response = message_type(method.response).full_name
    return {
        **_named(method.service, method.name),
        "summary": operation.summary,
        "description": operation.description,
        **({"deprecated": True} if operation.deprecated else {}),
        **({"security": [{"BasicAuth": []}]} if method.service == ADMIN else {}),
        "parameters": [_body(operation)] if operation.examples else _query(method),
        "responses": _responses(response),
    }


def _health() -> Schema:
    """Describe the health check, which gRPC defines and not Cerbos."""
    service = "The full name of a gRPC service; empty for the whole server."
    return {
        **_named(HEALTH_SERVICE, "Check"),
        "summary": "Health",
        "description": "Tells whether requests may come.",
        "parameters": [
            {"name": "service", "in": "query", "required": False, "type": "string", "description": service}
        ],
        "responses": _responses(HEALTH),
    }


def _named(service: str, name: str) -> Schema:
    return {
        "operationId": f"{service.rpartition('.')[2]}_{name}",
        **({"x-grpc-method": f"/{service}/{name}"} if service != OURS else {}),
        "tags": [service],
    }


def _responses(answer: str) -> Schema:
    return {
        "200": {"description": "The answer.", "schema": _reference(answer)},
        "default": {"description": "Why there is none.", "schema": _reference(STATUS)},
    }


def _body(operation: Operation) -> Schema:
    return {
        "name": "body",
        "in": "body",
        "required": True,
        "schema": _reference(message_type(operation.method.request).full_name),
        "x-examples": dict(operation.examples),
    }


def _query(method: Method) -> list[Schema]:
    """Describe what stands in the query string."""
    if not method.in_query:
        return []
    declared = message_type(method.request)
    return [_parameter(declared.full_name, field) for field in declared.fields]


def _parameter(owner: str, field: Field) -> Schema:
    several = {"collectionFormat": "multi"} if field.shape is Shape.LIST else {}
    return {
        "name": field.json_name,
        "in": "query",
        "required": field.rules.required,
        "description": words(owner, field.name),
        **_field(field),
        **several,
    }


# --- messages ---------------------------------------------------------------------------------------------


def _definitions(operations: Sequence[Operation]) -> Schema:
    found: Schema = dict(FOREIGN)
    waiting = [cls for each in operations for cls in _messages(each)]
    while waiting:
        cls = waiting.pop()
        declared = message_type(cls)
        if declared.full_name not in found:
            found[declared.full_name] = _definition(cls)
            waiting.extend(field.message for field in declared.fields if field.message is not None)
    return dict(sorted(found.items()))


def _messages(operation: Operation) -> tuple[type[Any], ...]:
    """Return what the document says about the messages of a call: a body only where there is one."""
    method = operation.method
    return (method.request, method.response) if operation.examples else (method.response,)


def _definition(cls: type[Any]) -> Schema:
    declared = message_type(cls)
    properties = {
        field.json_name: _field(field) | {"description": words(declared.full_name, field.name)}
        for field in declared.fields
    }
    required = [field.json_name for field in declared.fields if field.rules.required]
    sentences = [cls.__doc__ or "", *(f"{rule.sentence}." for rule in declared.rules)]
    return {
        "type": "object",
        "description": " ".join(sentences),
        "properties": properties,
        **({"required": required} if required else {}),
    }


def _field(field: Field) -> Schema:
    return _SHAPES[field.shape](field, _ONE[field.kind](field))


def _list(field: Field, item: Schema) -> Schema:
    rules = field.rules
    limits = {
        "minItems": rules.min_items or None,
        "maxItems": rules.max_items,
        "uniqueItems": rules.unique or None,
    }
    lengths = {"minLength": rules.item_min_length or None, "maxLength": rules.item_max_length}
    return {"type": "array", "items": item | _without_none(lengths), **_without_none(limits)}


def _map(field: Field, value: Schema) -> Schema:
    least = {"minProperties": field.rules.min_pairs} if field.rules.min_pairs else {}
    return {"type": "object", "additionalProperties": value, **least}


_SHAPES: Final[Mapping[Shape, Callable[[Field, Schema], Schema]]] = {
    Shape.ONE: lambda _, schema: schema,
    Shape.LIST: _list,
    Shape.MAP: _map,
}


def _string(field: Field) -> Schema:
    rules = field.rules
    limits = {
        "minLength": rules.min_length or None,
        "maxLength": rules.max_length,
        "pattern": rules.pattern or None,
        "enum": list(rules.choices) or None,
    }
    return {"type": "string", **_without_none(limits)}


def _enum(field: Field) -> Schema:
    assert field.tag.enum is not None  # noqa: S101  # that is what makes the field an enumeration
    return {"type": "string", "enum": list(field.tag.enum.names)}


def _message(field: Field) -> Schema:
    assert field.message is not None  # noqa: S101  # that is what makes the field a message
    return _reference(message_type(field.message).full_name)


_ONE: Final[Mapping[Kind, Callable[[Field], Schema]]] = {
    Kind.STRING: _string,
    Kind.BYTES: lambda _: {"type": "string", "format": "byte"},
    Kind.BOOL: lambda _: {"type": "boolean"},
    Kind.INT: lambda _: {"type": "integer", "format": "int32"},
    Kind.UINT: lambda _: {"type": "integer", "format": "int64", "minimum": 0},
    Kind.LONG: lambda _: {"type": "string", "format": "uint64"},
    Kind.ENUM: _enum,
    Kind.JSON: lambda _: {},
    Kind.MESSAGE: _message,
}


def _reference(full_name: str) -> Schema:
    return {"$ref": f"#/definitions/{full_name}"}


def _without_none(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if value is not None}
