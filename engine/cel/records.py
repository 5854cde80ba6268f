"""Records: message types for the checker whose values are plain Python objects, read by attribute.

The checker knows them from a small descriptor pool, so that an unknown field is cel-go's ``undefined field``;
generated code reads the attributes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, struct_pb2, timestamp_pb2

from engine.cel.values import RecordValue

Field = descriptor_pb2.FieldDescriptorProto

SCALARS = {
    "bool": Field.TYPE_BOOL,
    "bytes": Field.TYPE_BYTES,
    "double": Field.TYPE_DOUBLE,
    "int": Field.TYPE_INT64,
    "string": Field.TYPE_STRING,
    "uint": Field.TYPE_UINT64,
}

MESSAGES = {
    "dyn": "google.protobuf.Value",
    "list<dyn>": "google.protobuf.ListValue",
    "map<string, dyn>": "google.protobuf.Struct",
    "google.protobuf.Timestamp": "google.protobuf.Timestamp",
    "google.protobuf.Duration": "google.protobuf.Duration",
    "timestamp": "google.protobuf.Timestamp",
    "duration": "google.protobuf.Duration",
}

WELL_KNOWN = (duration_pb2, struct_pb2, timestamp_pb2)
FILE_NAME = "engine.cel.records.proto"


@dataclass(frozen=True, slots=True)
class Record:
    """A message type for the checker.

    *name* is qualified (``cerbos.Principal``); *fields* maps each CEL field to its CEL type text (``string``,
    ``list<string>``, ``map<string, dyn>``, the name of another record) and the Python attribute that holds
    it.
    """

    name: str
    fields: Mapping[str, tuple[str, str]]


def canonical(text: str) -> str:
    """Return a CEL type text with one space after each comma and no other."""
    return ", ".join(text.replace(" ", "").split(","))


def descriptors(records: Sequence[Record]) -> descriptor_pool.DescriptorPool:
    """Return a pool that has the well-known messages and one message for each of *records*.

    Raises:
        ValueError: a field's type is neither a CEL type that protobuf can carry nor the name of a record.

    """
    pool = descriptor_pool.DescriptorPool()
    for module in WELL_KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in _files(records):
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _files(records: Sequence[Record]) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """All records of one package are one file; records refer to each other within a package only."""
    names = frozenset(record.name for record in records)
    packages: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for record in records:
        package = record.name.rpartition(".")[0]
        if package not in packages:
            packages[package] = descriptor_pb2.FileDescriptorProto(
                name=f"{package}.{FILE_NAME}",
                package=package,
                syntax="proto3",
                dependency=[module.DESCRIPTOR.name for module in WELL_KNOWN],
            )
        _describe(record, packages[package], names)
    yield from packages.values()


def _describe(record: Record, file: descriptor_pb2.FileDescriptorProto, names: frozenset[str]) -> None:
    message = file.message_type.add(name=record.name.rpartition(".")[2])
    # A field may have two names (`auxData`, `aux_data`), which protobuf takes for one in JSON.
    message.options.deprecated_legacy_json_field_conflicts = True
    for number, (name, (type_text, _)) in enumerate(record.fields.items(), start=1):
        field = message.field.add(name=name, json_name=name, number=number, label=Field.LABEL_OPTIONAL)
        _set_type(field, canonical(type_text), names, message, record.name)


def _set_type(
    field: descriptor_pb2.FieldDescriptorProto,
    text: str,
    names: frozenset[str],
    message: descriptor_pb2.DescriptorProto,
    record: str,
) -> None:
    if text in SCALARS:
        field.type = SCALARS[text]
    elif text in MESSAGES or text in names:
        field.type = Field.TYPE_MESSAGE
        field.type_name = f".{MESSAGES.get(text, text)}"
    elif text.startswith("list<") and _is_simple(text[5:-1]):
        _set_type(field, text[5:-1], names, message, record)
        field.label = Field.LABEL_REPEATED
    elif text.startswith("map<string, "):
        _set_map(field, text[12:-1], names, message, record)
    else:
        raise ValueError(f"`{record}.{field.name}` cannot have the type `{text}`")


def _is_simple(text: str) -> bool:
    return text in SCALARS or text in MESSAGES


def _set_map(
    field: descriptor_pb2.FieldDescriptorProto,
    value_type: str,
    names: frozenset[str],
    message: descriptor_pb2.DescriptorProto,
    record: str,
) -> None:
    if not _is_simple(value_type):
        raise ValueError(f"`{record}.{field.name}` cannot have the type `map<string, {value_type}>`")
    entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=Field.LABEL_OPTIONAL, type=Field.TYPE_STRING)
    value = entry.field.add(name="value", number=2, label=Field.LABEL_OPTIONAL)
    _set_type(value, value_type, names, message, record)
    field.label = Field.LABEL_REPEATED
    field.type = Field.TYPE_MESSAGE
    field.type_name = f".{record}.{entry.name}"


Reader = Callable[[object], Any]


def readers(records: Sequence[Record]) -> dict[str, dict[str, Reader]]:
    """For each record, how each of its fields is read from its object as an ordinary CEL value."""
    found: dict[str, dict[str, Reader]] = {record.name: {} for record in records}
    for record in records:
        for field, (type_text, attribute) in record.fields.items():
            found[record.name][field] = _reader(canonical(type_text), operator.attrgetter(attribute), found)
    return found


def _reader(type_text: str, read: Reader, found: Mapping[str, Mapping[str, Reader]]) -> Reader:
    if type_text in found:
        return lambda record: RecordValue(type_text, found[type_text], read(record))
    if type_text.startswith("list<"):
        return lambda record: native_list(read(record))
    if type_text.startswith("map<"):
        return lambda record: native_map(read(record))
    return read


def native_list(value: Sequence[Any]) -> list[Any]:
    """Return a list as expressions hand it on; records may hold a tuple."""
    return value if type(value) is list else list(value)


def native_map(value: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a map as expressions hand it on; records may hold any mapping."""
    return value if type(value) is dict else dict(value)
