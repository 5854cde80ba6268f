"""The short way: one function for each route, which answers what nearly always comes, and nothing else.

A request that has its route goes through steps that are the same for all routes: who asks, what is asked for,
the decision, the answer. Of these steps a function is written for each route, as the configuration has them:
what is constant is there already, what a slot merely looks at is looked at in line, and there is no loop.

It answers only where nothing is out of the ordinary: the token is remembered, the engine has a function for
the question, every slot has a value, the answer can be sent. Where anything is not so it gives None, or
raises whatever it may, and the steps of :mod:`extauthz.authorizer` are taken from the start: what such a
thing means is decided there and nowhere else. So a short way never refuses, and whatever it answers is, but
for the decision's id, what the steps would have answered.

The text of a function has only names of ours in it: everything that a configuration says is bound to a name.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engine.model import Effect, Resource
from extauthz import wire
from extauthz.facts import DecisionFacts, Facts, parse_query
from extauthz.request import COMMON_METHODS
from extauthz.slots import MISSING, Absent, Field
from extauthz.templates import named_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.model import AuxData, Decision, Principal
    from extauthz.authorizer import Route
    from extauthz.identity import Identified
    from extauthz.request import HttpRequest
    from extauthz.slots import Slot

    ShortWay = Callable[[HttpRequest, str, str], bytes | None]
    """Answers a request, given what the path's capture holds, and an id."""

logger = logging.getLogger(__name__)

ALLOWED: Final = "policy.allowed"


class Unsuitable(Exception):  # noqa: N818  # not an error: the steps answer
    """There is no short way for a route."""


@dataclass(frozen=True, slots=True)
class Deciding:
    """What the functions of all routes have in common."""

    check: Callable[[Principal, Resource, str, AuxData], Decision | None]
    """See :meth:`engine.Engine.check_usual`."""
    anonymous: Identified
    answer: Callable[[Facts, Route, str, Decision], bytes]
    """Answers as a decision says, for facts that are complete but for it."""
    answered: dict[str, int]
    """Answers given, by reason."""


def short_way(route: Route, deciding: Deciding) -> ShortWay | None:
    """Write the function of a route; None when its requests have to be answered step by step."""
    try:
        return _Writing(route, deciding).function()
    except Unsuitable:
        return None
    except Exception:  # a bug of ours must cost no more than time
        logger.exception("no short way for the route `%s`", route.name)
        return None


class _Writing:
    """One function while it is written."""

    def __init__(self, route: Route, deciding: Deciding) -> None:
        self._route = route
        self._deciding = deciding
        self._lines: list[str] = []
        self._bound_to: dict[int, str] = {}
        self._names: dict[str, Any] = {
            "DecisionFacts": DecisionFacts,
            "Facts": Facts,
            "named_outputs": named_outputs,
        }
        self._has_facts = False
        self._known: set[str] = set()
        """The variables of expressions that ``facts`` has so far."""
        self._has_query = self._has_outputs = False

    def function(self) -> ShortWay:
        """Write it all.

        Raises:
            Unsuitable: the route does what a short way does not do.

        """
        self._identify()
        self._act()
        self._fill_resource()
        self._decide()
        self._answer()
        body = "\n    ".join(self._lines)
        text = f"def short_way(request, captured, decision_id):\n    {body}\n"
        exec(compile(text, f"<short way of {self._route.name!r}>", "exec"), self._names)  # noqa: S102  # text of ours
        made: ShortWay = self._names["short_way"]
        return made

    # --- writing

    def _add(self, *lines: str) -> None:
        self._lines += lines

    def _give_up_if(self, test: str) -> None:
        self._add(f"if {test}: return None")

    def _bound(self, value: object) -> str:
        """Return the name by which the function knows *value*, one for each object."""
        name = self._bound_to.setdefault(id(value), f"c{len(self._names)}")
        self._names[name] = value  # which keeps the id from being given to another object
        return name

    def _fresh(self) -> str:
        return f"v{len(self._lines)}"

    # --- who asks

    def _identify(self) -> None:
        identity = self._route.identity
        if identity is None:
            self._add(f"identified = {self._bound(self._deciding.anonymous)}")
        elif identity.only_header is None:
            self._needs_facts()
            identify = self._bound(identity.identify)
            self._add(f"identified = {identify}(facts, {self._bound(self._route.anonymous_allowed)})")
        else:
            self._add(f"text = request.plain_headers.get({self._bound(identity.only_header)})")
            self._give_up_if("text is None")
            self._add(f"identified = {self._bound(identity.known)}(text)")
            self._give_up_if("identified is None")
        self._add("principal = identified.principal", "claims = identified.claims")

    # --- what is asked for

    def _act(self) -> None:
        """Add the action: by method, where the method alone settles it."""
        methods = self._route.pattern.methods or COMMON_METHODS
        slots = {method: self._route.action_of(method) for method in methods}
        actions = {
            method: slot.constant
            for method, slot in slots.items()
            if isinstance(slot.constant, str) and len(slot.constant) <= wire.MAX_CACHED
        }
        if not actions:
            raise Unsuitable
        if len(actions) == len(slots) and len(set(actions.values())) == 1:
            self._add(f"action = {self._bound(next(iter(actions.values())))}")
        else:
            self._add(f"action = {self._bound(actions)}[request.method]")

    def _fill_resource(self) -> None:
        template = self._route.resource
        if template is None or template.sources:
            raise Unsuitable
        kind, identifier = self._text(template.kind, empty=False), self._text(template.id, empty=False)
        attr = self._attributes(template.attr)
        version, scope = self._text(template.policy_version), self._text(template.scope)
        self._add(
            f"resource = {self._bound(tuple.__new__)}({self._bound(Resource)}, "
            f"({kind}, {identifier}, {attr}, {version}, {scope}))"
        )

    def _attributes(self, slots: Mapping[str, Slot]) -> str:
        constants = {name: slot.constant for name, slot in slots.items() if slot.constant is not None}
        items = [f"{self._bound(name)}: {self._bound(value)}" for name, value in constants.items()]
        later = []
        for name, slot in slots.items():
            if name in constants:
                continue
            value, may_be_missing = self._value(slot)
            if may_be_missing:
                later.append(f"if {value} is not {self._bound(MISSING)}: attr[{self._bound(name)}] = {value}")
            else:
                items.append(f"{self._bound(name)}: {value}")
        self._add(f"attr = {{{', '.join(items)}}}", *later)
        return "attr"

    # --- slots

    def _called(self, slot: Slot) -> str:
        """Add the call of a slot's own function, after what it looks at is known; return its variable."""
        self._needs_facts()
        self._tell(slot.identifiers)
        name = self._fresh()
        self._add(f"{name} = {self._bound(slot.function)}(facts)")
        return name

    def _needs_facts(self) -> None:
        if not self._has_facts:
            self._has_facts = True
            self._add(FACTS)

    def _tell(self, variables: frozenset[str]) -> None:
        """Let ``facts`` have what expressions look at, unless it finds that by itself."""
        if "outputs" in variables:
            self._needs_outputs()
        self._add(*map(self._told, sorted(variables & _TOLD.keys() - self._known)))
        self._known |= variables

    def _told(self, variable: str) -> str:
        """Return the line by which ``facts`` come to have what a variable stands for."""
        limit = str(self._route.max_body_bytes)
        return _TOLD[variable].format(path=self._path(), route=self._bound(self._route), limit=limit)

    def _path(self) -> str:
        names = self._route.pattern.path.names
        return f"{{{self._bound(names[0])}: captured}}" if len(names) == 1 else self._bound({})

    def _text(self, slot: Slot, *, empty: bool = True) -> str:
        """Return what stands for the value of a slot that gives text."""
        if slot.constant is not None:
            return self._bound(slot.constant)
        looked_at = self._looked_at(slot.field)
        if looked_at is None:
            return self._called(slot)
        value, is_text = looked_at
        if not is_text:
            self._give_up_if(f"type({value}) is not str")
        if not empty:
            self._give_up_if(f"not {value}")
        return value

    def _value(self, slot: Slot) -> tuple[str, bool]:
        """Return what stands for an attribute, and whether it may be :data:`MISSING`."""
        field = slot.field
        looked_at = self._looked_at(field) if field is not None and field.exact else None
        if field is None or looked_at is None:
            return self._called(slot), True
        return looked_at[0], field.default == Absent(MISSING)

    def _looked_at(self, field: Field | None) -> tuple[str, bool] | None:
        """Return what stands for a field, and whether it is surely text; None: the slot has to be called."""
        if field is None:
            return None
        match field.variable, field.name:
            case "path", name if self._route.pattern.path.names == (name,):
                return "captured", True
            case "principal", "id":
                return "principal.id", True
            case "claims", name if field.exact or field.default is None:
                return self._claim(name, field.default), False
            case "query", name if field.exact or field.default is None:
                return self._query(name, field.default), field.default is None
            case "outputs", name:
                self._needs_outputs()
                value = self._fresh()
                self._add(f"{value} = outputs[{self._bound(name)}]")
                return value, False
        return None

    def _claim(self, name: str, default: Absent | None) -> str:
        value, claim = self._fresh(), self._bound(name)
        if default is None:
            self._add(f"{value} = claims[{claim}]")
        else:
            self._add(f"{value} = claims.get({claim}, {self._bound(default.value)})")
        return value

    def _query(self, name: str, default: Absent | None) -> str:
        if not self._has_query:
            self._has_query = True
            self._add(f"query = {self._bound(parse_query)}(request.query_string)")
        value = self._fresh()
        self._add(f"{value} = query.get({self._bound(name)})")
        absent = "return None" if default is None else f"{value} = {self._bound(default.value)}"
        self._add(
            f"if {value} is None: {absent}",
            f"elif len({value}) == 1: {value} = {value}[0]",
            "else: return None",
        )
        return value

    def _needs_outputs(self) -> None:
        if not self._has_outputs:
            self._has_outputs = True
            self._add("outputs = named_outputs(decision.outputs)")

    # --- the decision and the answer

    def _decide(self) -> None:
        check = self._bound(self._deciding.check)
        self._add(f"decision = {check}(principal, resource, action, identified.aux_data)")
        self._give_up_if("decision is None")

    def _answer(self) -> None:
        """Add the answer: an allow that only sets and removes headers is written here."""
        plain = self._route.allow.plain
        if plain is None:
            self._add(*self._finished())
            return
        self._add("effect, policy, scope, rule = decision.actions[action]")
        self._add(
            f"if effect is not {self._bound(Effect.ALLOW)}:", *(f"    {line}" for line in self._finished())
        )
        self._give_up_if("not request.plain_names")  # so it has no alias of an owned header
        self._add("content = absent = b''")
        for name, slot in self._route.allow.headers:
            self._header(name, slot)
        route, reason = self._bound(self._route.name), self._bound(ALLOWED)
        around = f"{self._bound(wire.around_decision)}(len(decision_id), {route}, action, {reason}, policy)"
        self._add(
            f"content += {self._bound(plain.removals)} + absent",
            f"before, after = {around}",
            f"opening = {self._bound(wire.ALLOWED_OK)}[len(content)]",
            f"{self._bound(self._deciding.answered)}[{reason}] += 1",
            "return opening + content + before + decision_id.encode() + after",
        )

    def _finished(self) -> list[str]:
        """Return the lines that leave the answer to the steps, with all that is known by now."""
        answer, route = self._bound(self._deciding.answer), self._bound(self._route)
        return [
            *(() if self._has_facts else (FACTS,)),
            *map(self._told, BEFORE_DECISION),
            f"return {answer}(facts, {route}, decision_id, decision)",
        ]

    def _header(self, name: str, slot: Slot) -> None:
        """Add a header: each with its values is remembered as the bytes that it becomes."""
        bound, write = self._bound(name), self._bound(wire.upstream_header)
        looked_at = self._looked_at(slot.field)
        if looked_at is not None:
            value, is_text = looked_at
            unfit = "" if is_text else f"type({value}) is not str or "
            self._give_up_if(f"{unfit}len({value}) > {wire.MAX_CACHED:d}")
            self._add(f"content += {write}({bound}, ({value},))")
            return
        texts = "principal.roles" if slot.field == Field("principal", "roles") else self._called(slot)
        self._give_up_if(f"len(','.join({texts})) > {wire.MAX_CACHED:d}")
        self._add(
            f"if {texts}: content += {write}({bound}, {texts})",
            f"else: absent += {self._bound(wire.removal(name))}",
        )


FACTS: Final = "facts = Facts(request)"
BEFORE_DECISION: Final = ("action", "body", "claims", "path", "principal", "resource", "route")
_TOLD: Final = {
    "action": "facts.action = action",
    "body": "facts.max_body_bytes = {limit}",
    "claims": "facts.claims = claims",
    "decision": f"facts.decision = DecisionFacts(decision_id, {Effect.ALLOW.value!r}, policy, scope, rule)",
    "outputs": "facts.outputs = outputs",
    "path": "facts.path = {path}",
    "principal": "facts.principal = principal",
    "reason": f"facts.reason = {ALLOWED!r}",
    "resource": "facts.resource = resource",
    "route": "facts.route = {route}",
}
"""How the facts come to have what expressions look at."""
