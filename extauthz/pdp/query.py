"""Requests that stand in the query string, as the gateway of Cerbos reads them (grpc-gateway).

A field is given by either of its names, a list by repeating it; names that are no field are left alone, and
messages have no place here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from extauthz.pdp.errors import invalid
from extauthz.pdp.schema import Kind, Shape, message_type, once_per_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from extauthz.pdp.schema import Field

TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
MAX_SHOWN: Final = 64
"""Characters of a faulty value that an error repeats."""

_DIGITS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


def decode(cls: type[Any], query: Mapping[str, Sequence[str]]) -> Any:
    """Read a message from the values of a query; raises :class:`~extauthz.pdp.errors.PdpError`."""
    fields = _fields(cls)
    found = list(cls())
    for name, values in query.items():
        if name in fields:
            index, field = fields[name]
            found[index] = _value(field, values)
    return cls._make(found)


@once_per_class
def _fields(cls: type[Any]) -> dict[str, tuple[int, Field]]:
    fields = enumerate(message_type(cls).fields)
    return {name: (index, field) for index, field in fields for name in (field.name, field.json_name)}


def _value(field: Field, values: Sequence[str]) -> Any:
    read = _READERS[field.kind]
    if field.shape is Shape.LIST:
        return tuple(read(field, value) for value in values)
    if len(values) > 1:
        shown = ", ".join(value[:MAX_SHOWN] for value in values[:3])
        raise invalid(f'too many values for field "{field.name}": {shown}')
    return read(field, values[0])


def _boolean(field: Field, value: str) -> bool:
    if value in TRUE:
        return True
    if value not in FALSE:
        raise _not("Bool", field, value)
    return False


def _unsigned(field: Field, value: str) -> int:
    if not _DIGITS.fullmatch(value) or int(value) >= 1 << 32:
        raise _not("Uint", field, value)
    return int(value)


def _not(kind: str, field: Field, value: str) -> Exception:
    parsing = f'strconv.Parse{kind}: parsing "{value[:MAX_SHOWN]}": invalid syntax'
    return invalid(f'parsing field "{field.name}": {parsing}')


_READERS: Final[Mapping[Kind, Callable[[Field, str], Any]]] = {
    Kind.STRING: lambda _, value: value,
    Kind.BOOL: _boolean,
    Kind.UINT: _unsigned,
}
"""Requests in a query hold nothing else."""
