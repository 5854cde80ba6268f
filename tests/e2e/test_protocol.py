"""The traps of Envoy's ext_authz protocol, through a real Envoy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from tests.e2e.harness import Gateway, access_log
from tokens import ADMINISTRATOR, EMEA_MANAGER, NA_MANAGER, SALES, Person

if TYPE_CHECKING:
    from stack import Stack

SALLY = [("x-authz-basis", "owner"), ("x-authz-principal", "sally"), ("x-authz-roles", "user")]
"""What reaches the API with a request of Sally's for her own expense, and nothing else."""

FORGERIES = [
    [b"x-authz-roles: admin"],
    [b"X-Authz-Roles: admin", b"X-Authz-Principal: adam"],
    [b"x-authz-roles: admin", b"x-authz-roles: user"],
    [b"x-authz-region: NA"],
    [b"x_authz_roles: admin"],
    [b"x_authz-roles: admin", b"X-AUTHZ_PRINCIPAL: adam"],
    [b"X.Authz.Roles: admin"],
    [b"x.authz_principal: adam", b"x-authz.basis: administrator"],
]
"""Header lines by which a client would like to be somebody else."""


@pytest.mark.parametrize("listener", ["gateway", "bare"])
@pytest.mark.parametrize("lines", FORGERIES, ids=lambda lines: b", ".join(lines).decode())
def test_forged_identity_never_arrives(
    request: pytest.FixtureRequest, listener: str, lines: list[bytes]
) -> None:
    """Whatever a client sends under an owned header's name or alias, the API sees what extauthz says."""
    client: Gateway = request.getfixturevalue(listener)
    reply = client.raw(b"/api/expenses/1", *lines, who=SALES)
    assert reply.status == httpx.codes.OK
    assert reply.identity == SALLY


@pytest.mark.parametrize("listener", ["gateway", "bare"])
@pytest.mark.parametrize("lines", FORGERIES, ids=lambda lines: b", ".join(lines).decode())
def test_forged_identity_never_arrives_on_an_open_route(
    request: pytest.FixtureRequest, listener: str, lines: list[bytes]
) -> None:
    """A route that needs no token lets nobody pose as somebody either."""
    client: Gateway = request.getfixturevalue(listener)
    reply = client.raw(b"/healthz", *lines)
    assert reply.status == httpx.codes.OK
    assert reply.identity == []


def test_token_stays_at_the_gateway(gateway: Gateway) -> None:
    """The route removes the Authorization header, so that the API never sees the token."""
    reply = gateway.send("GET /api/expenses/1", SALES)
    assert "authorization" not in dict(reply.arrived["headers"])


def test_two_tokens_are_none(gateway: Gateway) -> None:
    """Two Authorization headers are ambiguous, even if each is good."""
    second = f"authorization: Bearer {gateway.stack.issuer.token(ADMINISTRATOR)}".encode()
    reply = gateway.raw(b"/api/expenses/1", second, who=SALES)
    assert reply.status == httpx.codes.UNAUTHORIZED
    assert reply.arrivals == ()


def test_query_does_not_choose_the_route(gateway: Gateway) -> None:
    """`path` of a CheckRequest holds the query as well: it arrives untouched and decides nothing."""
    target = "/api/expenses/1?next=/api/expenses/2&x=%2e%2e%2f;y"
    reply = gateway.send(f"GET {target}", SALES)
    assert reply.status == httpx.codes.OK
    assert reply.arrived["target"] == target


def test_query_parameter_is_overwritten(gateway: Gateway) -> None:
    """A parameter that the answer sets replaces every copy of the client's."""
    reply = gateway.send("GET /api/expenses?region=EMEA&status=OPEN&region=APAC", NA_MANAGER)
    query = httpx.URL(reply.arrived["target"]).params
    assert query.get_list("region") == ["NA"]
    assert query["status"] == "OPEN"


def test_query_parameter_is_removed(gateway: Gateway) -> None:
    """A parameter that the answer removes does not reach the API; its neighbours do."""
    reply = gateway.send("GET /healthz/deep?debug=1&verbose=2", SALES)
    assert httpx.URL(reply.arrived["target"]).params == httpx.QueryParams("verbose=2")


def test_header_for_the_client(gateway: Gateway) -> None:
    """A header for the client is set on the API's own response, in place of the API's."""
    reply = gateway.send("GET /healthz/deep", SALES)
    assert reply.headers.get_list("x-decided-by") == ["extauthz"]
    assert reply.headers.get_list("server") == ["envoy"]


def test_status_of_a_denial(gateway: Gateway) -> None:
    """A denial has the status that extauthz says, and a body of the length that it announces."""
    reply = gateway.send("PUT /api/expenses/1", SALES)
    assert reply.status == httpx.codes.METHOD_NOT_ALLOWED
    assert {"GET", "DELETE"} <= {method.strip() for method in reply.headers["allow"].split(",")}
    assert int(reply.headers["content-length"]) == len(reply.text.encode())


def test_body_decides(gateway: Gateway) -> None:
    """A body that the route reads and cannot be read is the client's mistake."""
    reply = gateway.send(
        "POST /api/expenses", SALES, content=b'{"amount": 1', headers={"content-type": "application/json"}
    )
    assert reply.status == httpx.codes.BAD_REQUEST
    assert reply.arrivals == ()


@pytest.mark.parametrize(
    "claimed", [{}, {"x-envoy-auth-partial-body": "false"}], ids=["plain", "denied by the client"]
)
def test_body_cut_off(gateway: Gateway, claimed: dict[str, str]) -> None:
    """A body longer than the gateway passes on is refused where the route reads it, whatever is claimed."""
    body = json.dumps({"amount": 1, "padding": "x" * 20_000})
    headers = {"content-type": "application/json", **claimed}
    reply = gateway.send("POST /api/expenses", SALES, content=body, headers=headers)
    assert reply.status == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert reply.arrivals == ()


def test_long_body_that_nobody_reads(gateway: Gateway) -> None:
    """Where no attribute needs the body its length does not matter."""
    reply = gateway.send("GET /api/expenses/1", SALES, content=b"x" * 20_000)
    assert reply.status == httpx.codes.OK
    assert dict(reply.arrived["headers"])["content-length"] == "20000"


@pytest.mark.parametrize(
    ("path", "who", "reason"),
    [
        ("/api/expenses/1", SALES, "policy.allowed"),
        ("/api/expenses/3", EMEA_MANAGER, "policy."),
        ("/api/expenses/1", None, "authn."),
        ("/healthz", None, "route.allowed"),
    ],
)
def test_metadata_reaches_the_access_log(
    gateway: Gateway, path: str, who: Person | None, reason: str
) -> None:
    """The gateway's log says of each request which route was checked, the decision's id, and its reason."""
    reply = gateway.send(f"GET {path}", who)
    entry = access_log(gateway.stack, reply.mark)
    assert entry["status"] == reply.status
    assert entry["reason"].startswith(reason)
    assert entry["decision_id"]
    assert entry["route"]


def test_http2(stack: Stack) -> None:
    """An HTTP/2 client gets the same answers."""
    headers = {"authorization": f"Bearer {stack.issuer.token(EMEA_MANAGER)}"}
    with httpx.Client(base_url=stack.url, http1=False, http2=True, headers=headers) as client:
        allowed, denied = client.get("/api/expenses/1"), client.get("/api/expenses/3")
    assert (allowed.http_version, allowed.status_code) == ("HTTP/2", httpx.codes.OK)
    assert (denied.http_version, denied.status_code) == ("HTTP/2", httpx.codes.FORBIDDEN)
    assert denied.headers["x-denial-reason"] == "expense 3 belongs to NA, you manage EMEA"


def call(channel: grpc.Channel, method: str, token: str | None = None, *forged: tuple[str, str]) -> bytes:
    """Call a method of the gRPC service behind the gateway."""
    metadata = (*forged, *([("authorization", f"Bearer {token}")] if token else []))
    method_of_bytes: Any = channel.unary_unary(f"/expenses.v1.Expenses/{method}")
    answer: bytes = method_of_bytes(b"", metadata=metadata, timeout=10)
    return answer


@pytest.mark.parametrize(
    ("method", "known", "code"),
    [
        ("List", False, grpc.StatusCode.UNAUTHENTICATED),
        ("Delete", True, grpc.StatusCode.PERMISSION_DENIED),
        ("Unknown", True, grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_grpc_client_is_told_in_its_own_way(
    stack: Stack, grpc_channel: grpc.Channel, method: str, known: bool, code: grpc.StatusCode
) -> None:
    """A gRPC client's denial is a grpc-status, not an HTTP status it cannot read."""
    with pytest.raises(grpc.RpcError) as caught:
        call(grpc_channel, method, stack.issuer.token(SALES) if known else None)
    assert caught.value.code() is code


def test_grpc_call_is_let_through(stack: Stack, grpc_channel: grpc.Channel) -> None:
    """An allowed gRPC call reaches the service as whom the token names."""
    token = stack.issuer.token(SALES)
    metadata = json.loads(
        call(grpc_channel, "List", token, ("x-authz-principal", "adam"), ("x_authz_roles", "admin"))
    )
    assert metadata["x-authz-principal"] == "sally"
    assert not {"x-authz-roles", "x_authz_roles"} & metadata.keys()
