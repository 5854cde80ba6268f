"""The AuthZEN calls of the real Cerbos beside ours: the same messages and answers, over REST and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import yaml
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from extauthz.pdp.services import AUTHZEN, FILES, METHODS
from tests.differential.oracle import cerbos
from tests.e2e.official_clients import trailers
from tests.extauthz.pdp.authzen_cases import AUX_DATA, POLICIES, cases
from tests.extauthz.pdp.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from tests.differential.oracle import Oracle
    from tests.extauthz.pdp.running import Running

CONFIGURATION = """
storage: {driver: disk, disk: {directory: "${POLICIES}"}}
auxData: {jwt: {keySets: [{id: company, local: {data: "${KEYS}"}}]}}
"""
PATHS = {"evaluation": "/access/v1/evaluation", "batch": "/access/v1/evaluations"}
METHOD = {"evaluation": "AccessEvaluation", "batch": "AccessEvaluationBatch"}


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    settings = {"auxData": AUX_DATA}
    with cerbos(POLICIES, settings) as started:
        yield started


@pytest.fixture(scope="module")
def ours() -> Iterator[Running]:
    keys = AUX_DATA["jwt"]["keySets"][0]["local"]["data"]
    with running(CONFIGURATION, {"POLICIES": str(POLICIES), "KEYS": keys}) as service:
        yield service


@pytest.fixture(scope="module")
def pool(oracle: Oracle) -> Iterator[descriptor_pool.DescriptorPool]:
    """Read the descriptors from Cerbos itself."""
    with grpc.insecure_channel(oracle.grpc_address) as channel:
        yield descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


ALL = [pytest.param(table, case, id=f"{table}: {case['it']}") for table in PATHS for case in cases(table)]


# --- messages ---------------------------------------------------------------------------------------------

OURS = [method for method in METHODS if method.service == AUTHZEN]


def test_the_service_has_the_same_methods(pool: descriptor_pool.DescriptorPool) -> None:
    """Method by method, the service takes and gives messages of the same names."""

    def methods(found: Any) -> dict[str, tuple[str, str]]:
        return {
            each.name: (each.input_type.full_name, each.output_type.full_name)
            for each in found.FindServiceByName(AUTHZEN).methods
        }

    assert methods(FILES.pool) == methods(pool)


def test_messages_have_the_same_fields(pool: descriptor_pool.DescriptorPool) -> None:
    """Every message that the service takes or gives has the same fields, with the same numbers and types."""

    def messages(found: Any) -> dict[str, Any]:
        service = found.FindServiceByName(AUTHZEN)
        fields: dict[str, Any] = {}
        for method in service.methods:
            walk(method.input_type, fields)
            walk(method.output_type, fields)
        return fields

    assert messages(FILES.pool) == messages(pool)


def walk(message: Descriptor, found: dict[str, Any]) -> None:
    if message.full_name in found or message.full_name.startswith("google."):
        return
    found[message.full_name] = {field.name: shape(field) for field in message.fields}
    for field in message.fields:
        if field.message_type is not None:
            walk(field.message_type, found)


def shape(field: FieldDescriptor) -> tuple[Any, ...]:
    kind = field.message_type.full_name if field.message_type is not None else field.type
    return field.number, field.json_name, kind, field.is_repeated, field.has_presence


# --- answers ----------------------------------------------------------------------------------------------


def test_differences_have_their_reasons() -> None:
    """Each difference that a table names is on the list with its reason, and each on the list is shown."""
    named = {case["differs"] for table in PATHS for case in cases(table) if "differs" in case}
    listed = yaml.safe_load(Path(__file__).with_name("divergences.yaml").read_text(encoding="utf-8"))
    assert named == {name for name, divergence in listed.items() if "calls" in divergence}


@pytest.mark.parametrize(("table", "case"), ALL)
def test_rest(ours: Running, oracle: Oracle, table: str, case: dict[str, Any]) -> None:
    """Our answer is Cerbos's where the table knows of no difference, and another where it does."""
    path = PATHS[table]
    with ours.served.client() as client:
        found = answer(client.post(path, json=case["request"]))
    theirs = answer(httpx.post(oracle.url + path, json=case["request"], timeout=30))
    assert (found == theirs) is ("differs" not in case), theirs


def answer(response: httpx.Response) -> tuple[int, Any]:
    return response.status_code, response.json()


@pytest.mark.parametrize(("table", "case"), ALL)
def test_grpc(
    ours: Running, oracle: Oracle, pool: descriptor_pool.DescriptorPool, table: str, case: dict[str, Any]
) -> None:
    """The same over gRPC, with messages made from Cerbos's own descriptors."""
    method = pool.FindServiceByName(AUTHZEN).methods_by_name[METHOD[table]]
    found = called(ours.served.grpc, method, case["request"])
    theirs = called(oracle.grpc_address, method, case["request"])
    assert (found == theirs) is ("differs" not in case), theirs


def called(address: str, method: Any, request: dict[str, Any]) -> Any:
    sent = json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)())
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(
            f"/{AUTHZEN}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        try:
            response = call(sent, timeout=20)
        except grpc.RpcError as error:
            return error.code(), error.details(), trailers(error).get("grpc-status-details-bin")
    return json_format.MessageToDict(response)


def test_metadata_over_grpc(ours: Running, pool: descriptor_pool.DescriptorPool) -> None:
    """The metadata call works over gRPC too, and believes what the proxy in front says."""
    method = pool.FindServiceByName(AUTHZEN).methods_by_name["Metadata"]
    with grpc.insecure_channel(ours.served.grpc) as channel:
        call: Any = channel.unary_unary(
            f"/{AUTHZEN}/Metadata",
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        forwarded = (("x-forwarded-proto", "https"), ("x-forwarded-host", "pdp.example.com"))
        response = call(b"", metadata=forwarded, timeout=20)
    assert response.access_evaluation_endpoint == "https://pdp.example.com/access/v1/evaluation"
