"""Descriptors of the API's messages and services, made from the declarations.

They live in a pool of our own, as in :mod:`engine.messages`: a process that also loads Cerbos's client has
the same messages in the default pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, wrappers_pb2

from extauthz.pdp.schema import Kind, Shape, message_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message

    from extauthz.pdp.schema import EnumType, Field, MessageType

FieldProto = descriptor_pb2.FieldDescriptorProto

_TYPES: Final[Mapping[Kind, descriptor_pb2.FieldDescriptorProto.Type.ValueType]] = {
    Kind.STRING: FieldProto.TYPE_STRING,
    Kind.BYTES: FieldProto.TYPE_BYTES,
    Kind.BOOL: FieldProto.TYPE_BOOL,
    Kind.INT: FieldProto.TYPE_INT32,
    Kind.UINT: FieldProto.TYPE_UINT32,
    Kind.LONG: FieldProto.TYPE_UINT64,
    Kind.ENUM: FieldProto.TYPE_ENUM,
    Kind.JSON: FieldProto.TYPE_MESSAGE,
    Kind.MESSAGE: FieldProto.TYPE_MESSAGE,
}
_VALUE: Final = ".google.protobuf.Value"
_STRUCT_FILE: Final = struct_pb2.DESCRIPTOR
_WELL_KNOWN: Final = (_STRUCT_FILE, wrappers_pb2.DESCRIPTOR)


class Files:
    """File descriptors of messages and services, one for each package, in a pool of their own."""

    def __init__(self) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        self._files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        self._described: set[str] = set()

    def add(self, *classes: type[Any]) -> None:
        """Describe messages and all that they refer to."""
        for cls in classes:
            self._describe(message_type(cls))

    def add_file(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        """Take over the descriptors of a package that is declared elsewhere; before all others."""
        self._files[file.name] = file
        declared = [each.name for each in file.message_type] + [each.name for each in file.enum_type]
        self._described.update(f"{file.package}.{name}" for name in declared)

    def add_service(self, full_name: str, methods: Iterable[tuple[str, type[Any], type[Any]]]) -> None:
        """Describe a service: the name of each method, what goes in, what comes out."""
        package, (name,) = _split(full_name)
        file = self._file(package)
        service = file.service.add(name=name)
        for method, request, response in methods:
            self.add(request, response)
            ins, outs = message_type(request).full_name, message_type(response).full_name
            service.method.add(name=method, input_type=f".{ins}", output_type=f".{outs}")
            _import(file, ins)
            _import(file, outs)

    def close(self) -> None:
        """Put everything described into the pool."""
        for known in _WELL_KNOWN:
            self.pool.AddSerializedFile(known.serialized_pb)
        added = {known.name for known in _WELL_KNOWN}
        for name in self._files:
            self._add_file(name, added)

    def _add_file(self, name: str, added: set[str]) -> None:
        if name in added:
            return
        added.add(name)
        for needed in self._files[name].dependency:
            self._add_file(needed, added)
        self.pool.AddSerializedFile(self._files[name].SerializeToString())

    def message_class(self, cls: type[Any]) -> type[Message]:
        """Return the class of the codec."""
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(message_type(cls).full_name))

    def json_class(self, name: str = "Value") -> type[Message]:
        """Return the codec's class of ``google.protobuf.Value``, ``Struct`` or ``ListValue``."""
        found = self.pool.FindMessageTypeByName(f"google.protobuf.{name}")
        return message_factory.GetMessageClass(found)

    # -- describing ----------------------------------------------------------------------------------------

    def _file(self, package: str) -> descriptor_pb2.FileDescriptorProto:
        if package not in self._files:
            self._files[package] = descriptor_pb2.FileDescriptorProto(
                name=package, package=package, syntax="proto3"
            )
        return self._files[package]

    def _describe(self, declared: MessageType) -> None:
        if declared.full_name in self._described:
            return
        self._described.add(declared.full_name)
        file, descriptor = self._place(declared.full_name)
        optional = []
        for each in declared.fields:
            if each.message is not None:
                self._describe(message_type(each.message))
            described = self._describe_field(file, descriptor, each, declared.full_name)
            if each.tag.oneof:
                described.oneof_index = _oneof(descriptor, each.tag.oneof)
            elif each.tag.optional:
                optional.append(described)
        for described in optional:  # protobuf wants the oneofs that stand for `optional` behind the others
            described.proto3_optional = True
            described.oneof_index = _oneof(descriptor, f"_{described.name}")

    def _place(
        self, full_name: str
    ) -> tuple[descriptor_pb2.FileDescriptorProto, descriptor_pb2.DescriptorProto]:
        """Return the file of a message, and its descriptor among those that it is nested in."""
        package, path = _split(full_name)
        file = self._file(package)
        siblings = file.message_type
        for name in path:
            descriptor = next((each for each in siblings if each.name == name), None) or siblings.add(
                name=name
            )
            siblings = descriptor.nested_type
        return file, descriptor

    def _describe_field(
        self,
        file: descriptor_pb2.FileDescriptorProto,
        descriptor: descriptor_pb2.DescriptorProto,
        each: Field,
        owner: str,
    ) -> descriptor_pb2.FieldDescriptorProto:
        if each.shape is Shape.MAP:
            return self._describe_map(file, descriptor, each, owner)
        return descriptor.field.add(
            name=each.name,
            json_name=each.json_name,
            number=each.tag.number,
            type=_TYPES[each.kind],
            type_name=self._type_name(file, each),
            label=FieldProto.LABEL_REPEATED if each.shape is Shape.LIST else FieldProto.LABEL_OPTIONAL,
        )

    def _describe_map(
        self,
        file: descriptor_pb2.FileDescriptorProto,
        descriptor: descriptor_pb2.DescriptorProto,
        each: Field,
        owner: str,
    ) -> descriptor_pb2.FieldDescriptorProto:
        """Describe a map: a repeated nested message with a key and a value (protobuf encoding, "Maps")."""
        name = f"{each.name.title().replace('_', '')}Entry"
        entry = descriptor.nested_type.add(name=name)
        entry.options.map_entry = True
        single = FieldProto.LABEL_OPTIONAL
        entry.field.add(name="key", number=1, type=FieldProto.TYPE_STRING, label=single)
        entry.field.add(
            name="value",
            number=2,
            type=_TYPES[each.kind],
            type_name=self._type_name(file, each),
            label=single,
        )
        return descriptor.field.add(
            name=each.name,
            json_name=each.json_name,
            number=each.tag.number,
            type=FieldProto.TYPE_MESSAGE,
            type_name=f".{owner}.{name}",
            label=FieldProto.LABEL_REPEATED,
        )

    def _type_name(self, file: descriptor_pb2.FileDescriptorProto, each: Field) -> str | None:
        """Name the type of a field's values; None for scalars."""
        if each.tag.enum is not None:
            self._describe_enum(each.tag.enum)
            _import(file, each.tag.enum.full_name)
            return f".{each.tag.enum.full_name}"
        if each.message is not None:
            full_name = message_type(each.message).full_name
            _import(file, full_name)
            return f".{full_name}"
        if each.kind is Kind.JSON:
            if _STRUCT_FILE.name not in file.dependency:
                file.dependency.append(_STRUCT_FILE.name)
            return _VALUE
        return None

    def _describe_enum(self, enum: EnumType) -> None:
        if enum.full_name in self._described:
            return
        self._described.add(enum.full_name)
        owner, _, name = enum.full_name.rpartition(".")
        is_nested = owner.rpartition(".")[2][0].isupper()
        among = self._place(owner)[1].enum_type if is_nested else self._file(owner).enum_type
        described = among.add(name=name)
        for number, each in enumerate(enum.names):
            described.value.add(name=each, number=number)


def _split(full_name: str) -> tuple[str, list[str]]:
    """Split ``cerbos.engine.v1.Principal`` where the first capital letter begins a name."""
    parts = full_name.split(".")
    first = next(index for index, part in enumerate(parts) if part[0].isupper())
    return ".".join(parts[:first]), parts[first:]


def _import(file: descriptor_pb2.FileDescriptorProto, full_name: str) -> None:
    needed = _split(full_name)[0]
    if needed != file.name and needed not in file.dependency:
        file.dependency.append(needed)


def _oneof(descriptor: descriptor_pb2.DescriptorProto, name: str) -> int:
    for index, declared in enumerate(descriptor.oneof_decl):
        if declared.name == name:
            return index
    descriptor.oneof_decl.add(name=name)
    return len(descriptor.oneof_decl) - 1
