"""The schemas of messages, from the dataclasses of ``envoy-data-plane``.

``envoy-data-plane`` describes every message of Envoy and of CEL in pure Python: field names, numbers and
types. Its own codec is far too slow for a request path, and to import it takes a third of a second. So this
module walks those dataclasses and writes the same schema for ``protobuf``, whose codec is compiled (upb).

What it writes stands beside the modules that use it (:mod:`engine.messages`): ``make schemas`` writes it
anew, and a test holds that it is what the dataclasses say. The two codecs share only the schema, which is why
the tests can use the slow one to check the fast one.
"""

from __future__ import annotations

import dataclasses
import typing

import betterproto2
from envoy_data_plane.message_pool import default_message_pool
from google.protobuf import descriptor_pb2

from engine.messages import WELL_KNOWN_FILES, classes

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf import message

WELL_KNOWN_PACKAGE = "google.protobuf"

# Enums travel as plain varints: the callers compare numbers, and an unknown value must survive.
FIELD_TYPE = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "enum": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "fixed32": descriptor_pb2.FieldDescriptorProto.TYPE_FIXED32,
    "fixed64": descriptor_pb2.FieldDescriptorProto.TYPE_FIXED64,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "message": descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
    "sfixed32": descriptor_pb2.FieldDescriptorProto.TYPE_SFIXED32,
    "sfixed64": descriptor_pb2.FieldDescriptorProto.TYPE_SFIXED64,
    "sint32": descriptor_pb2.FieldDescriptorProto.TYPE_SINT32,
    "sint64": descriptor_pb2.FieldDescriptorProto.TYPE_SINT64,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
}


def schema(*roots: type[betterproto2.Message]) -> bytes:
    """Return a serialized ``FileDescriptorSet`` of *roots* and every message that they refer to.

    The files are in the order in which a pool takes them; well-known types are not among them.
    """
    files = _files(_reachable(roots))
    found = descriptor_pb2.FileDescriptorSet(file=[files[name] for name in _dependencies_first(files)])
    return found.SerializeToString()


def fast_classes(*roots: type[betterproto2.Message]) -> tuple[type[message.Message], ...]:
    """Return a compiled protobuf class for each of *roots*, in order."""
    return classes(schema(*roots), *map(_full_name, roots))


def _full_name(cls: type[betterproto2.Message]) -> str:
    return default_message_pool.type_to_url[cls].rpartition("/")[2]


def _is_well_known(name: str) -> bool:
    return name.rpartition(".")[0] == WELL_KNOWN_PACKAGE


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message: its place on the wire and, for messages, the class of its values."""

    name: str
    metadata: betterproto2.FieldMetadata
    message: type[betterproto2.Message] | None


def _fields(cls: type[betterproto2.Message]) -> Iterator[_Field]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type] # every betterproto2 message is a dataclass
        metadata: betterproto2.FieldMetadata = field.metadata["betterproto"]
        yield _Field(field.name, metadata, _message_class(hints[field.name], metadata))


def _message_class(hint: object, metadata: betterproto2.FieldMetadata) -> type[betterproto2.Message] | None:
    """Find the message class in a field's annotation (``X | None``, ``list[X]``, ``dict[str, X]``)."""
    kind = metadata.map_meta[1].proto_type if metadata.map_meta else metadata.proto_type
    if kind != "message":
        return None
    if metadata.unwrap is not None:  # annotated as datetime, int, ...: the wrapper class is behind a function
        return typing.cast("type[betterproto2.Message]", metadata.unwrap())
    if isinstance(hint, type) and issubclass(hint, betterproto2.Message):
        return hint
    return next(
        a for a in typing.get_args(hint) if isinstance(a, type) and issubclass(a, betterproto2.Message)
    )


def _reachable(roots: tuple[type[betterproto2.Message], ...]) -> list[type[betterproto2.Message]]:
    """Every message that a root refers to, well-known types excepted, in a stable order."""
    found: dict[type[betterproto2.Message], None] = {}
    waiting = list(roots)
    while waiting:
        cls = waiting.pop()
        if cls in found or _is_well_known(_full_name(cls)):
            continue
        found[cls] = None
        waiting.extend(field.message for field in _fields(cls) if field.message is not None)
    return sorted(found, key=_full_name)  # a parent sorts before the messages nested in it


def _files(
    classes: list[type[betterproto2.Message]],
) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """One file descriptor for each package, with the messages nested as in the original files."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for cls in classes:
        package, path = _package_and_path(_full_name(cls))
        file = files.setdefault(
            package, descriptor_pb2.FileDescriptorProto(name=package, package=package, syntax="proto3")
        )
        _describe(cls, _nested(file, path), file)
    return files


def _package_and_path(full_name: str) -> tuple[str, list[str]]:
    """Split ``envoy.service.auth.v3.AttributeContext.Peer`` where the first capital letter begins a name."""
    parts = full_name.split(".")
    first = next(index for index, part in enumerate(parts) if part[0].isupper())
    return ".".join(parts[:first]), parts[first:]


def _nested(file: descriptor_pb2.FileDescriptorProto, path: list[str]) -> descriptor_pb2.DescriptorProto:
    siblings = file.message_type
    for name in path:
        found = next((sibling for sibling in siblings if sibling.name == name), None)
        descriptor = siblings.add(name=name) if found is None else found
        siblings = descriptor.nested_type
    return descriptor


def _describe(
    cls: type[betterproto2.Message],
    descriptor: descriptor_pb2.DescriptorProto,
    file: descriptor_pb2.FileDescriptorProto,
) -> None:
    for field in _fields(cls):
        if field.metadata.map_meta is not None:
            _describe_map(field, field.metadata.map_meta, descriptor, _full_name(cls))
        else:
            described = _describe_field(descriptor, field.name, field.metadata, field.message)
            if field.metadata.group:
                described.oneof_index = _oneof(descriptor, field.metadata.group)
        if field.message is not None:
            _import(file, _full_name(field.message))


def _describe_field(
    descriptor: descriptor_pb2.DescriptorProto,
    name: str,
    metadata: betterproto2.FieldMetadata,
    message_class: type[betterproto2.Message] | None,
) -> descriptor_pb2.FieldDescriptorProto:
    proto = descriptor_pb2.FieldDescriptorProto
    field = descriptor.field.add(
        name=name,
        number=metadata.number,
        type=FIELD_TYPE[metadata.proto_type],
        label=proto.LABEL_REPEATED if metadata.repeated else proto.LABEL_OPTIONAL,
    )
    if metadata.proto_type == "message" and message_class is not None:
        field.type_name = f".{_full_name(message_class)}"
    return field


def _describe_map(
    field: _Field,
    entries: tuple[betterproto2.FieldMetadata, betterproto2.FieldMetadata],
    descriptor: descriptor_pb2.DescriptorProto,
    owner: str,
) -> None:
    """Describe a map: a repeated nested message with a key and a value (protobuf encoding, "Maps")."""
    entry_name = f"{field.name.title().replace('_', '')}Entry"
    entry = descriptor.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    key, value = entries
    _describe_field(entry, "key", key, None)
    _describe_field(entry, "value", value, field.message)
    descriptor.field.add(
        name=field.name,
        number=field.metadata.number,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
        type_name=f".{owner}.{entry_name}",
    )


def _oneof(descriptor: descriptor_pb2.DescriptorProto, name: str) -> int:
    for index, declared in enumerate(descriptor.oneof_decl):
        if declared.name == name:
            return index
    descriptor.oneof_decl.add(name=name)
    return len(descriptor.oneof_decl) - 1


def _import(file: descriptor_pb2.FileDescriptorProto, full_name: str) -> None:
    if _is_well_known(full_name):
        needed = next(
            module.DESCRIPTOR.name
            for module in WELL_KNOWN_FILES
            if full_name.rpartition(".")[2] in module.DESCRIPTOR.message_types_by_name
        )
    else:
        needed = _package_and_path(full_name)[0]
    if needed != file.name and needed not in file.dependency:
        file.dependency.append(needed)


def _dependencies_first(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> list[str]:
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in ordered or name not in files:
            return
        for dependency in files[name].dependency:
            visit(dependency)
        ordered[name] = None

    for name in sorted(files):
        visit(name)
    return list(ordered)
