"""The declared messages against the official generated classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cerbos.response.v1.response_pb2
import cerbos.svc.v1.svc_pb2
import pytest
from buf.validate import validate_pb2  # type: ignore[import-untyped]  # generated, without types
from google.api import annotations_pb2  # type: ignore[import-untyped]  # generated, without types
from google.protobuf import descriptor_pb2, descriptor_pool

from extauthz.pdp import admin_messages, admin_methods, messages, violations
from extauthz.pdp.rules import Rules
from extauthz.pdp.schema import MessageType, Opaque, message_type
from extauthz.pdp.services import FILES, METHODS

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from extauthz.pdp.method import Method

OFFICIAL = descriptor_pool.Default()


def declared() -> list[MessageType]:
    """Return every declaration of a module whose messages have official classes."""
    classes = [
        each
        for module in (messages, admin_messages, violations)
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__ and hasattr(each, "_fields")
    ]
    return [message_type(cls) for cls in classes if cls not in {violations.Rule, admin_messages.Empty}]


def described(field: FieldDescriptor) -> tuple[object, ...]:
    """Return what has to be the same of a field."""
    kind = field.message_type.full_name if field.message_type is not None else ""
    enum = field.enum_type.full_name if field.enum_type is not None else ""
    oneof = field.containing_oneof.name if field.containing_oneof is not None else ""
    # A violation is declared in proto2, where every field tracks presence.
    return field.name, field.number, field.json_name, field.type, field.is_repeated, kind, enum, oneof


@pytest.mark.parametrize("message", declared(), ids=lambda each: each.full_name)
def test_fields(message: MessageType) -> None:
    """Each field has the name, number and type of the published API, on the wire and in JSON."""
    ours: Descriptor = FILES.pool.FindMessageTypeByName(message.full_name)
    theirs: Descriptor = OFFICIAL.FindMessageTypeByName(message.full_name)
    wanted = {field.name: described(field) for field in theirs.fields}
    found = {field.name: described(field) for field in ours.fields}
    if message.full_name.startswith("buf.validate"):
        wanted = {name: wanted[name] for name in found}  # of steps there are kinds that requests cannot have
        found, wanted = ({k: v[:-1] for k, v in each.items()} for each in (found, wanted))
    assert found == wanted


@pytest.mark.parametrize("message", declared(), ids=lambda each: each.full_name)
def test_order(message: MessageType) -> None:
    """Fields are declared in the order of the published API, in which faults are told."""
    if not message.full_name.startswith("buf.validate") and not issubclass(message.cls, Opaque):
        theirs = OFFICIAL.FindMessageTypeByName(message.full_name)
        assert [each.name for each in message.fields] == [field.name for field in theirs.fields]


@pytest.mark.parametrize(
    "enum",
    [
        messages.EFFECT,
        messages.SOURCE,
        messages.FILTER_KIND,
        admin_messages.ATTRIBUTE_KIND,
        admin_messages.ROLE_KIND,
        admin_messages.CONSTANT_KIND,
        admin_messages.VARIABLE_KIND,
    ],
    ids=str,
)
def test_enumerations(enum: Any) -> None:
    """Names of enumerations have the numbers of the published API."""
    theirs = OFFICIAL.FindEnumTypeByName(enum.full_name)
    assert {value.name: value.number for value in theirs.values} == {
        name: number for number, name in enumerate(enum.names)
    }


def rules_of(field: FieldDescriptor) -> Rules:
    """Read the official rules of a field."""
    options = descriptor_pb2.FieldOptions.FromString(field.GetOptions().SerializeToString())
    said = options.Extensions[validate_pb2.field]
    return Rules(
        required=said.required,
        min_length=said.string.min_len,
        max_length=said.string.max_len if said.string.HasField("max_len") else None,
        min_bytes=said.bytes.min_len,
        pattern=said.string.pattern,
        min_items=said.repeated.min_items,
        max_items=said.repeated.max_items if said.repeated.HasField("max_items") else None,
        unique=said.repeated.unique,
        item_min_length=said.repeated.items.string.min_len,
        item_max_length=item.max_len if (item := said.repeated.items.string).HasField("max_len") else None,
        min_pairs=said.map.min_pairs,
        key_min_length=said.map.keys.string.min_len,
    )


@pytest.mark.parametrize("message", declared(), ids=lambda each: each.full_name)
def test_rules(message: MessageType) -> None:
    """Each field and message has the rules of the published API, and no other."""
    if message.full_name.startswith("buf.validate") or issubclass(message.cls, Opaque):
        return
    theirs = OFFICIAL.FindMessageTypeByName(message.full_name)
    assert {field.name: field.rules for field in message.fields} == {
        field.name: rules_of(field) for field in theirs.fields
    }
    said = theirs.GetOptions().Extensions[validate_pb2.message]
    assert [(rule.id, rule.sentence) for rule in message.rules] == [
        (rule.id, rule.message) for rule in said.cel
    ]


def of_service(name: str) -> dict[str, Method]:
    served = (*METHODS, *admin_methods.METHODS)
    return {each.name: each for each in served if each.service == f"cerbos.svc.v1.{name}"}


@pytest.mark.parametrize("name", ["CerbosService", "CerbosAdminService"])
def test_methods(name: str) -> None:
    """Every method of the services is there, with its messages and its places over HTTP."""
    service = cerbos.svc.v1.svc_pb2.DESCRIPTOR.services_by_name[name]
    ours = of_service(name)
    beside = {admin_methods.AUDIT_LOG} if name == "CerbosAdminService" else set()
    assert ours.keys() | beside == {method.name for method in service.methods}
    for method in service.methods:
        if method.name in beside:
            continue
        mine = ours[method.name]
        assert message_type(mine.request).full_name == method.input_type.full_name
        assert message_type(mine.response).full_name == method.output_type.full_name
        http = method.GetOptions().Extensions[annotations_pb2.http]
        places = [(each.WhichOneof("pattern"), each) for each in (http, *http.additional_bindings)]
        assert [(mine.verb, mine.path), *mine.also] == [
            (verb.upper(), getattr(each, verb)) for verb, each in places
        ]
        if name == "CerbosAdminService":
            assert mine.in_query is not bool(http.body)
