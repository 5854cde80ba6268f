"""Serving processes: started for real, signalled for real, asked over loopback."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from tests.extauthz.processes import (
    METHOD,
    Client,
    Process,
    Start,
    answering_process,
    children_of,
    waited,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["grpcio", "envoy"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start servers with each of the transports: what is told here is true of both."""
    starting = Start(request.param)
    yield starting
    starting.end()


# --- one process ------------------------------------------------------------------------------------------


def test_one_worker(start: Start) -> None:
    """With one worker one process answers on both ports, and SIGTERM ends it with 0."""
    server = start()
    server.wait_until_ready()
    with Client(server.grpc) as client:
        assert [answering_process(client.ask())] == server.workers()
    assert httpx.get(f"{server.http}/healthz").text == "ok\n"
    server.signal()
    assert server.exit_code() == 0
    assert server.logged("app stopped")


def test_readiness_lists_parts_and_reasons(start: Start) -> None:
    """``/readyz`` is 503 with the reason of each part until all are ready; ``/healthz`` is always 200."""
    server = start(ready_after=2.0)
    first = waited(server.readiness)
    assert first is not None
    assert first.status_code == 503
    assert {"name": "policies", "ready": False, "detail": "not loaded yet"} in first.json()["components"]
    assert httpx.get(f"{server.http}/healthz").status_code == 200
    with Client(server.grpc) as client:
        assert client.health() == "NOT_SERVING"
        server.wait_until_ready()
        assert waited(lambda: client.health() == "SERVING")


def test_health_answers_while_the_service_starts(start: Start) -> None:
    """Until the service has started the HTTP port says that it is starting."""
    server = start(start_takes=1.5)
    first = waited(server.readiness)
    assert first is not None
    assert first.json()["components"] == [
        {"name": "policies", "ready": True},
        {"name": "server", "ready": False, "detail": "is starting"},
    ]
    server.wait_until_ready()


def test_the_api_over_http_waits_for_the_service(start: Start) -> None:
    """Whoever asks for a decision before the service has started is told to come again."""
    server = start(start_takes=60)
    waited(server.readiness)
    api = httpx.post(f"{server.http}/api/check/resources")
    assert (api.status_code, api.json()) == (503, {"code": 14, "message": "the server is starting"})


def test_without_the_pdp_api_there_is_nothing_more(start: Start) -> None:
    """A service without the PDP API has health checks on its HTTP port and nothing else."""
    server = start()
    server.wait_until_ready()
    api = httpx.post(f"{server.http}/api/check/resources")
    assert (api.status_code, api.json()) == (404, {"code": 5, "message": "Not Found"})


def test_a_signal_during_the_start_ends_it(start: Start) -> None:
    """SIGTERM while the service is still starting ends the process with 0 at once."""
    server = start(start_takes=60)
    waited(server.readiness)
    server.signal()
    assert server.exit_code() == 0


def test_a_second_signal_ends_at_once(start: Start) -> None:
    """After a second SIGTERM requests under way get an error, the log counts them, the exit code is 1."""
    server = start(drain="30s")
    server.wait_until_ready()
    with Client(server.grpc) as client:
        client.ask()
        call = client.asking(b"sleep")
        time.sleep(0.2)
        server.signal()
        server.wait_for_log("stopping")
        began = time.monotonic()
        server.signal()
        assert server.exit_code() == 1
        assert time.monotonic() - began < 5
        assert isinstance(error := call.exception(), grpc.RpcError)
        assert error.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
    line = server.logged("stopped at once")
    assert line is not None
    assert line["unanswered"] == 1


def test_unix_sockets(start: Start, tmp_path: Path) -> None:
    """Both ports can be unix sockets; what an earlier run left there is replaced."""
    check, health = tmp_path / "check.sock", tmp_path / "health.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(health))
    server = start(f"unix:{check}", f"unix:{health}")
    server.wait_for_log("listening")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(health))) as client:
        waited(lambda: client.get("http://localhost/readyz").status_code == 200)
    with Client(f"unix:{check}") as checking:
        assert [answering_process(checking.ask())] == server.workers()


# --- what cannot start ------------------------------------------------------------------------------------


def taken_port() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("port", ["grpc", "http"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_in_use_is_said(start: Start, port: str, workers: int) -> None:
    """A port that somebody else has ends the start with 1 and a line that names it."""
    with taken_port() as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        addresses = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", port: address}
        server = start(addresses["grpc"], addresses["http"], workers=workers)
        assert server.exit_code() == 1
    line = server.logged(f"cannot start: cannot listen on `{address}`: address already in use")
    assert line is not None
    assert "exception" not in line


def test_a_shared_port_is_said(start: Start) -> None:
    """A second server on the same port starts, and says that it gets a part of the requests."""
    first = start()
    first.wait_until_ready()
    second = start(first.grpc)
    second.wait_until_ready()
    assert second.logged(f"another process shares `{first.grpc}`")
    assert first.logged("another process shares") is None


@pytest.mark.parametrize("workers", [1, 3])
def test_a_service_that_cannot_be_built_ends_with_1(start: Start, workers: int) -> None:
    """When workers cannot start, the server ends with 1 instead of trying for ever."""
    server = start(workers=workers, fail_build=True)
    assert server.exit_code() == 1
    line = server.logged("cannot start")
    assert line is not None
    assert "policies are broken" in line["exception"]


def test_a_unix_socket_has_one_worker(start: Start, tmp_path: Path) -> None:
    """Several workers cannot share a unix socket: the start is refused with what to do."""
    server = start(f"unix:{tmp_path}/check.sock", workers=2)
    assert server.exit_code() == 1
    assert server.logged("set `workers: 1`")


# --- several workers --------------------------------------------------------------------------------------


def processes_that_answer(address: str, connections: int = 24) -> set[int]:
    found = set()
    for _ in range(connections):
        with Client(address) as client:
            found.add(answering_process(client.ask()))
    return found


def test_workers_share_the_port(start: Start) -> None:
    """With two workers connections are spread over two processes, neither of them the parent."""
    server = start(workers=2)
    server.wait_until_ready()
    assert processes_that_answer(server.grpc) == set(server.workers())
    server.signal()
    assert server.exit_code() == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_sighup_reloads_in_every_worker(start: Start, workers: int) -> None:
    """SIGHUP reaches each process that serves, each time, and ends none of them."""
    server = start(workers=workers)
    server.wait_until_ready()
    serving = set(server.workers()) or {server.popen.pid}
    server.signal(signal.SIGHUP)
    waited(lambda: reloads(server) == dict.fromkeys(serving, 1))
    server.signal(signal.SIGHUP)
    waited(lambda: reloads(server) == dict.fromkeys(serving, 2))
    assert server.is_ready()
    server.signal()
    assert server.exit_code() == 0


def reloads(server: Process) -> dict[int, int]:
    """Count how often each process was told to reload."""
    told = (line["worker"] for line in list(server.lines) if line["message"] == "told to reload")
    return dict(collections.Counter(told))


def test_sighup_during_the_start_ends_nothing(start: Start) -> None:
    """Workers that are still starting live on: they will read everything anyway."""
    server = start(workers=2, start_takes=1.0)
    server.wait_for_log("listening")  # before, children are programs that look for libraries
    waited(lambda: children_of(server.popen.pid))
    server.signal(signal.SIGHUP)
    server.wait_until_ready()
    assert server.logged("ended") is None


def test_a_worker_that_ends_is_started_again(start: Start) -> None:
    """A crash of one worker is logged, the others serve on, readiness waits for its successor."""
    server = start(workers=2)
    server.wait_until_ready()
    before = set(server.workers())
    with Client(server.grpc) as client, pytest.raises(grpc.RpcError):
        client.ask(b"exit")
    (left,) = processes_that_answer(server.grpc, 4)
    assert left in before
    answer = server.readiness()
    assert answer is not None
    assert answer.status_code == 503
    assert "is starting" in answer.text
    server.wait_for_log("ended (exit code 3): starting it again")
    server.wait_until_ready()
    assert processes_that_answer(server.grpc) == set(server.workers())
    assert len(before & set(server.workers())) == 1


def test_workers_leave_when_the_parent_dies(start: Start) -> None:
    """A parent that is killed leaves no workers behind."""
    server = start(workers=2, drain="1s")
    server.wait_until_ready()
    workers = server.workers()
    server.signal(signal.SIGKILL)
    server.popen.wait(10)
    waited(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_control_c_stops_once(start: Start) -> None:
    """SIGINT to the whole group, as a terminal sends it, is one signal: nothing under way is cut off."""
    server = start(workers=2, drain="10s", pause=1.0)
    server.wait_until_ready()
    with Client(server.grpc) as client:
        call = client.asking(b"question")
        time.sleep(0.3)
        for pid in (server.popen.pid, *children_of(server.popen.pid)):
            os.kill(pid, signal.SIGINT)
        assert call.result().endswith(b"question")
    assert server.exit_code() == 0


# --- no request lost --------------------------------------------------------------------------------------


async def hammer(address: str, enough: asyncio.Event, clients: int) -> collections.Counter[str]:
    """Ask without pause, as *clients* that each wait for their answer; count answers and errors.

    What a client does about its connection (connect anew after GOAWAY, try again when none can be had) is all
    the help there is: no request that a server has begun with is ever sent again. What gRPC itself has put on
    a connection in the moment that it hears GOAWAY there, and takes off again, it sends on another one.
    """
    counts: collections.Counter[str] = collections.Counter()
    options = [("grpc.use_local_subchannel_pool", 1)]
    connections = 4
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            for _ in range(connections)
        ]

        async def client(channel: grpc.aio.Channel) -> None:
            check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            while not enough.is_set():
                try:
                    answer = await check(b"question", timeout=10, wait_for_ready=True)
                    counts[str(answering_process(answer))] += 1
                except grpc.aio.AioRpcError as error:
                    counts[f"{error.code().name}: {error.details()}"] += 1

        await asyncio.gather(*(client(channels[index % connections]) for index in range(clients)))
    return counts


async def replaced(
    start: Start, first: Process, clients: int, **behaviour: Any
) -> tuple[collections.Counter[str], Process]:
    """Put a second server beside *first*, let *first* leave under load, and go on for a second."""
    enough = asyncio.Event()
    hammering = asyncio.create_task(hammer(first.grpc, enough, clients))
    second = start(first.grpc, **behaviour)
    await asyncio.to_thread(second.wait_until_ready)
    first.signal()
    assert await asyncio.to_thread(first.exit_code) == 0
    await asyncio.sleep(1)
    enough.set()
    return await hammering, second


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_request_is_lost_when_a_server_leaves(start: Start, workers: int) -> None:
    """SIGTERM under load beside a second server: every request is answered, by the one or the other."""
    first = start(workers=workers, drain="10s")  # clients on a busy machine hear late that they are to go
    await asyncio.to_thread(first.wait_until_ready)
    leaving = first.workers()
    counts, second = await replaced(start, first, clients=24)
    (successor,) = map(str, second.workers())
    assert set(counts) <= {*map(str, leaving), successor}, "answers of processes, and no error"
    assert counts[successor], "the second server took over"
    assert counts.total() > counts[successor], "the first one served before"


async def test_slow_requests_are_answered_while_a_server_leaves(start: Start) -> None:
    """Requests that take long are answered too when the server is told to stop in the middle of them."""
    first = start(drain="8s", pause=0.4)
    await asyncio.to_thread(first.wait_until_ready)
    leaving = first.workers()
    counts, second = await replaced(start, first, clients=16, pause=0.4)
    assert set(counts) == {*map(str, leaving), *map(str, second.workers())}
