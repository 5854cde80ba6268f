"""The compiled classes have the schema of envoy-data-plane: both codecs read and write the same messages."""

from __future__ import annotations

import datetime
import functools
import math
import typing
from typing import TYPE_CHECKING, Any

import pytest
from betterproto2 import Enum, Message
from envoy_data_plane.cel import expr as cel
from envoy_data_plane.envoy.config.core.v3 import Metadata
from envoy_data_plane.envoy.service.auth import v3 as auth
from envoy_data_plane.google import protobuf as well_known
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import message_schemas as messages
from tests import schemas
from tests.message_schemas import fast_classes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROOTS: tuple[type[Message], ...] = (auth.CheckRequest, auth.CheckResponse, cel.CheckedExpr)
FAST: dict[type[Message], Any] = dict(zip(ROOTS, fast_classes(*ROOTS), strict=True))

int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
uint32, uint64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("int32", "sint32", "sfixed32"), int32),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), int64),
    **dict.fromkeys(("uint32", "fixed32"), uint32),
    **dict.fromkeys(("uint64", "fixed64"), uint64),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=8),
    "double": st.floats(allow_nan=False),
    "float": st.floats(allow_nan=False, width=32),
    "string": text,
}
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda children: st.lists(children, max_size=2) | st.dictionaries(text, children, max_size=2),
    max_leaves=4,
)
moments = st.datetimes(
    datetime.datetime(1970, 1, 2), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC)
)
WELL_KNOWN: dict[type[Message], st.SearchStrategy[Any]] = {
    well_known.Any: st.builds(well_known.Any, type_url=text, value=st.binary(max_size=5)),
    well_known.BoolValue: st.booleans(),
    # the slow codec writes negative durations with a positive fraction, which is another duration
    well_known.Duration: st.timedeltas(datetime.timedelta(), datetime.timedelta(days=999)),
    well_known.Empty: st.just(well_known.Empty()),
    well_known.Struct: st.dictionaries(text, json_values, max_size=2).map(well_known.Struct.from_dict),
    well_known.Timestamp: moments,
}
UNWRAPPED = (bool, datetime.datetime, datetime.timedelta)


@functools.cache
def made(cls: type[Message], depth: int) -> st.SearchStrategy[Any]:
    """Make messages of *cls*, at most one member of each oneof set, nothing below *depth*."""
    if cls in WELL_KNOWN:
        return WELL_KNOWN[cls]
    fields = [
        field
        for field in messages._fields(cls)
        if depth or field.message is None or field.message in WELL_KNOWN
    ]
    alone = {field.name: value_of(cls, field, depth) for field in fields if not field.metadata.group}
    groups: dict[str, list[st.SearchStrategy[Any]]] = {}
    for field in fields:
        if field.metadata.group:
            member = st.tuples(st.just(field.name), value_of(cls, field, depth))
            groups.setdefault(field.metadata.group, []).append(member)
    chosen = st.tuples(*(st.none() | st.one_of(members) for members in groups.values()))
    return st.builds(
        lambda values, members: cls(**values, **dict(filter(None, members))),
        st.fixed_dictionaries({}, optional=alone),
        chosen,
    )


def value_of(cls: type[Message], field: Any, depth: int) -> st.SearchStrategy[Any]:
    """Make values for one field."""
    metadata = field.metadata
    kind = metadata.map_meta[1].proto_type if metadata.map_meta else metadata.proto_type
    if kind == "message":
        one = made(field.message, depth - 1)
    elif kind == "enum":
        one = st.sampled_from(list(enum_of(cls, field.name)))
    else:
        one = SCALARS[kind]
    if metadata.map_meta:
        return st.dictionaries(SCALARS[metadata.map_meta[0].proto_type], one, max_size=2)
    return st.lists(one, max_size=2) if metadata.repeated else one


def enum_of(cls: type[Message], name: str) -> type[Enum]:
    """Find the enum in a field's annotation."""
    hint = typing.get_type_hints(cls)[name]
    candidates = (hint, *typing.get_args(hint))
    return next(each for each in candidates if isinstance(each, type) and issubclass(each, Enum))


def same(slow: Any, fast: Any) -> bool:
    """Whether a message of the slow codec and one of the fast one have the same values, field by field."""
    return all(same_value(getattr(slow, field.name), fast, field) for field in messages._fields(type(slow)))


def same_value(slow: Any, fast: Any, field: Any) -> bool:
    singular = not field.metadata.repeated and not field.metadata.map_meta
    if singular and (field.message or field.metadata.group):
        if slow is None or not fast.HasField(field.name):
            return slow is None and not fast.HasField(field.name)
        return same_item(slow, getattr(fast, field.name))
    value = getattr(fast, field.name)
    if field.metadata.map_meta:
        return slow.keys() == set(value) and all(same_item(slow[key], value[key]) for key in slow)
    if field.metadata.repeated:
        return len(slow) == len(value) and all(map(same_item, slow, value))
    return same_item(slow, value)


def same_item(slow: Any, fast: Any) -> bool:
    if isinstance(slow, Message) and type(slow) not in WELL_KNOWN:
        return same(slow, fast)
    if isinstance(slow, Message):
        return type(slow).parse(fast.SerializeToString()) == slow
    if isinstance(slow, UNWRAPPED) and hasattr(fast, "DESCRIPTOR"):
        return UNWRAP[fast.DESCRIPTOR.name](fast) == slow
    return bool(slow == fast)


UNWRAP: dict[str, Callable[[Any], object]] = {
    "BoolValue": lambda fast: fast.value,
    "Duration": lambda fast: datetime.timedelta(seconds=fast.seconds, microseconds=fast.nanos // 1000),
    "Timestamp": lambda fast: (
        datetime.datetime.fromtimestamp(fast.seconds, datetime.UTC)
        + datetime.timedelta(microseconds=fast.nanos // 1000)
    ),
}

MESSAGES = st.one_of(made(auth.CheckRequest, 6), made(auth.CheckResponse, 6), made(cel.CheckedExpr, 4))


@settings(max_examples=200)
@given(MESSAGES)
def test_the_fast_codec_reads_what_the_slow_one_writes(slow: Message) -> None:
    """Every value, and every absence, arrives."""
    assert same(slow, FAST[type(slow)].FromString(bytes(slow)))


@settings(max_examples=200)
@given(MESSAGES)
def test_the_slow_codec_reads_what_the_fast_one_writes(slow: Message) -> None:
    """What the fast codec read, it writes, and the slow one reads the message it began with."""
    fast = FAST[type(slow)].FromString(bytes(slow))
    assert type(slow).parse(fast.SerializeToString()) == slow


@pytest.mark.parametrize("root", ROOTS)
def test_every_field_keeps_its_presence(root: type[Message]) -> None:
    """No scalar field has a presence of its own (proto3 `optional`), which the built schema would lose."""
    scalars = [
        (cls.__name__, field.name)
        for cls in messages._reachable((root,))
        for field in messages._fields(cls)
        if field.metadata.optional and field.message is None and not field.metadata.group
    ]
    assert scalars == []


@pytest.mark.parametrize("root", ROOTS)
def test_the_schema_is_complete(root: type[Message]) -> None:
    """Each field of each message that is reached has its name and number in the built class."""
    pool = FAST[root].DESCRIPTOR.file.pool
    for cls in messages._reachable((root,)):
        described = pool.FindMessageTypeByName(messages._full_name(cls))
        numbers = {field.name: field.metadata.number for field in messages._fields(cls)}
        assert {field.name: field.number for field in described.fields} == numbers


def test_oneofs_hold_one() -> None:
    """Setting one member of a oneof clears the other."""
    response = FAST[auth.CheckResponse]()
    response.ok_response.SetInParent()
    response.denied_response.SetInParent()
    assert response.WhichOneof("http_response") == "denied_response"


def test_unknown_enum_values_survive() -> None:
    """Enums are numbers, so that a value of a later Envoy is not lost."""
    response = FAST[auth.CheckResponse]()
    response.denied_response.status.code = 799
    again = FAST[auth.CheckResponse].FromString(response.SerializeToString())
    assert again.denied_response.status.code == 799


def test_unknown_fields_are_skipped() -> None:
    """A field that the schema does not know does no harm."""
    known = bytes(auth.CheckRequest(attributes=auth.AttributeContext(context_extensions={"a": "b"})))
    read = FAST[auth.CheckRequest].FromString(known + b"\xfa\x7f\x03abc")
    assert dict(read.attributes.context_extensions) == {"a": "b"}


def test_numbers_that_json_does_not_know_travel() -> None:
    """Struct numbers are doubles, whichever."""
    struct = well_known.Struct(fields={"n": well_known.Value(number_value=math.inf)})
    context = auth.AttributeContext(metadata_context=Metadata(filter_metadata={"a": struct}))
    read = FAST[auth.CheckRequest].FromString(bytes(auth.CheckRequest(attributes=context)))
    found = read.attributes.metadata_context.filter_metadata["a"].fields["n"]
    assert found.number_value == math.inf


def test_invalid_utf8_is_refused() -> None:
    """A string that is not UTF-8 is no string (proto3)."""
    data = bytes(auth.CheckRequest(attributes=auth.AttributeContext(context_extensions={"a": "needle"})))
    with pytest.raises(DecodeError):
        FAST[auth.CheckRequest].FromString(data.replace(b"needle", b"need\xff!"))


def test_classes_are_built_apart_from_the_default_pool() -> None:
    """A second building does not clash with the first, nor with another package's protos of the same name."""
    (again,) = fast_classes(auth.CheckRequest)
    assert again is not FAST[auth.CheckRequest]
    assert again.DESCRIPTOR.full_name == "envoy.service.auth.v3.CheckRequest"


@pytest.mark.parametrize("file", schemas.SCHEMAS, ids=lambda file: file.name)
def test_the_schemas_that_are_used_are_those_of_envoy_data_plane(file: Path) -> None:
    """What stands beside the modules is what the dataclasses say: `make schemas` writes it."""
    written, said = (
        descriptor_pb2.FileDescriptorSet.FromString(content)
        for content in (file.read_bytes(), messages.schema(*schemas.SCHEMAS[file]))
    )
    assert written == said
