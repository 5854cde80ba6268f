"""The JSON form of messages (https://protobuf.dev/programming-guides/json/), bounded against hostile text.

A text is first read strictly (:mod:`extauthz.strict_json`), then put into messages by their declarations.
What cannot be put into them is refused with the words of Go's ``protojson``, which clients of Cerbos know;
only then is the text looked at again, for the line and column.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from extauthz import strict_json
from extauthz.pdp.positions import Spot, spot
from extauthz.pdp.schema import Field, Kind, Opaque, Shape, message_type, once_per_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.model import JsonValue

    Reader = Callable[[Any], Any]
    Writer = Callable[[Any], Any]

MAX_VALUES: Final = 200_000
"""Values, names and items in one text. 4 MiB of JSON can hold two million, which take seconds to look at."""
MAX_SHOWN: Final = 64
"""Characters of a faulty value that an error repeats."""
EXACT: Final = 2.0**53
"""Whole numbers below are written without fraction, as Go and JavaScript write them."""


class FormatError(ValueError):
    """A JSON value that is not the form of the message; *path* leads to it from the outermost value."""

    def __init__(self, problem: str, *, of_name: bool = False) -> None:
        """*problem* may hold ``{token}`` for the text of the value.

        *of_name*: the name of a member is meant, not its value.
        """
        self.problem = problem
        self.of_name = of_name
        self.path: list[str | int] = []
        super().__init__(problem)


# --- reading ----------------------------------------------------------------------------------------------


def decode(cls: type[Any], text: bytes) -> Any:
    """Read a message from *text*; an empty text is an empty message, as for Cerbos.

    The caller bounds the size. Raises :class:`FormatError`, worded for the client.
    """
    if not text or text.isspace():
        return cls()
    _check_size(text)
    try:
        value = strict_json.parse(text)
    except strict_json.StrictJsonError as error:
        raise FormatError(f"proto: syntax error: {error}") from None
    try:
        return read(cls, value)
    except FormatError as error:
        raise FormatError(_told(error, text)) from None


def read(cls: type[Any], value: JsonValue) -> Any:
    """Put a JSON value, numbers as ``float``, into a message; raises :class:`FormatError`."""
    return _message_reader(cls)(value)


_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def _check_size(text: bytes) -> None:
    """Refuse a text with too many values, before anything is made of them."""
    if _values(text) > MAX_VALUES and _values(_STRINGS.sub(b"", text)) > MAX_VALUES:
        raise FormatError(f"proto: more than {MAX_VALUES} values")


def _values(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _told(error: FormatError, text: bytes) -> str:
    """Word a problem as ``protojson`` does, with its place in the text."""
    found: Spot = spot(text, error.path, of_name=error.of_name)
    prefix = "syntax error " if error.problem.startswith("unexpected") else ""
    token = found.token if len(found.token) <= MAX_SHOWN else found.token[:MAX_SHOWN] + "..."
    return f"proto: {prefix}(line {found.line}:{found.column}): {error.problem.format(token=token)}"


_UNEXPECTED: Final = "unexpected token {token}"


@once_per_class
def _message_reader(cls: type[Any]) -> Reader:
    """Make the function that reads one kind of message."""
    fields = message_type(cls).fields
    defaults = [field.default for field in fields]
    known = {name: index for index, field in enumerate(fields) for name in (field.name, field.json_name)}
    readers: list[Reader] = []

    def read_message(value: Any) -> Any:
        if type(value) is not dict:
            raise FormatError(_UNEXPECTED)
        if not readers:  # not before: a message may hold messages of its own kind
            readers.extend(map(_field_reader, fields))
        found, seen = defaults.copy(), set()
        for name, item in value.items():
            index = known.get(name)
            if index is None or index in seen:
                problem = "unknown" if index is None else "duplicate"
                raise _at(name, FormatError(f"{problem} field {{token}}", of_name=True))
            seen.add(index)
            try:
                found[index] = readers[index](item)
            except FormatError as error:
                raise _at(name, error) from None
        return cls(*found)

    return read_message


def _at(step: str | int, error: FormatError) -> FormatError:
    error.path.insert(0, step)
    return error


def _field_reader(field: Field) -> Reader:
    """Make the reader of a field; ``null`` stands for its default, except where it is a value itself."""
    read_value = _READERS[field.shape](field, _item_reader(field))
    if field.kind is Kind.JSON and field.shape is Shape.ONE:
        return read_value
    return lambda value: field.default if value is None else read_value(value)


def _item_reader(field: Field) -> Reader:
    if field.message is not None and issubclass(field.message, Opaque):
        return _opaque_reader(field.message)
    if field.message is not None:
        return _message_reader(field.message)
    if field.kind is Kind.JSON:
        return lambda value: value
    problem = f"invalid value for {field.kind.value} field {field.json_name}: {{token}}"
    if field.kind is Kind.BYTES:
        return lambda value: _bytes(value, problem)
    accepts = _ACCEPTED[field.kind]

    def read_scalar(value: Any) -> Any:
        if type(value) is not accepts:
            raise FormatError(problem)
        return value

    return read_scalar


_ACCEPTED: Final = {Kind.STRING: str, Kind.BOOL: bool}
"""Requests hold no other scalars."""


def _opaque_reader(cls: type[Opaque]) -> Reader:
    def read_opaque(value: Any) -> Opaque:
        if type(value) is not dict:
            raise FormatError(_UNEXPECTED)
        try:
            return cls.from_json(value)
        except ValueError as error:
            raise FormatError(str(error).replace("{", "{{").replace("}", "}}")) from None

    return read_opaque


def _bytes(value: Any, problem: str) -> bytes:
    """Read base64, in either alphabet and with or without padding (protobuf's JSON mapping)."""
    if type(value) is not str:
        raise FormatError(problem)
    text = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(problem) from None


def _one_reader(_: Field, read_item: Reader) -> Reader:
    return read_item


def _list_reader(_: Field, read_item: Reader) -> Reader:
    def read_list(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise FormatError(_UNEXPECTED)
        found = []
        for item in value:
            try:
                found.append(read_item(item))
            except FormatError as error:
                raise _at(len(found), error) from None
        return tuple(found)

    return read_list


def _map_reader(field: Field, read_item: Reader) -> Reader:
    as_it_is = field.kind is Kind.JSON

    def read_map(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise FormatError(_UNEXPECTED)
        if as_it_is:
            return value
        found = {}
        for name, item in value.items():
            try:
                found[name] = read_item(item)
            except FormatError as error:
                raise _at(name, error) from None
        return found

    return read_map


_READERS: Final[Mapping[Shape, Callable[[Field, Reader], Reader]]] = {
    Shape.ONE: _one_reader,
    Shape.LIST: _list_reader,
    Shape.MAP: _map_reader,
}


# --- writing ----------------------------------------------------------------------------------------------


def encode(message: Any, *, pretty: bool = False) -> bytes:
    """Write a message as JSON text."""
    return dump(write(message), pretty=pretty)


def dump(document: JsonValue, *, pretty: bool = False) -> bytes:
    """Write a JSON value as text."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 if pretty else None)


def write(message: Any) -> dict[str, JsonValue]:
    """Make the JSON form of a message: fields with their default values are left out."""
    return _message_writer(type(message))(message)


@once_per_class
def _message_writer(cls: type[Any]) -> Callable[[Any], dict[str, JsonValue]]:
    fields = message_type(cls).fields
    writers: list[tuple[int, str, Any, Writer | None]] = []

    def write_message(message: Any) -> dict[str, JsonValue]:
        if not writers:
            writers.extend(
                (index, field.json_name, field.default, _field_writer(field))
                for index, field in enumerate(fields)
            )
        found = {}
        for index, name, default, write_value in writers:
            value = message[index]
            if value is default or value == default:
                continue
            found[name] = value if write_value is None else write_value(value)
        return found

    return write_message


def _field_writer(field: Field) -> Writer | None:
    """Make the writer of a field; None when its value is its own JSON form."""
    write_item = _item_writer(field)
    match field.shape:
        case _ if write_item is None:
            return None
        case Shape.ONE:
            return write_item
        case Shape.LIST:
            return lambda items: [write_item(item) for item in items]
        case Shape.MAP:
            return lambda entries: {name: write_item(item) for name, item in entries.items()}


def _item_writer(field: Field) -> Writer | None:
    if field.message is not None and issubclass(field.message, Opaque):
        return _opaque_written
    if field.message is not None:
        return _message_writer(field.message)
    return _ITEM_WRITERS.get(field.kind)


def _opaque_written(value: Opaque) -> JsonValue:
    return value.to_json()


def _long(number: int) -> str:
    return str(number)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _written_value(value: JsonValue) -> JsonValue:
    """Write whole numbers without a fraction; values come from the engine, which bounds their depth."""
    match value:
        case float():
            return int(value) if value.is_integer() and abs(value) < EXACT else value
        case dict():
            return {name: _written_value(item) for name, item in value.items()}
        case list():
            return [_written_value(item) for item in value]
        case _:
            return value


_ITEM_WRITERS: Final[Mapping[Kind, Writer]] = {
    Kind.JSON: _written_value,
    Kind.LONG: _long,
    Kind.BYTES: _base64,
}
"""The rest is its own JSON form."""
