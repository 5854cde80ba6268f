"""Every reason an answer can have: the stable code, the HTTP status, and a sentence for the client.

The codes are an interface: they stand in the problem body, in the dynamic metadata (and so in Envoy's access
log), and policies of alerting are written against them. The sentences may change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request was let through, turned away or left undecided.

    *title* is shown to the client, so it must never tell more than the client may know.
    """

    code: str
    status: int
    title: str


def _reasons(status: int, titles: dict[str, str]) -> dict[str, Reason]:
    return {code: Reason(code, status, title) for code, title in titles.items()}


REASONS: dict[str, Reason] = {
    **_reasons(
        200,
        {
            "policy.allowed": "a policy allows it",
            "route.allowed": "the route is open",
        },
    ),
    **_reasons(
        400,
        {
            "request.malformed": "The request could not be read",
            "body.malformed": "The body could not be read",
            "mapping.request": "A value that the authorization needs is missing or malformed",
        },
    ),
    **_reasons(
        403,
        {
            "policy.denied": "You may not do this",
            "policy.no_match": "You may not do this",
            "mapping.denied": "You may not do this",
            "route.denied": "You may not do this",
        },
    ),
    **_reasons(
        404,
        {
            "route.not_found": "There is nothing here",
            "source.not_found": "There is nothing here",
        },
    ),
    **_reasons(405, {"route.method": "This method is not known here"}),
    **_reasons(
        413,
        {
            "body.too_large": "The body is too large to be authorized",
            "body.truncated": "The body is too large to be authorized",
        },
    ),
    **_reasons(
        431,
        {
            "header.too_large": "The headers are too large",
            "header.too_many": "There are too many headers",
        },
    ),
    **_reasons(415, {"body.unsupported_type": "The body is of a type that cannot be authorized"}),
    **_reasons(
        503,
        {
            "keys.unavailable": "The request could not be authorized just now",
            "source.unavailable": "The request could not be authorized just now",
            "response.failed": "The request could not be authorized just now",
            "internal": "The request could not be authorized just now",
        },
    ),
}
"""Reasons by code."""

FAMILIES: tuple[tuple[str, int, str], ...] = (
    ("path.", 400, "The path is not in its canonical form"),
    ("header.", 400, "The headers are malformed"),
    ("host.", 400, "The host is malformed"),
    ("method.", 400, "The method is malformed"),
    ("query.", 400, "The query can be read in more than one way"),
    ("request.", 400, "The request could not be read"),
    ("body.", 400, "The body could not be read"),
    ("authn.", 401, "Valid credentials are needed"),
    ("keys.", 503, "The request could not be authorized just now"),
    ("source.", 503, "The request could not be authorized just now"),
)
"""Status and title for the codes that a family makes as it goes (``path.dot_segment``, ``authn.expired``)."""


def reason(code: str) -> Reason:
    """Return the reason of *code*; a code of no known family is a denial, never an allow."""
    known = REASONS.get(code)
    if known is not None:
        return known
    for prefix, status, title in FAMILIES:
        if code.startswith(prefix):
            return Reason(code, status, title)
    return Reason(code, 403, "You may not do this")
