"""Cerbos's official clients, from PyPI and npm, against a running server of ours: what they ask, they get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import yaml
from cerbos.request.v1 import request_pb2
from cerbos.svc.v1 import svc_pb2_grpc
from google.protobuf import json_format
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.differential.oracle import cerbos
from tests.e2e.certificates import issue
from tests.e2e.official_clients import CLIENTS, grpc_channel, trailers
from tests.e2e.pdp_server import Served, extauthz
from tests.extauthz.pdp.authzen_cases import AUX_DATA, with_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.official_clients import Client

FOLDER = Path(__file__).resolve().parents[1] / "cases" / "clients"
POLICIES = FOLDER / "policies"
SETTINGS = {"auxData": AUX_DATA, "schema": {"enforcement": "warn"}}
CASES = yaml.safe_load((FOLDER / "calls.yaml").read_text(encoding="utf-8"))
NAMED = [pytest.param(case, id=case["it"]) for case in CASES]


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve with each of the transports."""
    settings = {**SETTINGS, "server": {"transport": request.param}}
    with extauthz(tmp_path_factory.mktemp("pdp"), POLICIES, settings) as served:
        yield served


def test_reflection(server: Served) -> None:
    """Tools such as grpcurl can ask which services there are, and for their descriptions."""
    ask_for = reflection_pb2.ServerReflectionRequest
    with grpc.insecure_channel(server.grpc) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = iter(
            [ask_for(list_services=""), ask_for(file_containing_symbol="cerbos.svc.v1.CerbosService")]
        )
        services, file = stub.ServerReflectionInfo(requests, timeout=10)
    assert "cerbos.svc.v1.CerbosService" in {each.name for each in services.list_services_response.service}
    assert file.file_descriptor_response.file_descriptor_proto


@pytest.fixture(scope="module")
def oracle() -> Iterator[Served]:
    """Serve the same policies with the real Cerbos."""
    with cerbos(POLICIES, SETTINGS) as running:
        yield Served(running.url, running.grpc_address)


@pytest.fixture(scope="module", params=sorted(CLIENTS))
def client(request: pytest.FixtureRequest, server: Served) -> Iterator[Client]:
    with CLIENTS[request.param](server, None) as opened:
        yield opened


@pytest.fixture(scope="module", params=sorted(CLIENTS))
def both(request: pytest.FixtureRequest, server: Served, oracle: Served) -> Iterator[tuple[Client, Client]]:
    """Open the same client for our server and for Cerbos."""
    with CLIENTS[request.param](server, None) as ours, CLIENTS[request.param](oracle, None) as theirs:
        yield ours, theirs


def ask(client: Client, case: dict[str, Any]) -> Any:
    calls: dict[str, Callable[[Any], Any]] = {
        "check": client.check,
        "allowed": client.is_allowed,
        "plan": client.plan,
    }
    return calls[case["call"]](with_tokens(case["request"]))


def shown(want: Any, client: Client) -> Any:
    """Leave out of an answer what the client cannot ask for."""
    if "meta" in client.lacks and isinstance(want, dict) and "results" in want:
        return {
            "results": [{name: each[name] for name in each if name != "meta"} for each in want["results"]]
        }
    return want


@pytest.mark.parametrize("case", NAMED)
def test_a_client_gets_what_it_asks_for(client: Client, case: dict[str, Any]) -> None:
    """Each client understands our answer, and it is the answer of the table."""
    assert ask(client, case) == shown(case["want"], client)


@pytest.mark.parametrize("case", NAMED)
def test_a_client_sees_no_difference(both: tuple[Client, Client], case: dict[str, Any]) -> None:
    """Each client gets from us what it gets from the real Cerbos."""
    ours, theirs = both
    assert ask(ours, case) == ask(theirs, case)


@pytest.mark.parametrize("name", ["node-grpc", "node-http", "python-grpc", "python-grpc-async"])
def test_server_info(name: str, server: Served, oracle: Served) -> None:
    """Clients that ask for it read from our version which version of Cerbos we answer like."""
    with CLIENTS[name](server, None) as ours, CLIENTS[name](oracle, None) as theirs:
        assert ours.server_info()["version"].startswith(theirs.server_info()["version"] + "+extauthz.")


@pytest.mark.parametrize("service", ["", "cerbos.svc.v1.CerbosService", "cerbos.svc.v1.Nothing"])
def test_health(both: tuple[Client, Client], service: str) -> None:
    """Clients see that we are well, and of a service that we do not have that it is not there."""
    ours, theirs = both
    assert ours.is_healthy(service) == theirs.is_healthy(service) == (service != "cerbos.svc.v1.Nothing")


# --- calls that clients no longer make, and what only generated messages can say --------------------------

PRINCIPAL = {"id": "alice", "roles": ["user"]}
OWN = {"owner": "alice", "public": False}
GENERATED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "CheckResourceSet": (
        {
            "requestId": "r1",
            "actions": ["read", "shred"],
            "principal": PRINCIPAL,
            "resource": {"kind": "document", "instances": {"own": {"attr": OWN}, "other": {}}},
            "includeMeta": True,
        },
        {
            "requestId": "r1",
            "resourceInstances": {
                "own": {"actions": {"read": "EFFECT_ALLOW", "shred": "EFFECT_DENY"}},
                "other": {"actions": {"read": "EFFECT_DENY", "shred": "EFFECT_DENY"}},
            },
            "meta": {
                "resourceInstances": {
                    "own": {
                        "actions": {
                            "read": {"matchedPolicy": "resource.document.vdefault"},
                            "shred": {"matchedPolicy": "resource.document.vdefault"},
                        },
                        "effectiveDerivedRoles": ["owner"],
                    },
                    "other": {
                        "actions": {
                            "read": {"matchedPolicy": "resource.document.vdefault"},
                            "shred": {"matchedPolicy": "resource.document.vdefault"},
                        }
                    },
                }
            },
        },
    ),
    "CheckResourceBatch": (
        {
            "requestId": "r1",
            "principal": PRINCIPAL,
            "resources": [
                {"actions": ["read"], "resource": {"kind": "document", "id": "own", "attr": OWN}},
                {"actions": ["read", "shred"], "resource": {"kind": "document", "id": "other"}},
            ],
        },
        {
            "requestId": "r1",
            "results": [
                {"resourceId": "own", "actions": {"read": "EFFECT_ALLOW"}},
                {"resourceId": "other", "actions": {"read": "EFFECT_DENY", "shred": "EFFECT_DENY"}},
            ],
        },
    ),
    "CheckResources": (
        {
            "requestId": "r1",
            "includeMeta": True,
            "principal": PRINCIPAL,
            "resources": [{"actions": ["edit"], "resource": {"kind": "document", "id": "own", "attr": OWN}}],
            "requestContext": {"annotations": {"ticket": {"id": 7}}},
        },
        {
            "requestId": "r1",
            "results": [
                {
                    "resource": {"kind": "document", "id": "own"},
                    "actions": {"edit": "EFFECT_ALLOW"},
                    "meta": {
                        "actions": {"edit": {"matchedPolicy": "resource.document.vdefault"}},
                        "effectiveDerivedRoles": ["owner"],
                    },
                }
            ],
        },
    ),
    "PlanResources": (
        {
            "requestId": "r1",
            "action": "edit",
            "principal": PRINCIPAL,
            "resource": {"kind": "document", "attr": {"owner": "alice", "locked": False}},
            "includeMeta": True,
        },
        {
            "requestId": "r1",
            "action": "edit",
            "resourceKind": "document",
            "filter": {"kind": "KIND_ALWAYS_ALLOWED"},
            "meta": {"filterDebug": "(true)"},
        },
    ),
}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_messages(server: Served, oracle: Served, name: str) -> None:
    """The classes that Cerbos generates carry every call, the deprecated ones too, as to Cerbos."""
    request, want = GENERATED[name]
    assert answered(server, name, request) == want == answered(oracle, name, request)


def stub(channel: grpc.Channel) -> Any:
    return svc_pb2_grpc.CerbosServiceStub(channel)  # type: ignore[no-untyped-call]  # generated without types


def answered(served: Served, name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Ask with the generated stub."""
    sent = json_format.ParseDict(request, getattr(request_pb2, f"{name}Request")())
    with grpc_channel(served.grpc, None) as channel:
        response = getattr(stub(channel), name)(sent, timeout=20)
    document: dict[str, Any] = json_format.MessageToDict(response)
    document.pop("cerbosCallId", None)
    return document


def test_an_error_carries_its_details(server: Served, oracle: Served) -> None:
    """Over gRPC a refusal has the broken rules as `buf.validate.Violations`, byte by byte as Cerbos has."""
    found = [refusal_details(served) for served in (server, oracle)]
    assert found[0] == found[1]
    assert found[0]


def refusal_details(served: Served) -> bytes:
    """Return `google.rpc.Status` of a request that breaks rules of several kinds."""
    request = request_pb2.CheckResourcesRequest()
    request.principal.roles.extend(["user", "user", ""])
    request.principal.attr[""].string_value = "x"
    request.resources.add()
    with grpc_channel(served.grpc, None) as channel, pytest.raises(grpc.RpcError) as caught:
        stub(channel).CheckResources(request, timeout=20)
    details: bytes = trailers(caught.value)["grpc-status-details-bin"]
    return details


# --- TLS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_tls(name: str, tls_server: tuple[Served, Path]) -> None:
    """Each client speaks TLS with us, on both ports, and trusts our certificate by its authority."""
    served, ca = tls_server
    with CLIENTS[name](served, ca) as client:
        case = next(each for each in CASES if each["it"] == "answers outputs of any JSON")
        assert ask(client, case) == case["want"]


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    issue(folder / "certificates", "localhost")
    names = {"cert": "localhost.crt", "key": "localhost.key", "caCert": "ca.crt"}
    files = {key: str(folder / "certificates" / name) for key, name in names.items()}
    with extauthz(folder, POLICIES, SETTINGS, tls=files) as served:
        yield served, Path(files["caCert"])
