"""Cerbos's server corpora: each case over REST and gRPC, on ports, on unix sockets and with TLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
import yaml
from cerbos.request.v1 import request_pb2
from cerbos.response.v1 import response_pb2
from google.protobuf import json_format

from extauthz.certificates import Certificates
from tests.conformance.suite import DATA, corpus, parameters
from tests.e2e.certificates import issue
from tests.extauthz.pdp.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.message import Message

CONFIGURATION = """
server: {requestLimits: {maxActionsPerResource: 5, maxResourcesPerRequest: 5}}
storage: {driver: disk, disk: {directory: "${STORE}"}}
schema: {enforcement: reject}
auxData: {jwt: {keySets: [{id: cerbos, local: {file: "${KEY}"}}]}}
"""


class Call(NamedTuple):
    """A call of the API: its key in a case, its method and path, its official messages."""

    key: str
    method: str
    path: str
    request: Any
    response: Any


CALLS = {
    "cerbos/server/checks/check_resources": Call(
        "checkResources",
        "CheckResources",
        "/api/check/resources",
        request_pb2.CheckResourcesRequest,
        response_pb2.CheckResourcesResponse,
    ),
    "cerbos/server/checks/check_resource_set": Call(
        "checkResourceSet",
        "CheckResourceSet",
        "/api/check",
        request_pb2.CheckResourceSetRequest,
        response_pb2.CheckResourceSetResponse,
    ),
    "cerbos/server/checks/check_resource_batch": Call(
        "checkResourceBatch",
        "CheckResourceBatch",
        "/api/check_resource_batch",
        request_pb2.CheckResourceBatchRequest,
        response_pb2.CheckResourceBatchResponse,
    ),
    "cerbos/server/plan_resources": Call(
        "planResources",
        "PlanResources",
        "/api/plan/resources",
        request_pb2.PlanResourcesRequest,
        response_pb2.PlanResourcesResponse,
    ),
}


# --- servers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """A running server and how it is reached."""

    service: Running
    ca: Path | None


WAYS = ("ports", "sockets", "ports-tls", "sockets-tls")


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """Serve the store of the corpus."""
    directory = tmp_path_factory.mktemp("way")
    certificates, ca = None, None
    if request.param.endswith("-tls"):
        issue(directory / "certificates", "localhost")
        base = directory / "certificates"
        certificates = Certificates(str(base / "localhost.crt"), str(base / "localhost.key"), None)
        ca = base / "ca.crt"
    environment = {
        "STORE": str(DATA / "cerbos/store"),
        "KEY": str(DATA / "cerbos/auxdata/keys/verify_key.jwk"),
    }
    sockets = directory if request.param.startswith("sockets") else None
    with running(CONFIGURATION, environment, sockets=sockets, certificates=certificates) as service:
        yield Way(service, ca)


def channel(way: Way) -> grpc.Channel:
    """Open a gRPC channel."""
    if way.ca is None:
        return grpc.insecure_channel(way.service.served.grpc)
    credentials = grpc.ssl_channel_credentials(way.ca.read_bytes())
    options = [("grpc.ssl_target_name_override", "localhost")]
    return grpc.secure_channel(way.service.served.grpc, credentials, options)


# --- cases ------------------------------------------------------------------------------------------------


def cases(name: str) -> Iterator[tuple[str, tuple[Call, dict[str, Any]]]]:
    """Give each case with its name."""
    for path in sorted(corpus(name).glob("*.yaml")):
        yield path.stem, (CALLS[name], yaml.safe_load(path.read_text()))


ALL = [case for name in CALLS for case in parameters(name, cases(name))]


def comparable(message: Message) -> dict[str, Any]:
    """Return a response without what differs from run to run, and with lists without order in order."""
    document: dict[str, Any] = json_format.MessageToDict(message)
    document.pop("cerbosCallId", None)
    _sort(document)
    return document


def _sort(value: Any) -> None:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, (dict, list)):
            _sort(item)
        if key in {"effectiveDerivedRoles", "validationErrors", "outputs"}:
            item.sort(key=repr)


def wanted(call: Call, case: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted response, read with the official classes."""
    return comparable(json_format.ParseDict(case[call.key].get("wantResponse", {}), call.response()))


@pytest.mark.parametrize("case", ALL)
def test_over_rest(way: Way, case: tuple[Call, dict[str, Any]]) -> None:
    """The status and the answer over HTTP are Cerbos's."""
    call, said = case
    with way.service.served.client(ca=way.ca) as client:
        answer = client.post(call.path, json=said[call.key]["input"])
    assert answer.status_code == said["wantStatus"]["httpStatusCode"], answer.text
    if said.get("wantError"):
        assert answer.json()["code"] == said["wantStatus"]["grpcStatusCode"]
        return
    assert comparable(json_format.Parse(answer.text, call.response())) == wanted(call, said)


@pytest.mark.parametrize("case", ALL)
def test_over_grpc(way: Way, case: tuple[Call, dict[str, Any]]) -> None:
    """The code and the answer over gRPC are Cerbos's."""
    call, said = case
    request = json_format.ParseDict(said[call.key]["input"], call.request())
    with channel(way) as opened:
        ask = opened.unary_unary(
            f"/cerbos.svc.v1.CerbosService/{call.method}",
            request_serializer=call.request.SerializeToString,
            response_deserializer=call.response.FromString,
        )
        code, answer = _asked(ask, request)
    assert code == said["wantStatus"]["grpcStatusCode"]
    if not said.get("wantError"):
        assert comparable(answer) == wanted(call, said)


def _asked(ask: Any, request: Message) -> tuple[int, Any]:
    try:
        return 0, ask(request, timeout=30)
    except grpc.RpcError as error:
        return error.code().value[0], None
