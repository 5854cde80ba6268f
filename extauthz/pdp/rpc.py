"""The PDP API over gRPC: for each method a function from bytes to bytes, for the transport to register."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from extauthz.pdp.apart import apart
from extauthz.pdp.errors import Code, PdpError, invalid
from extauthz.pdp.method import Caller
from extauthz.pdp.schema import message_type
from extauthz.pdp.services import CODEC
from extauthz.pdp.status import AnyMessage, Status
from extauthz.pdp.wire import WireError
from extauthz.transport.calls import PEER, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from extauthz.pdp.method import Answer, Guard, Method
    from extauthz.transport.calls import Metadata, Procedure

logger = logging.getLogger(__name__)

LARGE: Final = 64 * 1024
"""Bytes from which on a message is read in a thread, so that others do not wait for it."""
DETAILS: Final = "grpc-status-details-bin"
"""Where gRPC clients look for the details of an error."""


def procedures(
    answers: Mapping[Method, Answer], guards: Mapping[str, Guard] | None = None
) -> dict[str, dict[str, Procedure]]:
    """Return what answers each method, by service and name; *guards*: by service, who lets callers pass."""
    found: dict[str, dict[str, Procedure]] = {}
    for method, answer in answers.items():
        found.setdefault(method.service, {})[method.name] = _procedure(
            method, answer, (guards or {}).get(method.service)
        )
    return found


def _procedure(method: Method, answer: Answer, guard: Guard | None) -> Procedure:
    decode, encode = CODEC.decoder(method.request), CODEC.encoder(method.response)

    async def procedure(request: bytes, metadata: Metadata) -> bytes:
        try:
            if guard is not None:
                await guard(_caller(metadata))
            message = decode(request) if len(request) < LARGE else await apart(decode, request)
            return encode(await answer(message, lambda: _caller(metadata)))
        except WireError as error:
            raise _refusal(invalid(str(error))) from None
        except PdpError as error:
            raise _refusal(error) from None
        except Exception:
            logger.exception("a call over gRPC failed")
            raise _refusal(PdpError(Code.INTERNAL, "the call failed")) from None

    return procedure


def unimplemented(message: str, guard: Guard) -> Procedure:
    """Make a method that has no answer for anyone whom *guard* lets pass."""

    async def procedure(request: bytes, metadata: Metadata) -> bytes:  # nothing to look at
        try:
            await guard(_caller(metadata))
        except PdpError as error:
            raise _refusal(error) from None
        raise Refusal(Code.UNIMPLEMENTED.number, message)

    return procedure


def _caller(metadata: Metadata) -> Caller:
    headers = metadata()
    return Caller(headers, peer=headers.get(PEER, ""))


def _refusal(error: PdpError) -> Refusal:
    if not error.details:
        return Refusal(error.code.number, error.message)
    status = Status(error.code.number, error.message, tuple(map(_packed, error.details)))
    return Refusal(error.code.number, error.message, ((DETAILS, CODEC.encoder(Status)(status)),))


def _packed(detail: Any) -> AnyMessage:
    cls = type(detail)
    return AnyMessage(f"type.googleapis.com/{message_type(cls).full_name}", CODEC.encoder(cls)(detail))
