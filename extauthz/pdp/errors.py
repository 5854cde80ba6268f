"""Refusals and failures of the PDP API, with the codes of gRPC and what they are in HTTP."""

from __future__ import annotations

import enum
from typing import Any


class Code(enum.Enum):
    """A gRPC status code (its number) and the HTTP status that stands for it."""

    def __init__(self, number: int, http_status: int) -> None:
        self.number = number
        self.http_status = http_status

    INVALID_ARGUMENT = 3, 400
    DEADLINE_EXCEEDED = 4, 408
    """Of the client: its body did not arrive in time."""
    NOT_FOUND = 5, 404
    PERMISSION_DENIED = 7, 403
    TOO_LARGE = 8, 413
    """``RESOURCE_EXHAUSTED``. Cerbos says 429, which asks clients to send the same again."""
    TOO_MANY = 8, 429
    """``RESOURCE_EXHAUSTED`` too: the same may be asked later."""
    FAILED_PRECONDITION = 9, 400
    UNIMPLEMENTED = 12, 501
    INTERNAL = 13, 500
    UNAVAILABLE = 14, 503
    UNAUTHENTICATED = 16, 401


class PdpError(Exception):
    """A call that has no answer; *message* is for the client, *details* are further messages of the API."""

    def __init__(self, code: Code, message: str, details: tuple[Any, ...] = ()) -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(message)


def invalid(message: str, *details: Any) -> PdpError:
    """Make the refusal of a request that cannot be answered as it is."""
    return PdpError(Code.INVALID_ARGUMENT, message, details)
