"""Cerbos's official clients behind one small interface, so that one table of calls serves for all of them.

A call is given in the words of the REST API; an answer comes back in the words of :class:`Client`, whatever
the client at hand makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from cerbos.engine.v1 import engine_pb2
from cerbos.request.v1 import request_pb2
from cerbos.sdk import client as http_sdk
from cerbos.sdk.grpc import client as grpc_sdk
from cerbos.sdk.model import (
    JWT,
    AuxData,
    CheckResourcesResponse,
    PlanResourcesResponse,
    Principal,
    Resource,
    ResourceDesc,
    ResourceList,
)
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.node_clients import node_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from google.protobuf.message import Message

    from tests.e2e.pdp_server import Served

Json = dict[str, Any]


class Client(Protocol):
    """A client. What it is refused comes back as ``{"error": {"code": ..., "message": ...}}``."""

    @property
    def lacks(self) -> frozenset[str]:
        """What the client cannot ask for: ``meta``, ``server_info``."""
        ...

    def check(self, request: Json) -> Json:
        """Give the results; each has id, actions, and where there are any outputs, validationErrors, meta."""
        ...

    def is_allowed(self, request: Json) -> bool | Json:
        """Give the answer for the one action on the one resource of *request*."""
        ...

    def plan(self, request: Json) -> Json:
        """Give kind and, if there is one, condition."""
        ...

    def server_info(self) -> Json:
        """Give at least the version."""
        ...

    def is_healthy(self, service: str) -> bool:
        """Tell whether a service is there and serves."""
        ...


def result(entry: Mapping[str, Any]) -> Json:
    """Keep of a result, in the words of the REST API, what is compared."""
    kept: Json = {"id": entry["resource"]["id"], "actions": dict(entry["actions"])}
    for name in ("outputs", "validationErrors", "meta"):
        if entry.get(name):
            kept[name] = entry[name]
    return kept


def plan(found: Mapping[str, Any]) -> Json:
    """Keep of a filter what is compared."""
    return {name: found[name] for name in ("kind", "condition") if found.get(name)}


# --- PyPI: cerbos, over HTTP ------------------------------------------------------------------------------


VERSION = "default"
"""What this client says when it is told no version; of a plan without one it cannot read the answer."""


def _principal(given: Json) -> Principal:
    return Principal(
        given["id"],
        set(given["roles"]),
        given.get("attr", {}),
        given.get("policyVersion", VERSION),
        given.get("scope", ""),
    )


def _resource(given: Json) -> Resource:
    return Resource(
        given["id"],
        given["kind"],
        given.get("attr", {}),
        given.get("policyVersion", VERSION),
        given.get("scope", ""),
    )


def _resources(request: Json) -> ResourceList:
    listed = ResourceList()
    for entry in request["resources"]:
        listed.add(_resource(entry["resource"]), set(entry["actions"]))
    return listed


def _description(given: Json) -> ResourceDesc:
    return ResourceDesc(
        given["kind"], given.get("attr", {}), given.get("policyVersion", VERSION), given.get("scope", "")
    )


def _aux_data(request: Json) -> AuxData | None:
    given = request.get("auxData")
    if given is None:
        return None
    tokens = {name: JWT(each["token"], each.get("keySetId")) for name, each in given.get("jwts", {}).items()}
    one = given.get("jwt")
    return AuxData(JWT(one["token"], one.get("keySetId")) if one else None, tokens or None)


def _actions(request: Json) -> str | list[str]:
    found: str | list[str] = request.get("actions") or request["action"]
    return found


def _http_results(response: CheckResourcesResponse) -> Json:
    if response.failed():
        return _http_error(response)
    document = response.to_dict(encode_json=True)  # type: ignore[attr-defined]  # dataclasses_json adds it
    return {"results": [result(_without_none(entry)) for entry in document["results"]]}


def _http_error(response: CheckResourcesResponse | PlanResourcesResponse) -> Json:
    told = response.status_msg
    assert told is not None
    return {"error": {"code": told.code, "message": told.message}}


def _http_plan(response: PlanResourcesResponse) -> Json:
    if response.failed():
        return _http_error(response)
    document = response.to_dict(encode_json=True)  # type: ignore[attr-defined]  # the same
    return plan(_without_none(document["filter"]))


def _without_none(value: Any) -> Any:
    """Leave out members that the client fills in for what did not come; a null inside `val` stays."""
    if isinstance(value, dict):
        return {
            name: item if name == "val" else _without_none(item)
            for name, item in value.items()
            if item is not None
        }
    return [_without_none(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class PythonHttp:
    """``cerbos.sdk.client.CerbosClient``."""

    sdk: Any
    lacks: frozenset[str] = frozenset({"meta", "server_info"})

    def check(self, request: Json) -> Json:
        return _http_results(
            self.sdk.check_resources(
                _principal(request["principal"]),
                _resources(request),
                request.get("requestId"),
                _aux_data(request),
            )
        )

    def is_allowed(self, request: Json) -> bool | Json:
        (entry,) = request["resources"]
        allowed: bool = self.sdk.with_principal(
            _principal(request["principal"]), _aux_data(request)
        ).is_allowed(entry["actions"][0], _resource(entry["resource"]))
        return allowed

    def plan(self, request: Json) -> Json:
        return _http_plan(
            self.sdk.plan_resources(
                _actions(request),
                _principal(request["principal"]),
                _description(request["resource"]),
                aux_data=_aux_data(request),
            )
        )

    def server_info(self) -> Json:
        raise NotImplementedError

    def is_healthy(self, service: str) -> bool:
        healthy: bool = self.sdk.is_healthy(service or None)
        return healthy


@dataclass(frozen=True, slots=True)
class InLoop:
    """Calls an asynchronous client as if it were not one."""

    sdk: Any
    loop: asyncio.Runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found = getattr(self.sdk, name)

        def call(*arguments: Any, **named: Any) -> Any:
            made = found(*arguments, **named)
            return self.loop.run(made) if asyncio.iscoroutine(made) else InLoop(made, self.loop)

        return call


@contextlib.contextmanager
def python_http(served: Served, ca: Path | None) -> Iterator[Client]:
    with http_sdk.CerbosClient(served.http, tls_verify=_tls(ca), timeout_secs=20) as sdk:
        yield PythonHttp(sdk)


@contextlib.contextmanager
def python_http_async(served: Served, ca: Path | None) -> Iterator[Client]:
    with asyncio.Runner() as loop:
        sdk = http_sdk.AsyncCerbosClient(served.http, tls_verify=_tls(ca), timeout_secs=20)
        try:
            yield PythonHttp(InLoop(sdk, loop))
        finally:
            loop.run(sdk.close())  # type: ignore[no-untyped-call]  # the client says nothing of what it returns


def _tls(ca: Path | None) -> bool | ssl.SSLContext:
    return True if ca is None else ssl.create_default_context(cafile=ca)


# --- PyPI: cerbos, over gRPC ------------------------------------------------------------------------------


def _message(cls: type[Message], document: Json | None) -> Any:
    return None if document is None else json_format.ParseDict(document, cls())


@dataclass(frozen=True, slots=True)
class PythonGrpc:
    """``cerbos.sdk.grpc.client.CerbosClient``."""

    sdk: Any
    health: Any
    lacks: frozenset[str] = frozenset({"meta"})

    def check(self, request: Json) -> Json:
        entries = request_pb2.CheckResourcesRequest.ResourceEntry
        return self._told(
            lambda: self.sdk.check_resources(
                _message(engine_pb2.Principal, request["principal"]),
                [_message(entries, entry) for entry in request["resources"]],
                request.get("requestId"),
                _message(request_pb2.AuxData, request.get("auxData")),
            ),
            lambda answer: {"results": [result(entry) for entry in answer["results"]]},
        )

    def is_allowed(self, request: Json) -> bool | Json:
        (entry,) = request["resources"]
        aux_data = _message(request_pb2.AuxData, request.get("auxData"))
        allowed: bool = self.sdk.with_principal(
            _message(engine_pb2.Principal, request["principal"]), aux_data
        ).is_allowed(entry["actions"][0], _message(engine_pb2.Resource, entry["resource"]))
        return allowed

    def plan(self, request: Json) -> Json:
        return self._told(
            lambda: self.sdk.plan_resources(
                _actions(request),
                _message(engine_pb2.Principal, request["principal"]),
                _message(engine_pb2.PlanResourcesInput.Resource, request["resource"]),
                aux_data=_message(request_pb2.AuxData, request.get("auxData")),
            ),
            lambda answer: plan(answer["filter"]),
        )

    def server_info(self) -> Json:
        return self._told(self.sdk.server_info, lambda answer: answer)

    def is_healthy(self, service: str) -> bool:
        try:
            answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    @staticmethod
    def _told(call: Callable[[], Message], read: Callable[[Json], Json]) -> Json:
        try:
            return read(json_format.MessageToDict(call()))
        except grpc.RpcError as error:
            return {"error": {"code": error.code().value[0], "message": error.details()}}


@contextlib.contextmanager
def python_grpc(served: Served, ca: Path | None) -> Iterator[Client]:
    with (
        grpc_sdk.CerbosClient(served.grpc, tls_verify=str(ca) if ca else False, timeout_secs=20) as sdk,
        grpc_channel(served.grpc, ca) as channel,
    ):
        yield PythonGrpc(sdk, health_pb2_grpc.HealthStub(channel))


@contextlib.contextmanager
def python_grpc_async(served: Served, ca: Path | None) -> Iterator[Client]:
    with asyncio.Runner() as loop, grpc_channel(served.grpc, ca) as channel:
        sdk = loop.run(_async_grpc(served, ca))
        try:
            yield PythonGrpc(InLoop(sdk, loop), health_pb2_grpc.HealthStub(channel))
        finally:
            loop.run(sdk.close())


async def _async_grpc(served: Served, ca: Path | None) -> Any:
    """Make the client inside its loop."""
    return grpc_sdk.AsyncCerbosClient(served.grpc, tls_verify=str(ca) if ca else False, timeout_secs=20)


def grpc_channel(address: str, ca: Path | None) -> grpc.Channel:
    """Open a channel of gRPC's own."""
    if ca is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()))


def trailers(error: grpc.RpcError) -> dict[str, Any]:
    """Return the metadata that came with a refusal."""
    found: Any = error
    return {each.key: each.value for each in found.trailing_metadata() or ()}


# --- npm: @cerbos/http and @cerbos/grpc -------------------------------------------------------------------


@dataclass(slots=True)
class Node:
    """A client of npm in a process of its own; see ``clients/answers.mjs``."""

    process: subprocess.Popen[str]
    lacks: frozenset[str] = field(default_factory=frozenset)

    def check(self, request: Json) -> Json:
        return self._ask("checkResources", _for_node(request), _node_results)

    def is_allowed(self, request: Json) -> bool | Json:
        (entry,) = request["resources"]
        asked = _for_node({**request, "resource": entry["resource"], "action": entry["actions"][0]})
        asked.pop("resources")
        told = self._ask("isAllowedWithPrincipal", asked, lambda answer: {"allowed": answer})
        return bool(told["allowed"]) if "allowed" in told else told

    def plan(self, request: Json) -> Json:
        return self._ask("planResources", _for_node(request), _node_plan)

    def server_info(self) -> Json:
        return self._ask("serverInfo", {}, dict)

    def is_healthy(self, service: str) -> bool:
        request = {"service": service} if service else {}
        found = self._ask("checkHealth", request, dict)
        return bool(found.get("status") == "SERVING")

    def _ask(self, call: str, request: Json, read: Callable[[Any], Json]) -> Json:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"call": call, "request": request}) + "\n")
        stdin.flush()
        told = json.loads(stdout.readline())
        if "error" in told:
            return {"error": {"code": told["error"].get("code"), "message": told["error"].get("details")}}
        return read(told["answer"])


def _for_node(request: Json) -> Json:
    return {
        "includeMetadata" if name == "includeMeta" else name: value
        for name, value in request.items()
        if not (name == "auxData" and "jwts" in value)
    }


def _node_results(answer: Json) -> Json:
    return {"results": [result(_node_entry(entry)) for entry in answer["results"]]}


def _node_entry(entry: Json) -> Json:
    meta = entry.get("metadata")
    return {
        "resource": entry["resource"],
        "actions": entry["actions"],
        "validationErrors": entry["validationErrors"],
        "outputs": [
            {"src": output["source"], "action": output["action"], "val": output["value"]}
            for output in entry["outputs"]
        ],
        "meta": meta and {name: _without_empty(value) for name, value in meta.items() if value},
    }


def _without_empty(value: Any) -> Any:
    """Leave out the empty texts that protobuf cannot tell from missing ones."""
    if isinstance(value, dict):
        return {name: _without_empty(item) for name, item in value.items() if item != ""}
    return value


def _node_plan(answer: Json) -> Json:
    condition = answer.get("condition")
    return plan({"kind": answer["kind"], "condition": condition and _node_operand(condition)})


def _node_operand(operand: Json) -> Json:
    if "operator" in operand:
        operands = [_node_operand(each) for each in operand["operands"]]
        return {"expression": {"operator": operand["operator"], "operands": operands}}
    return {"variable": operand["name"]} if "name" in operand else {"value": operand["value"]}


@contextlib.contextmanager
def _node(package: str, target: str, ca: Path | None) -> Iterator[Client]:
    command, environment = node_command(package, "client.mjs", target, *([str(ca)] if ca else []))
    process = subprocess.Popen(  # noqa: S603  # node, and a script of ours
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | ({"NODE_EXTRA_CA_CERTS": str(ca)} if ca else {}),
    )
    with process:
        yield Node(process)
        assert process.stdin is not None
        process.stdin.close()


def node_http(served: Served, ca: Path | None) -> contextlib.AbstractContextManager[Client]:
    return _node("http", served.http, ca)


def node_grpc(served: Served, ca: Path | None) -> contextlib.AbstractContextManager[Client]:
    return _node("grpc", served.grpc, ca)


CLIENTS: Mapping[str, Callable[[Served, Path | None], contextlib.AbstractContextManager[Client]]] = {
    "python-http": python_http,
    "python-http-async": python_http_async,
    "python-grpc": python_grpc,
    "python-grpc-async": python_grpc_async,
    "node-http": node_http,
    "node-grpc": node_grpc,
}
"""How to open each client for a server; with the file of a CA, over TLS."""
