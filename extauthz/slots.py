"""Slots: the places in the configuration that are filled from a request.

A slot is a literal in which ``{name}`` is a path parameter, or ``{claim: a.b}``, ``{header: x}``, ``{query:
q}``, ``{cookie: c}``, or ``{expr: CEL}``. It is compiled once, when the file is read, to a function of the
request's :class:`Facts`; what can be wrong about it, its type included, is found then.

Nothing is ever silently absent. A claim that a token lacks, a parameter given twice, an expression that
fails: each is a :class:`SlotError`, and no request is let through on one. Where absence is meant to be
possible the slot says so, with ``default``, ``optional: true``, or an optional value in CEL
(``body.?amount``).
"""

from __future__ import annotations

import enum
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.cel import CompileError, Duration, Environment, EvaluationError, Optional, Record, Timestamp
from engine.cel.nodes import Ident, Select
from engine.document import did_you_mean
from engine.outputs import to_json
from extauthz.facts import MAPPING, DecisionFacts, FactError, Facts, PeerFacts

if TYPE_CHECKING:
    from engine.cel import Expression
    from engine.model import JsonValue

__all__ = [
    "MISSING",
    "Absent",
    "AttributeTemplate",
    "DecisionFacts",
    "FactError",
    "Facts",
    "Field",
    "PeerFacts",
    "Scope",
    "Slot",
    "SlotError",
    "SlotFault",
    "Want",
    "compile_slot",
]

CLAIM_MISSING: Final = "mapping.denied"


class SlotFault(ValueError):  # noqa: N818  # a fault is what it is called everywhere
    """A slot as written makes no sense; worded for the author of the configuration."""


class SlotError(ValueError):
    """A slot has no value for this request.

    *reason* is a stable code (:mod:`extauthz.reasons`). The message is for the log: it says what is missing,
    and repeats nothing of the request's but names.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class Missing(enum.Enum):
    """The type of :data:`MISSING`."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""What a slot with :attr:`Want.VALUE` gives for a value that is left out."""


class Scope(enum.Enum):
    """Where a slot stands, which settles what is known when it is filled."""

    IDENTITY = "identity"
    SOURCE = "source"
    ROUTE = "route"
    RESPONSE = "response"


class Want(enum.Enum):
    """What a slot must give."""

    NAME = "text that is not empty"
    TEXT = "text"
    TEXTS = "a list of texts"
    HEADER = "text, or a list of texts"
    """One text for each header line; none for a header that is left out."""
    PARAMETER = "text, or nothing"
    """A query parameter; :data:`MISSING` for one that is left out."""
    VALUE = "a JSON value"
    """An attribute; may be :data:`MISSING`."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a slot looks at that does nothing but look at something: ``claims.sub``, ``query.page``, ...

    *default* is what stands in where it is absent; None: then the slot has no value. Unless it is *exact*, it
    is the slot's value only if it is text.
    """

    variable: str
    name: str
    default: Absent | None = None
    exact: bool = False


class Absent(NamedTuple):
    """What stands in for a value that is not there."""

    value: object


@dataclass(frozen=True, slots=True)
class Slot:
    """A compiled slot: call it with the facts to get its value.

    *text* is the slot as written, *identifiers* are the CEL variables it looks at (``claims``, ``request``,
    ...),
    *parameters* the path parameters. *needs_claims* says that it fails for a principal without claims. A slot
    without identifiers always gives the same value. A slot with a *field* can also be had from that alone.
    """

    text: str
    function: Callable[[Facts], Any]
    identifiers: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    needs_claims: bool = False
    constant: Any = None
    """The value of a slot that is a literal; None for all others, and for the literal ``null``."""
    field: Field | None = None

    def __call__(self, facts: Facts) -> Any:
        """Give the value for this request; raises :class:`SlotError` when there is none."""
        return self.function(facts)


class AttributeTemplate:
    """How attributes are made: records first, then a slot for each name over them."""

    __slots__ = ("_constants", "_varying")

    def __init__(self, slots: Mapping[str, Slot]) -> None:
        self._constants = {name: slot.constant for name, slot in slots.items() if slot.constant is not None}
        self._varying = tuple(
            (name, slot.function) for name, slot in slots.items() if name not in self._constants
        )

    def fill(self, facts: Facts, records: Iterable[Mapping[str, JsonValue]] = ()) -> dict[str, JsonValue]:
        """Make the attributes of one request; those that give :data:`MISSING` are left out.

        Raises:
            SlotError: an attribute has no value.

        """
        attr: dict[str, JsonValue] = {}
        for record in records:
            attr |= record
        attr |= self._constants
        for name, function in self._varying:
            value = function(facts)
            if value is not MISSING:
                attr[name] = value
        return attr


# --- what a slot gives ------------------------------------------------------------------------------------

_EXACT: Final = 2**53 - 1
"""The largest integer that every double up to it is exact for; beyond, Cerbos writes decimal text."""


def _name(value: object) -> str:
    text = _text(value)
    if not text:
        raise _wrong("text that is not empty", "empty text")
    return text


def _text(value: object) -> str:
    """Give a text; a whole number becomes its decimal digits, nothing else is converted."""
    if type(value) is str:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return str(int(value))
    if isinstance(value, Optional):
        return _text(value.value if value.has_value else None)
    raise _wrong("text", _kind(value))


def _texts(value: object) -> tuple[str, ...]:
    """Give texts, each once. One text by itself will do: identity providers write roles both ways."""
    if isinstance(value, Optional):
        value = value.value if value.has_value else None
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple)):
        return tuple(dict.fromkeys(_text(item) for item in value))
    raise _wrong("a list of texts", _kind(value))


def _header(value: object) -> tuple[str, ...]:
    if type(value) is str:
        return (value,)
    if isinstance(value, Optional):
        return _header(value.value) if value.has_value else ()
    if value is None or value is MISSING:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(_header_value(item) for item in value)
    return (_header_value(value),)


def _header_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        return repr(value)
    if isinstance(value, (Timestamp, Duration)):
        return str(value)
    return _text(value)


def _value(value: object) -> Any:
    """Give a JSON value as the engine has them, or :data:`MISSING` for an optional that holds nothing."""
    if isinstance(value, Optional):
        return _value(value.value) if value.has_value else MISSING
    try:
        return to_json(value)
    except EvaluationError as error:
        message = f"the value has no JSON form, in which all keys are strings: {error}"
        raise SlotError(MAPPING, message) from None


def _parameter(value: object) -> Any:
    """Give text, or :data:`MISSING` for an optional that holds nothing."""
    if isinstance(value, Optional):
        return _parameter(value.value) if value.has_value else MISSING
    return _text(value)


_KINDS: Final[Mapping[type, str]] = {
    type(None): "null",
    str: "text",
    bool: "a bool",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a map",
    Optional: "an optional value",
    Timestamp: "a timestamp",
    Duration: "a duration",
    bytes: "bytes",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "something else")


def _wrong(wanted: str, found: str) -> SlotError:
    return SlotError(MAPPING, f"{wanted} is needed, and there is {found}")


MAY_BE_ABSENT: Final = frozenset({Want.HEADER, Want.PARAMETER, Want.VALUE})

CONVERT: Final[Mapping[Want, Callable[[Any], Any]]] = {
    Want.NAME: _name,
    Want.TEXT: _text,
    Want.TEXTS: _texts,
    Want.HEADER: _header,
    Want.PARAMETER: _parameter,
    Want.VALUE: _value,
}


# --- literals ---------------------------------------------------------------------------------------------

_TEMPLATE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


class _Parameter(NamedTuple):
    name: str


def _parts(text: str) -> list[str | _Parameter]:
    """Divide a literal into text and path parameters. ``{{`` and ``}}`` are braces."""
    parts: list[str | _Parameter] = []
    end = 0
    for found in _TEMPLATE.finditer(text):
        if found[1] is None and len(found[0]) == 1:
            raise SlotFault(f"`{text}`: a `{found[0]}` by itself: write `{{name}}`, or `{{{{` for a brace")
        parts.append(text[end : found.start()])
        parts.append(found[0][0] if found[1] is None else _Parameter(found[1]))
        end = found.end()
    return [part for part in (*parts, text[end:]) if part]


def _names(parts: list[str | _Parameter]) -> frozenset[str]:
    return frozenset(part.name for part in parts if isinstance(part, _Parameter))


def _literal_text(text: str, scope: Scope, want: Want) -> Slot:
    parts = _parts(text)
    names = _names(parts)
    if not names:
        return _constant("".join(map(str, parts)), text, want)
    if scope is Scope.IDENTITY:
        raise SlotFault(f"`{text}`: path parameters belong to routes, and who asks does not depend on one")
    only = parts[0] if len(parts) == 1 else None
    field = Field("path", only.name, exact=want in _TEXT) if isinstance(only, _Parameter) else None
    function = _named(field.name) if field and want is Want.NAME else _finished(_joined(parts), want)
    return Slot(text, function, frozenset({"path"}), names, field=field)


def _named(parameter: str) -> Callable[[Facts], str]:
    """Make a function that gives a path parameter as a name: the commonest id, so it is one function."""

    def fill(facts: Facts) -> str:
        return str(facts.path[parameter]) or _name("")

    return fill


def _joined(parts: list[str | _Parameter]) -> Callable[[Facts], str]:
    """Make a function that fills path parameters in."""
    match parts:
        case [_Parameter(name)]:
            return lambda facts: str(facts.path[name])
        case _:
            return lambda facts: "".join(
                str(facts.path[part.name]) if isinstance(part, _Parameter) else part for part in parts
            )


_TEXT: Final = frozenset({Want.TEXT, Want.PARAMETER, Want.VALUE})
"""What any text is as it stands."""


def _finished(get: Callable[[Facts], object], want: Want) -> Callable[[Facts], Any]:
    """Bring what *get* gives into the wanted form."""
    if want in _TEXT:
        return get  # what a literal or a header gives is text already
    convert = CONVERT[want]
    return lambda facts: convert(get(facts))


def _constant(value: object, text: str, want: Want) -> Slot:
    try:
        converted = CONVERT[want](value)
    except SlotError as error:
        raise SlotFault(f"`{text}`: {error}" if text else str(error)) from None
    return Slot(text, lambda _: converted, constant=converted)


def _literal(value: object, scope: Scope, want: Want) -> Slot:
    if isinstance(value, str):
        return _literal_text(value, scope, want)
    if isinstance(value, list):
        return _literal_list(value, scope, want)
    if want in {Want.NAME, Want.TEXT, Want.TEXTS, Want.PARAMETER}:
        raise SlotFault(f"`{_shown(value)}` is not text: write it in quotes if it is meant to be")
    return _constant(value, _shown(value), want)


def _literal_list(items: list[object], scope: Scope, want: Want) -> Slot:
    """Compile a list, which holds slots itself: ``[user, {claim: role}]``."""
    if want in {Want.NAME, Want.TEXT, Want.PARAMETER}:
        raise SlotFault("is a list, and text is needed here")
    members = [compile_slot(item, scope, Want.VALUE if want is Want.VALUE else Want.TEXT) for item in items]
    functions = [member.function for member in members]
    convert = CONVERT[want]
    slot = Slot(
        f"[{', '.join(member.text for member in members)}]",
        lambda facts: convert([value for each in functions if (value := each(facts)) is not MISSING]),
        frozenset().union(*(member.identifiers for member in members)),
        frozenset().union(*(member.parameters for member in members)),
        any(member.needs_claims for member in members),
    )
    return slot if slot.identifiers else _constant(slot(_NO_FACTS), slot.text, want)


_NO_FACTS: Final[Any] = None
"""Constant slots do not look at facts."""


def _shown(value: object) -> str:
    """Write a value as it was in the file."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- forms ------------------------------------------------------------------------------------------------

Get = Callable[[Facts], object]
"""Gives a value of the request, or :data:`MISSING`."""


class _Form(NamedTuple):
    """One way of writing a slot as a mapping of one key."""

    variable: str
    compile: Callable[[Any], Get]
    reason: str
    absent: str
    type: str = "string"
    """The CEL type of what it gives."""


def _claim(argument: object) -> Get:
    """``a.b``, or a list of names for those that have dots in them (``https://example.com/roles``)."""
    steps = _steps(argument)
    return lambda facts: _nested(facts.claims, steps)


def _steps(argument: object) -> list[str]:
    steps = argument.split(".") if isinstance(argument, str) else argument
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step for step in steps):
        raise SlotFault(f"`{argument}` is not the path of a claim: write `a.b`, or a list of names")
    return steps


def _claim_as_it_is(name: str, absent: Absent | None, error: SlotError) -> Callable[[Facts], Any]:
    """Give a claim that needs no conversion: the commonest attribute, so it is one function."""
    reason, message = error.reason, str(error)

    def fill(facts: Facts) -> Any:
        try:
            return facts.claims[name]
        except KeyError:
            if absent is None:
                raise SlotError(reason, message) from None
            return absent.value

    return fill


def _nested(value: object, steps: list[str]) -> object:
    for step in steps:
        if not isinstance(value, Mapping) or step not in value:
            return MISSING
        value = value[step]
    return value


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 §5.6.2


def _request_header(argument: object) -> Get:
    if not isinstance(argument, str) or not _TOKEN.fullmatch(argument):
        raise SlotFault(f"`{argument}` is not a header name")
    name = argument.lower()

    def get(facts: Facts) -> object:
        value = facts.request.header(name)
        if value is None:
            return MISSING
        if len(facts.request.header_values(name)) > 1:
            raise SlotError(MAPPING, f"the header `{name}` is there more than once")
        return value

    return get


def _query_parameter(argument: object) -> Get:
    name = _argument(argument, "the name of a query parameter")
    return lambda facts: _once(facts.query_values.get(name), "query parameter", name)


def _cookie(argument: object) -> Get:
    name = _argument(argument, "the name of a cookie")
    return lambda facts: _once(facts.cookie_values.get(name), "cookie", name)


def _once(values: tuple[str, ...] | None, kind: str, name: str) -> object:
    if values is None:
        return MISSING
    if len(values) > 1:
        raise SlotError(MAPPING, f"the {kind} `{name}` is there more than once")
    return values[0]


def _argument(argument: object, kind: str) -> str:
    if isinstance(argument, str) and argument:
        return argument
    raise SlotFault(f"`{argument}` is not {kind}")


FORMS: Final[Mapping[str, _Form]] = {
    "claim": _Form("claims", _claim, CLAIM_MISSING, "the token has no claim `{}`", "json"),
    "header": _Form("headers", _request_header, MAPPING, "there is no header `{}`"),
    "query": _Form("query", _query_parameter, MAPPING, "there is no query parameter `{}`"),
    "cookie": _Form("cookies", _cookie, MAPPING, "there is no cookie `{}`"),
}
OPTIONS: Final = ("default", "optional")
KEYS: Final = (*FORMS, "expr", *OPTIONS)
_KNOWN: Final = ", ".join(f"`{key}`" for key in (*FORMS, "expr"))


def compile_slot(value: object, scope: Scope, want: Want) -> Slot:
    """Compile a slot as it stands in the file; raises :class:`SlotFault` with all that is wrong with it."""
    if not isinstance(value, dict):
        return _literal(value, scope, want)
    for key in value:
        if key not in KEYS:
            raise SlotFault(f"unknown slot `{key}` ({did_you_mean(str(key), KEYS) or f'there is {_KNOWN}'})")
    forms = [key for key in value if key not in OPTIONS]
    if len(forms) != 1:
        raise SlotFault(f"takes exactly one of {_KNOWN}")
    if forms[0] == "expr":
        return _expression_slot(value, scope, want)
    return _form_slot(forms[0], value, want)


def _form_slot(key: str, value: dict[str, object], want: Want) -> Slot:
    form = FORMS[key]
    argument = value[key]
    name = ".".join(map(str, argument)) if isinstance(argument, list) else str(argument)
    absent = _absent(value, want)
    error = SlotError(form.reason, form.absent.format(name))
    get, convert = form.compile(argument), _conversion(form, want)
    is_claim = key == "claim" and len(_steps(argument)) == 1
    is_simple = is_claim and convert is None
    field = Field(form.variable, name, absent, convert is None) if is_claim or key == "query" else None
    return Slot(
        f"{key} {name}",
        _claim_as_it_is(_steps(argument)[0], absent, error)
        if is_simple
        else _filled(get, absent, error, convert),
        frozenset({form.variable}),
        needs_claims=key == "claim" and absent is None,
        field=field,
    )


def _absent(value: dict[str, object], want: Want) -> Absent | None:
    if "optional" not in value:
        return Absent(_constant(value["default"], "default", want)(_NO_FACTS)) if "default" in value else None
    if "default" in value:
        raise SlotFault("has both `default` and `optional`: keep one of the two")
    if value["optional"] is not True:
        raise SlotFault("`optional` can only be `true`")
    if want not in MAY_BE_ABSENT:
        raise SlotFault(f"cannot be optional: {want.value} is needed here; give a `default`")
    return Absent(() if want is Want.HEADER else MISSING)


def _filled(
    get: Get, absent: Absent | None, error: SlotError, convert: Callable[[Any], Any] | None
) -> Callable[[Facts], Any]:
    reason, message = error.reason, str(error)

    def fill(facts: Facts) -> Any:
        try:
            value = get(facts)
        except FactError as fact:
            raise SlotError(fact.reason, str(fact)) from None
        if value is not MISSING:
            return value if convert is None else convert(value)
        if absent is None:
            raise SlotError(reason, message)
        return absent.value

    return fill


# --- expressions ------------------------------------------------------------------------------------------

_REQUEST: Final = Record(
    "extauthz.Request",
    {
        "id": ("string", "id"),
        "method": ("string", "method"),
        "scheme": ("string", "scheme"),
        "host": ("string", "host"),
        "path": ("string", "path"),
        "rawPath": ("string", "target"),
        "query": ("string", "query_string"),
        "protocol": ("string", "protocol"),
        "size": ("int", "size"),
        "time": ("timestamp", "timestamp"),
    },
)
_PEER: Final = Record(
    "extauthz.Peer",
    {
        "address": ("string", "address"),
        "port": ("int", "port"),
        "principal": ("string", "principal"),
        "trustDomain": ("string", "trust_domain"),
        "namespace": ("string", "namespace"),
        "serviceAccount": ("string", "service_account"),
    },
)
_ROUTE: Final = Record("extauthz.Route", {"id": ("string", "name")})
_ENTITY: Final = {
    "id": ("string", "id"),
    "attr": ("map<string, dyn>", "attr"),
    "policyVersion": ("string", "policy_version"),
    "scope": ("string", "scope"),
}
_PRINCIPAL: Final = Record("extauthz.Principal", {**_ENTITY, "roles": ("list<string>", "roles")})
_RESOURCE: Final = Record("extauthz.Resource", {**_ENTITY, "kind": ("string", "kind")})
_DECISION: Final = Record(
    "extauthz.Decision",
    {name: ("string", name) for name in ("id", "effect", "policy", "scope", "rule")},
)
RECORDS: Final = (_REQUEST, _PEER, _ROUTE, _PRINCIPAL, _RESOURCE, _DECISION)

_OF_REQUEST: Final = {
    "request": _REQUEST.name,
    "query": "map<string, string>",
    "headers": "map<string, string>",
    "cookies": "map<string, string>",
    "claims": "map<string, dyn>",
    "peer": _PEER.name,
    "context": "map<string, string>",
    "metadata": "map<string, map<string, dyn>>",
}
_OF_ROUTE: Final = {**_OF_REQUEST, "path": "map<string, dyn>", "route": _ROUTE.name}
VARIABLES: Final[Mapping[Scope, Mapping[str, str]]] = {
    Scope.IDENTITY: _OF_REQUEST,
    Scope.SOURCE: _OF_ROUTE,
    Scope.ROUTE: {**_OF_ROUTE, "body": "dyn"},
    Scope.RESPONSE: {
        **_OF_ROUTE,
        "body": "dyn",
        "principal": _PRINCIPAL.name,
        "resource": _RESOURCE.name,
        "action": "string",
        "decision": _DECISION.name,
        "outputs": "map<string, dyn>",
        "reason": "string",
    },
}
"""What expressions know, by where they stand, with CEL types."""


@functools.cache
def _environment(scope: Scope) -> Environment:
    return Environment(VARIABLES[scope], records=RECORDS)


def _expression_slot(value: dict[str, object], scope: Scope, want: Want) -> Slot:
    text = value["expr"]
    if not isinstance(text, str) or not text.strip():
        raise SlotFault("`expr` takes an expression, as text")
    for option in OPTIONS:
        if option in value:
            raise SlotFault(
                f"`{option}` is for the other slots; an expression ends with `.orValue(...)`, or is optional"
            )
    try:
        expression = _environment(scope).compile(text)
    except CompileError as error:
        raise SlotFault(f"in the expression `{text}`: " + "; ".join(map(str, error.issues))) from None
    if not _fits(expression.result_type, want):
        raise SlotFault(_unfitting(expression, want))
    return Slot(
        text,
        _evaluated(expression, want),
        expression.identifiers | ({"now"} if expression.uses_now else frozenset()),
        frozenset(steps[1] for steps in expression.references if steps[0] == "path" and len(steps) > 1),
        field=_selected(expression),
    )


def _selected(expression: Expression) -> Field | None:
    """Return the field that an expression is, if it is nothing else: ``principal.id``, ``outputs.reason``."""
    node = expression.nodes
    if not isinstance(node, Select) or node.test_only or not isinstance(node.operand, Ident):
        return None
    return Field(node.operand.name, node.field)


def _evaluated(expression: Expression, want: Want) -> Callable[[Facts], Any]:
    function = expression.function
    convert = _KNOWN_TYPE.get((expression.result_type, want), CONVERT[want])
    text = expression.text

    def evaluate(facts: Facts) -> Any:
        try:
            value = function(facts)
        except FactError as error:
            raise SlotError(error.reason, str(error)) from None
        except EvaluationError as error:
            raise SlotError(MAPPING, f"`{text}`: {error}") from error
        return value if convert is None else convert(value)

    return evaluate


def _conversion(form: _Form, want: Want) -> Callable[[Any], Any] | None:
    return _KNOWN_TYPE.get((form.type, want), CONVERT[want])


_KNOWN_TYPE: Final[Mapping[tuple[str, Want], Callable[[Any], Any] | None]] = {
    ("string", Want.TEXT): None,
    ("string", Want.PARAMETER): None,
    ("string", Want.VALUE): None,
    ("json", Want.VALUE): None,
    ("string", Want.HEADER): lambda value: (value,),
    ("list(string)", Want.HEADER): tuple,
}
"""Conversions for values whose type is settled beforehand, so that nothing is left to ask of the value; None:
it is as it has to be. Claims are JSON values as the engine has them."""


# --- types ------------------------------------------------------------------------------------------------

_TEXT_TYPES: Final = frozenset({"string", "int", "uint", "dyn"})
_TIME_TYPES: Final = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
_HEADER_TYPES: Final = _TEXT_TYPES | _TIME_TYPES | {"double", "bool", "null_type"}
_RECORD_TYPES: Final = frozenset(record.name for record in RECORDS)
_VALUE_TYPES: Final = _HEADER_TYPES | {"bytes"}

SCALARS: Final[Mapping[Want, frozenset[str]]] = {
    Want.NAME: _TEXT_TYPES,
    Want.TEXT: _TEXT_TYPES,
    Want.TEXTS: frozenset({"string", "dyn"}),
    Want.HEADER: _HEADER_TYPES,
    Want.PARAMETER: _TEXT_TYPES,
    Want.VALUE: _VALUE_TYPES,
}
ELEMENTS: Final[Mapping[Want, frozenset[str]]] = {Want.TEXTS: _TEXT_TYPES, Want.HEADER: _HEADER_TYPES}


def _fits(kind: str, want: Want) -> bool:
    """Whether a value of the CEL type *kind* can be what is wanted."""
    name, _, inner = kind.removesuffix(")").partition("(")
    if name == "optional_type":
        return want in MAY_BE_ABSENT and _fits(inner, want)
    if name == "wrapper":
        return _fits(inner, want)
    if name == "list":
        return inner in ELEMENTS[want] if want in ELEMENTS else want is Want.VALUE and _fits(inner, want)
    if name == "map":
        key, _, item = inner.partition(", ")
        return want is Want.VALUE and key in {"string", "dyn"} and _fits(item, want)
    return kind in SCALARS[want] or (want is Want.VALUE and kind in _RECORD_TYPES)


def _unfitting(expression: Expression, want: Want) -> str:
    kind = expression.result_type
    hint = ""
    if kind.startswith("optional_type("):
        hint = ": end it with `.orValue(...)`"
    elif "extauthz." in kind:
        hint = ": select one of its fields"
    return f"the expression `{expression.text}` is of type {kind}, and {want.value} is needed here{hint}"
