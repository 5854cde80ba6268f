"""What goes into a check and what comes out: frozen values without behaviour.

They are named tuples, because several are made for each request: a frozen dataclass takes three times as
long.

Attribute values are JSON values: ``None``, ``bool``, ``float``, ``str``, lists and string-keyed dicts.
Numbers are always ``float``, as in Cerbos, whose attributes travel as protobuf ``Value``;
:func:`json_value` converts what Python code has at hand.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

JsonValue = Any
"""``None``, ``bool``, ``float``, ``str``, a ``list`` or a string-keyed ``dict`` of such values."""

EMPTY: Mapping[str, JsonValue] = MappingProxyType({})

NO_MATCH = "NO_MATCH"
"""The matched policy when no policy had anything to say (Cerbos's word)."""

Evaluation = Literal["lenient", "strict", "safe"]
"""What a condition that fails at run time means.

``lenient``: it is false, as Cerbos decides by default; a rule that denies is then skipped.
``strict``: the action is denied at once, as Cerbos decides with ``strictEvaluation``.
``safe``: a rule that allows does not grant, a rule that denies does deny.
"""


class Effect(enum.Enum):
    """What a rule or a decision says."""

    ALLOW = "EFFECT_ALLOW"
    DENY = "EFFECT_DENY"


class Principal(NamedTuple):
    """Who asks: an id, roles, attributes (policies read *attr* as it is: give a ``dict``)."""

    id: str
    roles: tuple[str, ...]
    attr: Mapping[str, JsonValue] = EMPTY
    policy_version: str = ""
    scope: str = ""


class Resource(NamedTuple):
    """What is asked for: a kind, an id, attributes (policies read *attr* as it is: give a ``dict``)."""

    kind: str
    id: str
    attr: Mapping[str, JsonValue] = EMPTY
    policy_version: str = ""
    scope: str = ""


class AuxData(NamedTuple):
    """Verified facts beside principal and resource.

    *jwt* holds the claims of one token, *jwts* several tokens by name, each ``{"claims": {...}}``.
    """

    jwt: Mapping[str, JsonValue] = EMPTY
    jwts: Mapping[str, Mapping[str, JsonValue]] = EMPTY


NO_AUX_DATA = AuxData()


class CheckInput(NamedTuple):
    """A question: whether *principal* may do each of *actions* to *resource*."""

    principal: Principal
    resource: Resource
    actions: tuple[str, ...]
    aux_data: AuxData = NO_AUX_DATA
    request_id: str = ""


class ActionDecision(NamedTuple):
    """The answer for one action.

    *policy* is the key of the policy that decided (``resource.expense.vdefault``) or ``NO_MATCH``; *scope*
    the scope whose rule decided; *rule* the name of that rule, empty when none matched.
    """

    effect: Effect
    policy: str
    scope: str = ""
    rule: str = ""


class Output(NamedTuple):
    """What a rule's ``output`` expression said: a JSON value, or the error that kept it from having one."""

    src: str
    action: str
    value: JsonValue = None
    error: str = ""


class EvaluationError(NamedTuple):
    """A condition or variable that failed at run time.

    *place* is ``file:line:column`` of the expression in the policy; *excerpt* shows the expression with the
    failing part underlined.
    """

    expression: str
    message: str
    place: str = ""
    excerpt: str = ""


class ValidationError(NamedTuple):
    """A value that does not keep to the schema of its policy.

    *path* is a JSON pointer to the value (``/`` is the whole of the attributes); *source* says whose
    attributes these are, ``SOURCE_PRINCIPAL`` or ``SOURCE_RESOURCE``.
    """

    path: str
    message: str
    source: str


class Decision(NamedTuple):
    """The answer to a :class:`CheckInput`, action by action, with everything the rules had to say.

    *effective_policies* are the keys of the policies that have a rule for what was asked and were looked at
    before the answer was clear, sorted: the trail that an audit log wants.
    """

    actions: Mapping[str, ActionDecision]
    outputs: tuple[Output, ...] = ()
    effective_derived_roles: tuple[str, ...] = ()
    evaluation_errors: tuple[EvaluationError, ...] = ()
    validation_errors: tuple[ValidationError, ...] = ()
    effective_policies: tuple[str, ...] = ()


def json_value(value: object) -> JsonValue:
    """Convert plain Python data to attribute values: every number a ``float``, every sequence a ``list``.

    Raises:
        TypeError: a value that JSON does not know, or a key that is not a string.

    """
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, int):
        return float(value)
    if isinstance(value, Mapping):
        return {_json_key(key): json_value(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [json_value(item) for item in value]
    raise TypeError(f"`{type(value).__name__}` is not a JSON value")


def _json_key(key: object) -> str:
    if isinstance(key, str):
        return key
    raise TypeError(f"an attribute name must be a string, not `{type(key).__name__}`")
