"""One set of servers for all tests that break nothing, and the servers' logs beside a test that fails."""

from __future__ import annotations

import json
import shutil
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import yaml

from stack import POLICIES, Configuration, Stack
from tests.e2e.harness import RUNNING, Gateway, bare_listener, running
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LOG_LINES = 60


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the end of every server's log to a failure; the whole logs stay in pytest's temporary folder."""
    report = yield
    if report.failed:
        for stack in RUNNING:
            for child in (stack.api, stack.extauthz, stack.envoy):
                report.sections.append((str(child.log), "\n".join(child.output().splitlines()[-LOG_LINES:])))
    return report


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """Copy the demo's policies, to be edited."""
    return Path(shutil.copytree(POLICIES, tmp_path / "policies"))


@pytest.fixture(scope="session")
def bare_port() -> int:
    """Choose the port of the listener that does nothing for safety itself."""
    return free_port()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, bare_port: int) -> Iterator[Stack]:
    """Run the demo's servers, with a second, bare listener at the gateway and a gRPC service behind it."""
    directory = tmp_path_factory.mktemp("stack")
    prepared = Stack(directory, gateway=bare_listener(bare_port), settings=with_further_routes)
    with running(prepared) as started, GrpcService(started.ports.grpc):
        yield started


@pytest.fixture(scope="session")
def gateway(stack: Stack) -> Iterator[Gateway]:
    """Talk to the listener as ``envoy/envoy.yaml`` has it."""
    client = Gateway(stack)
    yield client
    client.close()


@pytest.fixture(scope="session")
def bare(stack: Stack, bare_port: int) -> Iterator[Gateway]:
    """Talk to the listener that passes paths and header names on as they come."""
    client = Gateway(stack, bare_port)
    yield client
    client.close()


FURTHER_ROUTES = """
- match: {path: /expenses.v1.Expenses/List}
  actions: {POST: list}
  resource: {kind: expense, id: "*"}
  allow: {headers: {x-authz-principal: {expr: principal.id}}}
- match: {path: /expenses.v1.Expenses/Delete}
  actions: {POST: delete}
  resource: {kind: expense, id: "*"}
- match: {path: /healthz/deep}
  decision: allow
  allow:
    responseHeaders: {x-decided-by: extauthz}
    query: {remove: [debug]}
"""
"""Routes beside the demo's: a gRPC service, and an answer that does what the demo's do not."""


def with_further_routes(settings: Configuration) -> Configuration:
    """Add them to the demo's configuration."""
    settings["extAuthz"]["routes"] += yaml.safe_load(FURTHER_ROUTES)
    return settings


@pytest.fixture
def grpc_channel(stack: Stack) -> Iterator[grpc.Channel]:
    """Connect to the gateway as a gRPC client."""
    with grpc.insecure_channel(f"127.0.0.1:{stack.ports.gateway}") as channel:
        yield channel


class GrpcService:
    """A gRPC service that answers every call with the metadata it was called with, as JSON."""

    def __init__(self, port: int):
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
        handler: Any = grpc.unary_unary_rpc_method_handler(_echo)
        calls: dict[str, Any] = {"List": handler, "Delete": handler}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("expenses.v1.Expenses", calls)]
        )
        self._server.add_insecure_port(f"127.0.0.1:{port}")

    def __enter__(self) -> None:
        self._server.start()

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


def _echo(_: bytes, context: grpc.ServicerContext) -> bytes:
    metadata: dict[str, Any] = {key: str(value) for key, value in context.invocation_metadata()}
    return json.dumps(metadata).encode()
