"""The protobuf form of messages: bytes to values and back, through the compiled codec.

Nesting is bounded by the codec, which refuses more than 100 levels of messages (a JSON object in an attribute
takes three); sizes by the transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from extauthz.pdp.schema import Kind, Opaque, Shape, message_type, once_per_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from engine.model import JsonValue
    from extauthz.pdp.descriptors import Files
    from extauthz.pdp.schema import Field


class WireError(ValueError):
    """Bytes that are not the message they should be; worded for the client."""


class Codec:
    """Reads and writes the messages of *files*."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._value = files.json_class()
        self._struct = files.json_class("Struct")
        self._list = files.json_class("ListValue")
        self.decoder = once_per_class(self._decoder)
        self.encoder = once_per_class(self._encoder)

    def _decoder(self, cls: type[Any]) -> Callable[[bytes], Any]:
        """Make the function from bytes to *cls*; it raises :class:`WireError`."""
        parse, read = self._files.message_class(cls).FromString, _message_reader(cls)

        def decode(data: bytes) -> Any:
            try:
                return read(parse(data))
            except DecodeError:
                raise WireError(f"not a `{message_type(cls).full_name}`") from None

        return decode

    def _encoder(self, cls: type[Any]) -> Callable[[Any], bytes]:
        """Make the function from *cls* to bytes."""
        write = self._message_writer(cls)
        return lambda value: write(value).SerializeToString()

    # -- writing -------------------------------------------------------------------------------------------

    def _message_writer(self, cls: type[Any]) -> Callable[[Any], Message]:
        made, fields = self._files.message_class(cls), message_type(cls).fields
        writers: list[tuple[int, str, Any, Callable[[Any], Any]]] = []

        def write_message(value: Any) -> Message:
            if not writers:  # not before: a message may hold messages of its own kind
                writers.extend(
                    (index, field.name, field.default, self._field_writer(field))
                    for index, field in enumerate(fields)
                )
            given = {
                name: write_field(value[index])
                for index, name, default, write_field in writers
                if value[index] != default
            }
            return made(**given)

        return write_message

    def _field_writer(self, field: Field) -> Callable[[Any], Any]:
        write = self._item_writer(field)
        match field.shape:
            case Shape.ONE:
                return write
            case Shape.LIST:
                return lambda items: [write(item) for item in items]
            case Shape.MAP:
                return lambda entries: {name: write(item) for name, item in entries.items()}

    def _item_writer(self, field: Field) -> Callable[[Any], Any]:
        if field.message is not None and issubclass(field.message, Opaque):
            parse = self._files.message_class(field.message).FromString
            return lambda value: parse(value.definition)
        if field.message is not None:
            return self._message_writer(field.message)
        if field.tag.enum is not None:
            return field.tag.enum.names.index
        return self._json if field.kind is Kind.JSON else _as_it_is

    def _json(self, value: JsonValue) -> Message:
        """Make a ``google.protobuf.Value``; values come from the engine, which bounds their depth."""
        match value:
            case None:
                return self._value(null_value=0)
            case bool():
                return self._value(bool_value=value)
            case str():
                return self._value(string_value=value)
            case dict():
                fields = {name: self._json(item) for name, item in value.items()}
                return self._value(struct_value=self._struct(fields=fields))
            case list() | tuple():
                return self._value(list_value=self._list(values=[self._json(item) for item in value]))
            case _:
                return self._value(number_value=value)


def _as_it_is(value: Any) -> Any:
    return value


# --- reading ----------------------------------------------------------------------------------------------


@once_per_class
def _message_reader(cls: type[Any]) -> Callable[[Any], Any]:
    fields = message_type(cls).fields
    readers: list[Callable[[Any], Any]] = []

    def read_message(message: Any) -> Any:
        if not readers and fields:
            readers.extend(map(_field_reader, fields))
        return cls._make([read(message) for read in readers])

    return read_message


def _field_reader(field: Field) -> Callable[[Any], Any]:
    """Make the function from a message of the codec to the value of one of its fields."""
    name, read_item = field.name, _item_reader(field)
    match field.shape:
        case Shape.LIST:
            return lambda message: tuple(map(read_item, getattr(message, name)))
        case Shape.MAP:
            return lambda message: {key: read_item(item) for key, item in getattr(message, name).items()}
        case Shape.ONE if field.default is None or field.kind is Kind.JSON or field.tag.oneof:
            default = field.default
            return lambda message: read_item(getattr(message, name)) if message.HasField(name) else default
        case Shape.ONE:
            return lambda message: read_item(getattr(message, name))


def _item_reader(field: Field) -> Callable[[Any], Any]:
    if field.message is not None and issubclass(field.message, Opaque):
        made = field.message
        return lambda message: made(message.SerializeToString(deterministic=True))
    if field.message is not None:
        return _message_reader(field.message)
    if field.tag.enum is not None:
        names = field.tag.enum.names
        return lambda number: names[number] if 0 <= number < len(names) else names[0]
    return json_value if field.kind is Kind.JSON else _as_it_is


def json_value(value: Any) -> JsonValue:
    """Return a ``google.protobuf.Value`` as JSON value; one that holds nothing is ``null``."""
    kind = value.WhichOneof("kind")
    return _KINDS[kind](value)


_KINDS: Final[Mapping[str | None, Callable[[Any], JsonValue]]] = {
    None: lambda _: None,
    "null_value": lambda _: None,
    "bool_value": lambda value: value.bool_value,
    "number_value": lambda value: value.number_value,
    "string_value": lambda value: value.string_value,
    "struct_value": lambda value: {
        name: json_value(item) for name, item in value.struct_value.fields.items()
    },
    "list_value": lambda value: [json_value(item) for item in value.list_value.values],
}
