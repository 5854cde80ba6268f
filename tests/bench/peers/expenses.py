"""The question that every server is asked, in the form of its API, and what its answer says.

Somebody reads an expense of their own: allowed, with an output. Somebody deletes it: denied. The ext_authz
servers get the request as Envoy sends it and the token in it; Cerbos gets claims and path mapped already.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cerbos.effect.v1 import effect_pb2
from cerbos.request.v1 import request_pb2
from cerbos.response.v1 import response_pb2
from envoy_data_plane.envoy.service.auth import v3 as auth

from tests.bench.service import URL, request
from tests.bench.wire import BROWSER
from tests.message_schemas import fast_classes

if TYPE_CHECKING:
    from collections.abc import Callable

EXT_AUTHZ: Final = "/envoy.service.auth.v3.Authorization/Check"
CERBOS: Final = "/cerbos.svc.v1.CerbosService/CheckResources"
CERBOS_REST: Final = "/api/check/resources"

GRPC_HEADERS: Final = (("content-type", "application/grpc"), ("te", "trailers"))
JSON_HEADERS: Final = (("content-type", "application/json"),)

_URL = urlsplit(URL)
AUTHORITY: Final = _URL.netloc
TARGET: Final = f"{_URL.path}?{_URL.query}"
EXPENSE: Final = _URL.path.rpartition("/")[2]
BASIS: Final = f"owner of {EXPENSE}"
"""What the policy puts out for an allow; to be found in every answer that is one."""

_CheckResponse: Any
(_CheckResponse,) = fast_classes(auth.CheckResponse)


class Verdict(Enum):
    """What an answer says."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Question:
    """A request to one kind of API, and how its answers are read."""

    path: str
    headers: tuple[tuple[str, str], ...]
    allowed: bytes
    """The body of a request that is to be allowed."""
    denied: bytes | None
    """That of one that is to be denied; None for a server that denies nothing."""
    verdict: Callable[[bytes], Verdict]
    http1: bool = False


def ext_authz(bearer: str) -> Question:
    """Ask as Envoy does."""
    allowed, denied = (framed(request(bearer, method=method)) for method in ("GET", "DELETE"))
    return Question(EXT_AUTHZ, GRPC_HEADERS, allowed, denied, ext_authz_verdict)


def asked_of_nobody(question: Question) -> Question:
    """Put the question to a server that looks at nothing."""
    return replace(question, denied=None, verdict=any_allow)


def cerbos_grpc() -> Question:
    """Ask for CheckResources over gRPC."""
    allowed, denied = (framed(_check_resources(action)) for action in ("read", "delete"))
    return Question(CERBOS, GRPC_HEADERS, allowed, denied, cerbos_verdict)


def cerbos_rest() -> Question:
    """Ask for CheckResources over REST."""
    allowed, denied = (json.dumps(_document(action)).encode() for action in ("read", "delete"))
    return Question(CERBOS_REST, JSON_HEADERS, allowed, denied, cerbos_rest_verdict, http1=True)


def browser_headers(bearer: str) -> tuple[tuple[str, str], ...]:
    """List the headers of the request as it comes to a gateway."""
    return (*BROWSER.items(), ("authorization", f"Bearer {bearer}"))


def _document(action: str, kind: str = "expense") -> dict[str, Any]:
    """Write the request to Cerbos; see tests/bench/service.py for the mapping."""
    subject, region = "alice@example.com", "EMEA"
    return {
        "principal": {
            "id": subject,
            "roles": ["user", "manager"],
            "attr": {"region": region, "department": "SALES"},
        },
        "resources": [
            {
                "actions": [action],
                "resource": {
                    "kind": kind,
                    "id": EXPENSE,
                    "attr": {"ownerId": subject, "region": region, "channel": "web", "status": "OPEN"},
                },
            }
        ],
    }


def _check_resources(action: str) -> bytes:
    document = _document(action)
    principal, (entry,) = document["principal"], document["resources"]
    message = request_pb2.CheckResourcesRequest()
    message.principal.id = principal["id"]
    message.principal.roles.extend(principal["roles"])
    for name, value in principal["attr"].items():
        message.principal.attr[name].string_value = value
    added = message.resources.add(actions=entry["actions"])
    added.resource.kind, added.resource.id = entry["resource"]["kind"], entry["resource"]["id"]
    for name, value in entry["resource"]["attr"].items():
        added.resource.attr[name].string_value = value
    serialized: bytes = message.SerializeToString()
    return serialized


# --- answers ----------------------------------------------------------------------------------------------


def ext_authz_verdict(body: bytes) -> Verdict:
    """Read a CheckResponse; an allow has to bring the header that the policy's output makes.

    Raises:
        ValueError: it is neither an allow with that header nor a proper denial.

    """
    answer = _CheckResponse.FromString(unframed(body))
    if not answer.HasField("status"):
        raise ValueError("a CheckResponse without a status")
    if answer.status.code != 0:
        return _denial(answer)
    headers = {option.header.key: _value(option.header) for option in answer.ok_response.headers}
    if headers.get("x-authz-basis") != BASIS:
        raise ValueError(f"an allow without the policy's output: {headers}")
    return Verdict.ALLOW


def _denial(answer: Any) -> Verdict:
    if not answer.HasField("denied_response"):
        raise ValueError(f"an error, not a decision: {answer}")
    return Verdict.DENY


def _value(header: Any) -> str:
    text: str = header.value or header.raw_value.decode()
    return text


def any_allow(body: bytes) -> Verdict:
    """Read the answer of a server that looks at nothing.

    Raises:
        ValueError: it is no allow.

    """
    answer = _CheckResponse.FromString(unframed(body))
    if not answer.HasField("status") or answer.status.code != 0:
        raise ValueError(f"not an allow: {answer}")
    return Verdict.ALLOW


def cerbos_verdict(body: bytes) -> Verdict:
    """Read a CheckResourcesResponse.

    Raises:
        ValueError: it has not one decision.

    """
    answer = response_pb2.CheckResourcesResponse.FromString(unframed(body))
    (result,) = answer.results
    (effect,) = result.actions.values()
    outputs = [output.val.string_value for output in result.outputs]
    return _effect(effect_pb2.Effect.Name(effect), outputs)


def cerbos_rest_verdict(body: bytes) -> Verdict:
    """Read the answer of the REST API.

    Raises:
        ValueError: it has not one decision.

    """
    (result,) = json.loads(body)["results"]
    (effect,) = result["actions"].values()
    return _effect(effect, [output["val"] for output in result.get("outputs", ())])


def _effect(effect: str, outputs: list[str]) -> Verdict:
    if effect == "EFFECT_DENY":
        return Verdict.DENY
    if effect != "EFFECT_ALLOW" or BASIS not in outputs:
        raise ValueError(f"{effect} with outputs {outputs}")
    return Verdict.ALLOW


# --- gRPC's frames ----------------------------------------------------------------------------------------


def framed(message: bytes) -> bytes:
    """Put gRPC's five bytes before a message: not compressed, its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def unframed(body: bytes) -> bytes:
    """Take the one message out of a body.

    Raises:
        ValueError: there is not exactly one, or it is compressed.

    """
    length = int.from_bytes(body[1:5], "big")
    if body[:1] != b"\0" or len(body) != 5 + length:
        raise ValueError(f"not one plain gRPC message: {body[:60]!r}")
    return body[5:]
