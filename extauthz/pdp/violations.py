"""How a refused request is described: ``buf.validate.Violations``, field by field and rule by rule.

Names and numbers are those of https://github.com/bufbuild/protovalidate; clients of Cerbos read them from the
``details`` of an error.
"""

from typing import Annotated, Final, NamedTuple

from extauthz.pdp.schema import EnumType, Field, Kind, Shape, Tag, message

TYPE: Final = EnumType(
    "google.protobuf.FieldDescriptorProto.Type",
    (
        "TYPE_UNSPECIFIED",
        "TYPE_DOUBLE",
        "TYPE_FLOAT",
        "TYPE_INT64",
        "TYPE_UINT64",
        "TYPE_INT32",
        "TYPE_FIXED64",
        "TYPE_FIXED32",
        "TYPE_BOOL",
        "TYPE_STRING",
        "TYPE_GROUP",
        "TYPE_MESSAGE",
        "TYPE_BYTES",
        "TYPE_UINT32",
    ),
)


@message("buf.validate.FieldPathElement")
class FieldPathElement(NamedTuple):
    """One step to a field."""

    field_number: Annotated[int, Tag(1)] = 0
    field_name: Annotated[str, Tag(2)] = ""
    field_type: Annotated[str, Tag(3, enum=TYPE)] = "TYPE_UNSPECIFIED"
    key_type: Annotated[str | None, Tag(4, enum=TYPE, optional=True)] = None
    value_type: Annotated[str | None, Tag(5, enum=TYPE, optional=True)] = None
    index: Annotated[int | None, Tag(6, oneof="subscript", long=True)] = None  # type: ignore[assignment] # the name of the field; nobody looks for an item in a step
    string_key: Annotated[str | None, Tag(10, oneof="subscript")] = None


@message("buf.validate.FieldPath")
class FieldPath(NamedTuple):
    """The way from a message to a field in it."""

    elements: Annotated[tuple[FieldPathElement, ...], Tag(1)] = ()

    def __str__(self) -> str:
        """Write the path as the API's messages do: ``resources[0].attr["x"]``."""
        return ".".join(map(_step, self.elements))


@message("buf.validate.Violation")
class Violation(NamedTuple):
    """A field that does not keep a rule."""

    field: Annotated[FieldPath | None, Tag(5)] = None
    rule: Annotated[FieldPath | None, Tag(6)] = None
    rule_id: Annotated[str, Tag(2)] = ""
    message: Annotated[str, Tag(3)] = ""
    for_key: Annotated[bool | None, Tag(4, optional=True)] = None
    """The key of the map is meant, not its value; None where no map is on the way."""

    def __str__(self) -> str:
        """Say where and what."""
        return f"{self.field}: {self.message}" if self.field is not None else self.message


@message("buf.validate.Violations")
class Violations(NamedTuple):
    """Everything that is wrong with a request."""

    violations: Annotated[tuple[Violation, ...], Tag(1)] = ()

    def __str__(self) -> str:
        """Say everything, as Cerbos says it."""
        if len(self.violations) == 1:
            return f"validation error: {self.violations[0]}"
        return "validation errors:" + "".join(f"\n - {violation}" for violation in self.violations)


def _step(element: FieldPathElement) -> str:
    if element.index is not None:
        return f"{element.field_name}[{element.index}]"
    if element.string_key is not None:
        return f"{element.field_name}[{quoted(element.string_key)}]"
    return element.field_name


def quoted(text: str) -> str:
    """Put *text* in quotes as Go does with ``%q``."""
    return f'"{"".join(map(_shown, text))}"'


def _shown(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else _escaped(char)


_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# --- where --------------------------------------------------------------------------------------------------

_TYPES: Final = {
    Kind.STRING: "TYPE_STRING",
    Kind.BYTES: "TYPE_BYTES",
    Kind.BOOL: "TYPE_BOOL",
    Kind.INT: "TYPE_INT32",
    Kind.UINT: "TYPE_UINT32",
    Kind.LONG: "TYPE_UINT64",
    Kind.JSON: "TYPE_MESSAGE",
    Kind.MESSAGE: "TYPE_MESSAGE",
}


def element(field: Field, key: int | str | None = None) -> FieldPathElement:
    """Make the step to *field*, or to the item or entry *key* of it."""
    if field.shape is not Shape.MAP:
        return FieldPathElement(
            field.tag.number, field.name, _TYPES[field.kind], index=key if isinstance(key, int) else None
        )
    made = FieldPathElement(field.tag.number, field.name, "TYPE_MESSAGE")
    if isinstance(key, str):
        made = made._replace(key_type="TYPE_STRING", value_type=_TYPES[field.kind], string_key=key)
    return made


# --- which rule -------------------------------------------------------------------------------------------

_REQUIRED: Final = FieldPathElement(25, "required", "TYPE_BOOL")
_STRING: Final = FieldPathElement(14, "string", "TYPE_MESSAGE")
_REPEATED: Final = FieldPathElement(18, "repeated", "TYPE_MESSAGE")
_MAP: Final = FieldPathElement(19, "map", "TYPE_MESSAGE")
_ITEMS: Final = FieldPathElement(4, "items", "TYPE_MESSAGE")
_KEYS: Final = FieldPathElement(4, "keys", "TYPE_MESSAGE")
_MIN_LEN: Final = FieldPathElement(2, "min_len", "TYPE_UINT64")
_MAX_LEN: Final = FieldPathElement(3, "max_len", "TYPE_UINT64")
_BYTES: Final = FieldPathElement(15, "bytes", "TYPE_MESSAGE")


class Rule(NamedTuple):
    """A rule of the API: its path in the options of a field, and its id."""

    path: FieldPath
    id: str


REQUIRED: Final = Rule(FieldPath((_REQUIRED,)), "required")
MIN_LENGTH: Final = Rule(FieldPath((_STRING, _MIN_LEN)), "string.min_len")
MAX_LENGTH: Final = Rule(FieldPath((_STRING, _MAX_LEN)), "string.max_len")
MIN_BYTES: Final = Rule(FieldPath((_BYTES, _MIN_LEN)), "bytes.min_len")
ITEM_MAX_LENGTH: Final = Rule(FieldPath((_REPEATED, _ITEMS, _STRING, _MAX_LEN)), "string.max_len")
ITEM_MIN_LENGTH: Final = Rule(FieldPath((_REPEATED, _ITEMS, _STRING, _MIN_LEN)), "string.min_len")
KEY_MIN_LENGTH: Final = Rule(FieldPath((_MAP, _KEYS, _STRING, _MIN_LEN)), "string.min_len")
PATTERN: Final = Rule(FieldPath((_STRING, FieldPathElement(6, "pattern", "TYPE_STRING"))), "string.pattern")
CHOICES: Final = Rule(FieldPath((_STRING, FieldPathElement(10, "in", "TYPE_STRING"))), "string.in")
MIN_ITEMS: Final = Rule(
    FieldPath((_REPEATED, FieldPathElement(1, "min_items", "TYPE_UINT64"))), "repeated.min_items"
)
MAX_ITEMS: Final = Rule(
    FieldPath((_REPEATED, FieldPathElement(2, "max_items", "TYPE_UINT64"))), "repeated.max_items"
)
UNIQUE: Final = Rule(FieldPath((_REPEATED, FieldPathElement(3, "unique", "TYPE_BOOL"))), "repeated.unique")
