"""Templates: the parts of answers that a configuration describes, and how a request fills them.

Whatever fails while an answer is filled, it never becomes a more generous one: an allow that cannot be
completed is an error for the caller, a denial goes out without its decoration.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import orjson

from extauthz.response import Allow, Deny, GrpcCode, Header
from extauthz.slots import MISSING, Slot, SlotError
from extauthz.wire import PlainAllow, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.model import JsonValue, Output
    from extauthz.facts import Facts
    from extauthz.reasons import Reason
    from extauthz.response import DecisionMetadata, Metadata

log = logging.getLogger(__name__)

Slots = tuple[tuple[str, Slot], ...]
ALIAS = str.maketrans("_.", "--")
"""``X_User_Id`` reaches many an upstream as the same variable as ``x-user-id`` (RFC 3875 §4.1.18, WSGI)."""

PROBLEM_TYPE = Header("content-type", "application/problem+json")


@dataclass(frozen=True, slots=True)
class OwnedHeaders:
    """The headers that only we may set on a request to the upstream.

    Each one is either set by an answer or removed by it, and so are its aliases: names that differ in ``_``,
    ``.`` and ``-`` only. The plain aliases are removed unseen, because a gateway may be configured to hide
    headers from us; mixed ones when they are seen.
    """

    names: frozenset[str]

    def removals(self, set_by_answer: Iterable[str]) -> tuple[str, ...]:
        """Return what an answer must remove that sets *set_by_answer*, in a fixed order."""
        absent = self.names.difference(set_by_answer)
        aliases = {name.replace("-", mark) for name in self.names for mark in "_."}
        return tuple(sorted(absent | (aliases - self.names)))

    def aliases_in(self, header_names: Sequence[str]) -> list[str]:
        """Return the names in a request that pass for an owned one without being it."""
        together = "".join(header_names)
        if "_" not in together and "." not in together:  # so it is with nearly every request
            return []
        return [
            name for name in header_names if name.translate(ALIAS) in self.names and name not in self.names
        ]


@dataclass(frozen=True, slots=True)
class AllowTemplate:
    """What a route changes about a request that it lets through."""

    owned: OwnedHeaders
    headers: Slots = ()
    response_headers: Slots = ()
    remove_headers: tuple[str, ...] = ()
    set_query: Slots = ()
    remove_query: tuple[str, ...] = ()
    removals: tuple[str, ...] = field(init=False)
    """Header names to remove, whatever the request."""
    plain: PlainAllow | None = field(init=False)
    """Writes most of the answers; None: the route does more than setting headers for the upstream."""
    controlled: frozenset[str] = field(init=False)
    """Query parameters that are ours to set or remove."""

    def __post_init__(self) -> None:
        controlled = frozenset((*self.remove_query, *(name for name, _ in self.set_query)))
        object.__setattr__(self, "controlled", controlled)
        removals = (*self.owned.removals(name for name, _ in self.headers), *self.remove_headers)
        object.__setattr__(self, "removals", tuple(dict.fromkeys(removals)))
        names = [name.lower() for name, _ in self.headers]
        has_more = self.response_headers or controlled or len(set(names)) < len(names)
        headers = [(name, slot.function) for name, slot in self.headers]
        object.__setattr__(self, "plain", None if has_more else PlainAllow(headers, self.removals))

    def write(self, facts: Facts, metadata: DecisionMetadata) -> bytes:
        """Make the answer and serialize it; mostly without making it.

        Raises:
            extauthz.wire.UnsendableError: the answer cannot be sent.
            extauthz.slots.SlotError, AmbiguousQuery: as :meth:`fill`.

        """
        if self.plain is None:
            return encode(self.fill(facts, metadata))
        return self.plain.write(facts, self.owned.aliases_in(facts.request.header_names), metadata)

    def _absent(self, values: Sequence[tuple[str, ...]]) -> list[str]:
        """Return the names of the headers that get no value."""
        return [name for (name, _), texts in zip(self.headers, values, strict=True) if not texts]

    def fill(self, facts: Facts, metadata: Metadata) -> Allow:
        """Make the answer.

        Raises:
            extauthz.slots.SlotError: a slot has no value.
            AmbiguousQuery: what the answer says of the query would not hold for every upstream.

        """
        values = [slot.function(facts) for _, slot in self.headers]
        headers = [
            Header(name, text, append=position > 0)
            for (name, _), texts in zip(self.headers, values, strict=True)
            for position, text in enumerate(texts)
        ]
        aliases = self.owned.aliases_in(facts.request.header_names)
        set_query, remove_query = self._query(facts) if self.controlled else ((), ())
        return Allow(
            headers=tuple(headers),
            # Owned, and not set: the client's own must not get through.
            remove_headers=(*self.removals, *self._absent(values), *aliases),
            response_headers=_filled(self.response_headers, facts) if self.response_headers else (),
            set_query=set_query,
            remove_query=remove_query,
            metadata=metadata,
        )

    def _query(self, facts: Facts) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        """Return the parameters to set and to remove: also one that gets no value, and every alias."""
        values = {name: slot.function(facts) for name, slot in self.set_query}
        absent = [name for name, value in values.items() if value is MISSING]
        aliases = query_aliases(facts.request.query_string, self.controlled)
        kept = tuple((name, value) for name, value in values.items() if value is not MISSING)
        return kept, (*self.remove_query, *absent, *aliases)


class AmbiguousQuery(Exception):  # noqa: N818  # the state
    """The query can be read in two ways, and the route sets or removes parameters of it."""

    reason = "query.ambiguous"


def query_aliases(query: str, names: frozenset[str]) -> list[str]:
    """Return the other spellings of *names* in a query, as they stand there.

    Envoy compares parameter names as they are spelled, an upstream decodes them first: without this,
    ``%72egion=x`` would reach it beside the ``region`` that an answer sets. Upstreams that divide at ``;`` as
    well (old HTML recommendations) would find parameters where Envoy sees none, so such a query is refused.

    Raises:
        AmbiguousQuery: the query has a ``;``, or an escape in a name that cannot be decoded.

    """
    if ";" in query:
        raise AmbiguousQuery("the query has a semicolon")
    spelled = {pair.partition("=")[0] for pair in query.split("&")}
    try:
        return sorted(
            name for name in spelled if name not in names and unquote_plus(name, errors="strict") in names
        )
    except UnicodeDecodeError:
        raise AmbiguousQuery("the query has a parameter name that is not UTF-8") from None


def _filled(slots: Slots, facts: Facts) -> tuple[Header, ...]:
    return tuple(
        [
            Header(name, value, position > 0)
            for name, slot in slots
            for position, value in enumerate(slot.function(facts))
        ]
    )


@dataclass(frozen=True, slots=True)
class ProblemTemplate:
    """A problem document (RFC 9457) whose members a configuration may replace and add to.

    The usual members are ``type``, ``title``, ``status``, and ``detail`` where there is something to say;
    ``reason`` is the stable code and ``decisionId`` leads to the log.
    """

    type_prefix: str = ""
    slots: Slots = ()
    """For ``type``, ``title``, ``detail``, ``instance`` (text) and further members (JSON values)."""

    def fill(self, facts: Facts, reason: Reason, status: int, detail: str) -> str:
        """Write the document; a slot that fails leaves its member as it usually is."""
        document: dict[str, JsonValue] = {
            "type": f"{self.type_prefix}{reason.code}" if self.type_prefix else "about:blank",
            "title": reason.title,
            "status": status,
            "reason": reason.code,
            "decisionId": facts.decision.id,
        }
        if detail:
            document["detail"] = detail
        chosen = {name: value for name, slot in self.slots if (value := _or_none(slot, facts)) is not None}
        try:
            return orjson.dumps({**document, **chosen}).decode()
        except TypeError as error:  # text that is not Unicode
            log.warning("a problem document is sent without its own members: %s", error)
            return orjson.dumps(document).decode()


@dataclass(frozen=True, slots=True)
class DenyTemplate:
    """What a client is told when it is turned away. However a slot fails, the answer stays a denial."""

    status: int = 403
    headers: Slots = ()
    body: Slot | None = None
    problem: ProblemTemplate = field(default_factory=ProblemTemplate)

    def fill(
        self,
        facts: Facts,
        reason: Reason,
        metadata: Metadata,
        *,
        detail: str = "",
        headers: tuple[Header, ...] = (),
    ) -> Deny:
        """Make the answer for *reason*; *headers* are those that the protocol asks for."""
        status = self.status if reason.status == 403 else reason.status
        configured = tuple(
            Header(name, value, append=position > 0)
            for name, slot in self.headers
            for position, value in enumerate(_or_none(slot, facts) or ())
        )
        body = None if self.body is None else _or_none(self.body, facts)
        kind = () if body is not None else (PROBLEM_TYPE,)
        return Deny(
            status=status,
            code=GrpcCode.UNAUTHENTICATED if status == 401 else GrpcCode.PERMISSION_DENIED,
            headers=_without_repeats(configured, (*headers, *kind)),
            body=self.problem.fill(facts, reason, status, detail) if body is None else body,
            metadata=metadata,
        )


def _without_repeats(configured: tuple[Header, ...], usual: tuple[Header, ...]) -> tuple[Header, ...]:
    """Put the usual headers before the configured ones, which replace those of the same name."""
    names = {header.name for header in configured}
    return (*(header for header in usual if header.name not in names), *configured)


def _or_none(slot: Slot, facts: Facts) -> Any:
    """Return the value, or None when there is none: a denial must not fail for its decoration."""
    try:
        value = slot.function(facts)
    except SlotError as error:
        log.warning("a slot of a denial has no value: %s (%s)", error, slot.text)
        return None
    return None if value is MISSING else value


def named_outputs(outputs: Sequence[Output]) -> dict[str, JsonValue]:
    """Give a decision's outputs by name, for slots: by rule, and a map output also by each of its keys.

    The first to use a name keeps it, and the name of a rule goes before a key: rules fire in the order of the
    policy, so this does not vary. Entries that failed are left out.
    """
    if len(outputs) == 1:  # so it is mostly
        ((src, _, value, error),) = outputs
        if not error and not isinstance(value, dict):
            return {src.rpartition("#")[2]: value}
    named: dict[str, JsonValue] = {}
    maps = []
    for src, _, value, error in outputs:
        if not error:
            named.setdefault(src.rpartition("#")[2], value)
            if isinstance(value, dict):
                maps.append(value)
    for value in maps:
        for key, item in value.items():
            named.setdefault(key, item)
    return named
