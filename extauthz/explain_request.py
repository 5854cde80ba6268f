"""The request of ``extauthz explain``: the body of CheckResources as YAML or JSON, with claims for tokens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.document import DocumentError, Fault, parse
from engine.fields import (
    Entries,
    Field,
    Many,
    Message,
    Reading,
    boolean,
    describe,
    json,
    not_empty,
    some_text,
    text,
    unique,
)
from engine.model import NO_AUX_DATA, AuxData, CheckInput, Principal, Resource
from engine.verify.loading import AUX_DATUM, PRINCIPAL, RESOURCE
from extauthz import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.document import Document, Path


class Entry(NamedTuple):
    """One resource, and the actions to decide on it."""

    actions: tuple[str, ...]
    resource: Resource


class ExplainRequest(NamedTuple):
    """What is asked."""

    principal: Principal
    resources: tuple[Entry, ...]
    request_id: str = ""
    include_meta: bool = False
    aux_data: AuxData = NO_AUX_DATA
    request_context: object = None
    """For audit logs; nothing here heeds it."""

    @property
    def questions(self) -> list[CheckInput]:
        """One question for each resource."""
        return [
            CheckInput(self.principal, entry.resource, entry.actions, self.aux_data, self.request_id)
            for entry in self.resources
        ]


def read_request(content: bytes, file: str) -> ExplainRequest:
    """Read a request; *file* is what faults call it.

    Raises:
        DocumentError: with every fault, in order.

    """
    document = _parsed(content, file)
    if not isinstance(document.value, dict):
        raise DocumentError([_no_request(document)])
    reading = Reading(document)
    found: ExplainRequest | None = REQUEST(reading, document.value, ())
    if found is None:
        raise DocumentError(reading.faults)
    return found


def _parsed(content: bytes, file: str) -> Document:
    try:
        return parse(content, file)
    except DocumentError:
        joined = _joined(content)
        if joined == content:
            raise
        return parse(joined, file)


def _joined(content: bytes) -> bytes:
    """Write characters that JSON escapes in two halves (RFC 8259 §7) as YAML does, which knows no halves."""
    try:
        strict_json.parse(content)
    except strict_json.StrictJsonError:
        return content
    return _ESCAPES.sub(_as_yaml, content)


_ESCAPES = re.compile(rb"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|.)", re.IGNORECASE | re.DOTALL)
"""Every escape of a JSON text, so that no backslash is taken for the beginning of the next one."""


def _as_yaml(escape: re.Match[bytes]) -> bytes:
    if escape[1] is None:
        return escape[0]
    high, low = int(escape[1], 16), int(escape[2], 16)
    return b"\\U%08x" % (0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF))


def _no_request(document: Document) -> Fault:
    message = f"a request is expected, found {describe(document.value)}"
    hint = "it takes the body of a CheckResources request: `principal`, `resources`"
    if document.value is None:  # there may be nothing that has a place
        return Fault(document.file, 0, 0, message, hint=hint)
    return document.fault(message, hint=hint)


# -- claims ------------------------------------------------------------------------------------------------


def _aux_data(reading: Reading, value: Any, path: Path) -> Any:
    """Read claims; a token in their place is refused, as policies would take it for a claim."""
    tokens = [(place, hint) for place, each, hint in _claims(value) if _is_token(each)]
    for place, hint in tokens:
        told = "tokens are not read here, there is nothing to verify them with"
        reading.misshapen(told, (*path, *place, "token"), key=True, hint=hint)
    return None if tokens else AUX_DATUM(reading, value, path)


def _claims(aux_data: Any) -> Iterator[tuple[Path, Any, str]]:
    """Yield where claims stand, what stands there, and how it is written."""
    if isinstance(aux_data, dict):
        yield ("jwt",), aux_data.get("jwt"), "write the claims themselves: `jwt: {sub: ann}`"
        named = aux_data.get("jwts")
        for name, each in named.items() if isinstance(named, dict) else ():
            hint = f"write the claims themselves: `jwts: {{{name}: {{claims: {{sub: ann}}}}}}`"
            yield ("jwts", name), each, hint


def _is_token(value: Any) -> bool:
    """Tell a token, as CheckResources takes it, from claims of which one happens to be called ``token``."""
    if not isinstance(value, dict) or not value.keys() <= {"token", "keySetId", "key_set_id"}:
        return False
    return isinstance(value.get("token"), str) and value["token"].count(".") == 2


# -- the table ---------------------------------------------------------------------------------------------

ENTRY = Message(
    Entry,
    Field("actions", "actions", Many(text, (some_text,)), (not_empty, unique), required=True),
    Field("resource", "resource", RESOURCE, required=True),
)
REQUEST = Message(
    ExplainRequest,
    Field("requestId", "request_id", text),
    Field("includeMeta", "include_meta", boolean),
    Field("principal", "principal", PRINCIPAL, required=True),
    Field("resources", "resources", Many(ENTRY), (not_empty,), required=True),
    Field("auxData", "aux_data", _aux_data),
    Field(
        "requestContext", "request_context", Message(dict, Field("annotations", "annotations", Entries(json)))
    ),
)
