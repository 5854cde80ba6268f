"""The PDP API over gRPC: a whole service on loopback, asked with the official classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from buf.validate import validate_pb2  # type: ignore[import-untyped]  # generated, without types
from cerbos.request.v1 import request_pb2
from cerbos.response.v1 import response_pb2
from google.protobuf import descriptor_pool
from google.rpc import status_pb2  # type: ignore[import-untyped]  # generated, without types
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from extauthz.pdp.services import AUTHZEN, CERBOS
from extauthz.pdp.version import version
from extauthz.transport.calls import SERVICE
from tests.extauthz.pdp.running import running
from tests.extauthz.pdp.test_rest import POLICY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

CONFIGURATION = "storage: {driver: disk, disk: {directory: '${POLICIES}'}}"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """Serve one policy and open a channel."""
    directory = tmp_path_factory.mktemp("policies")
    (directory / "doc.yaml").write_text(POLICY, encoding="utf-8")
    with (
        running(CONFIGURATION, {"POLICIES": str(directory)}) as service,
        grpc.insecure_channel(service.served.grpc) as opened,
    ):
        yield opened


def ask(channel: grpc.Channel, method: str, request: Message | bytes, response: Any) -> Any:
    """Call a method; returns the answer and the call."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    call: Any = channel.unary_unary(f"/{CERBOS}/{method}", response_deserializer=response.FromString)
    return call.with_call(data, timeout=10)


def question(**fields: Any) -> request_pb2.CheckResourcesRequest:
    """Ask whether ann may view a document."""
    made = request_pb2.CheckResourcesRequest(**fields)
    made.principal.id = "ann"
    made.principal.roles.append("user")
    made.resources.add(actions=["view"]).resource.kind = "doc"
    made.resources[0].resource.id = "1"
    return made


def test_an_answer(channel: grpc.Channel) -> None:
    """A check is answered, with our version in the metadata."""
    answer, call = ask(channel, "CheckResources", question(), response_pb2.CheckResourcesResponse)
    assert answer.results[0].actions == {"view": 1}
    assert answer.results[0].outputs[0].val.string_value == "seen by ann"
    assert len(answer.cerbos_call_id) == 26
    assert ("cerbos-version", version()) in [tuple(pair) for pair in call.initial_metadata()]


def test_a_large_message(channel: grpc.Channel) -> None:
    """A message of megabytes is answered like any other."""
    asked = question()
    asked.principal.attr["notes"].string_value = "a" * 1_000_000
    answer, _ = ask(channel, "CheckResources", asked, response_pb2.CheckResourcesResponse)
    assert answer.results[0].actions == {"view": 1}


def refused(channel: grpc.Channel, request: Message | bytes) -> Any:
    """Return the error that a check ends with."""
    with pytest.raises(grpc.RpcError) as error:
        ask(channel, "CheckResources", request, response_pb2.CheckResourcesResponse)
    return error.value


def test_broken_rules_come_with_details(channel: grpc.Channel) -> None:
    """The details of a refusal are where gRPC's clients look for them."""
    error = refused(channel, request_pb2.CheckResourcesRequest())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (data,) = (pair.value for pair in error.trailing_metadata() if pair.key == "grpc-status-details-bin")
    status = status_pb2.Status.FromString(data)
    assert (status.code, status.message) == (3, error.details())
    violations = validate_pb2.Violations()
    assert status.details[0].Unpack(violations)
    assert [each.rule_id for each in violations.violations] == ["required", "required"]


def test_what_is_no_message(channel: grpc.Channel) -> None:
    """Bytes that are no request are the client's fault, and told so."""
    error = refused(channel, b"\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "not a `cerbos.request.v1.CheckResourcesRequest`"


def test_too_large(channel: grpc.Channel) -> None:
    """A message beyond 4 MiB is refused by the transport."""
    error = refused(channel, question(request_id="a" * (4 * 1024 * 1024)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_limits(channel: grpc.Channel) -> None:
    """A request asks for so many resources and no more."""
    asked = question()
    for _ in range(50):
        asked.resources.append(asked.resources[0])
    assert (
        refused(channel, asked).details() == "number of resources in batch (51) exceeds configured limit (50)"
    )


def test_unknown_methods(channel: grpc.Channel) -> None:
    """What is not there is not implemented."""
    with pytest.raises(grpc.RpcError) as error:
        ask(channel, "Nothing", b"", response_pb2.ServerInfoResponse)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["", SERVICE, CERBOS, AUTHZEN])
def test_health(channel: grpc.Channel, service: str) -> None:
    """Each service is well under its own name."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection(channel: grpc.Channel) -> None:
    """A client without our descriptors can ask for them."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {CERBOS, AUTHZEN}
    pool = descriptor_pool.DescriptorPool(database)
    methods = pool.FindServiceByName(CERBOS).methods_by_name
    assert methods["CheckResources"].input_type.full_name == "cerbos.request.v1.CheckResourcesRequest"
