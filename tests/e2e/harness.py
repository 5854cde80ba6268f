"""Drives the demo's servers (``envoy/demo/stack.py``) as clients do, and looks at what reached the API."""

from __future__ import annotations

import copy
import json
import re
import socket
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from tokens import PEOPLE, Person

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stack import Configuration, Stack

CASES = Path(__file__).resolve().parents[1] / "cases"

BY_NAME = {person.name: person for person in PEOPLE}

RUNNING: list[Stack] = []
"""The stacks under test at the moment: their logs go into the report of a test that fails."""

IDENTITY = "x-authz-"


def cases(name: str) -> list[dict[str, Any]]:
    """Read a decision table."""
    loaded: list[dict[str, Any]] = yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))
    return loaded


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Start *stack*; at the end it is gone at once: how servers leave in good order has tests of its own."""
    RUNNING.append(stack)
    try:
        stack.start()
        yield stack
    finally:
        for child in (stack.envoy, stack.extauthz, stack.api):
            child.kill()
        stack.close()
        RUNNING.remove(stack)


def connection_manager(listener: Configuration) -> Configuration:
    """Find the HTTP connection manager of a listener."""
    found: Configuration = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def ext_authz(configuration: Configuration) -> Configuration:
    """Find the ext_authz filter of a gateway's first listener."""
    filters = connection_manager(configuration["static_resources"]["listeners"][0])["http_filters"]
    found: Configuration = next(each for each in filters if each["name"] == "envoy.filters.http.ext_authz")
    typed: Configuration = found["typed_config"]
    return typed


def marked_log(configuration: Configuration) -> Configuration:
    """Let the access log name each request's mark."""
    for listener in configuration["static_resources"]["listeners"]:
        log = connection_manager(listener)["access_log"][0]["typed_config"]["log_format"]
        log["json_format"]["mark"] = "%REQ(X-MARK)%"
    return configuration


def bare_listener(port: int) -> Callable[[Configuration], Configuration]:
    """Add a listener that passes paths and header names on as they come: all defence is extauthz's own."""

    def added(configuration: Configuration) -> Configuration:
        listeners = configuration["static_resources"]["listeners"]
        bare = copy.deepcopy(listeners[0])
        bare["name"] = "bare"
        bare["address"]["socket_address"]["port_value"] = port
        manager = connection_manager(bare)
        manager["normalize_path"] = False
        manager["path_with_escaped_slashes_action"] = "KEEP_UNCHANGED"
        manager["common_http_protocol_options"]["headers_with_underscores_action"] = "ALLOW"
        listeners.append(bare)
        return marked_log(configuration)

    return added


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the requests that reached the API because of it."""

    status: int
    headers: httpx.Headers
    text: str
    arrivals: tuple[Mapping[str, Any], ...]
    mark: str
    """The request's ``x-mark``, by which it is found again."""

    @property
    def problem(self) -> dict[str, Any]:
        """The body, which has to be a problem (RFC 9457)."""
        assert self.headers["content-type"].startswith("application/problem+json"), (self.headers, self.text)
        loaded: dict[str, Any] = json.loads(self.text)
        return loaded

    @property
    def arrived(self) -> Mapping[str, Any]:
        """The one request that reached the API."""
        (arrival,) = self.arrivals
        return arrival

    @property
    def identity(self) -> list[tuple[str, str]]:
        """The headers by which the API could take the request for somebody's, under any spelling, sorted."""
        return sorted((name, value) for name, value in self.arrived["headers"] if looks_like_identity(name))


def looks_like_identity(name: str) -> bool:
    """Whether a careless service reads *name* as one of the headers that extauthz owns."""
    return name.lower().replace("_", "-").replace(".", "-").startswith(IDENTITY)


class Gateway:
    """A client of one of the gateway's listeners."""

    def __init__(self, stack: Stack, port: int | None = None):
        self.stack = stack
        self.port = port or stack.ports.gateway
        self.url = f"http://127.0.0.1:{self.port}"
        self._client = httpx.Client(base_url=self.url, timeout=10)
        self._api = httpx.Client(base_url=f"http://127.0.0.1:{stack.ports.api}", timeout=10)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._api.close()

    def send(
        self,
        request: str,
        who: Person | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        json: object = None,
        content: str | bytes | None = None,
    ) -> Reply:
        """Send ``METHOD target`` as *who* (or with *token*) and tell what came of it."""
        method, target = request.split(" ", 1)
        mark = uuid.uuid4().hex
        sent = [("x-mark", mark), *self._credentials(who, token), *(headers or {}).items()]
        response = self._client.request(method, target, headers=sent, json=json, content=content)
        return Reply(response.status_code, response.headers, response.text, self.arrivals(mark), mark)

    def raw(self, target: bytes, *lines: bytes, method: bytes = b"GET", who: Person | None = None) -> Reply:
        """Send a request whose target and header lines are exactly these bytes."""
        mark = uuid.uuid4().hex
        token = [f"authorization: Bearer {self.stack.issuer.token(who)}".encode()] if who else []
        fixed = (b"host: 127.0.0.1", b"connection: close", b"x-mark: " + mark.encode())
        head = b"\r\n".join((method + b" " + target + b" HTTP/1.1", *fixed, *token, *lines, b"", b""))
        status, headers, text = _parse(_exchange(self.port, head))
        return Reply(status, headers, text, self.arrivals(mark), mark)

    def arrivals(self, mark: str) -> tuple[Mapping[str, Any], ...]:
        """Ask the API, directly, which requests came with *mark*."""
        return tuple(self._api.get("/arrivals", params={"mark": mark}).json())

    def _credentials(self, who: Person | None, token: str | None) -> list[tuple[str, str]]:
        bearer = self.stack.issuer.token(who) if who and token is None else token
        return [("authorization", f"Bearer {bearer}")] if bearer else []


def _exchange(port: int, data: bytes) -> bytes:
    """Send *data*; the answer, without waiting for the end of a connection that Envoy closes with a delay."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        while not _complete(answer) and (received := connection.recv(65536)):
            answer += received
    return answer


def _complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def _parse(answer: bytes) -> tuple[int, httpx.Headers, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = httpx.Headers(
        [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    )
    return int(status.split(" ")[1]), headers, body.decode("utf-8", "replace")


@dataclass(slots=True)
class Traffic:
    """Requests that run in the background, one after the other, from a client of their own."""

    url: str
    request: str
    token: str
    answers: list[tuple[float, int | str]] = field(default_factory=list)
    """When an answer came (monotonic seconds) and its status, or what went wrong instead."""
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def statuses(self) -> list[int | str]:
        """The answers without their times."""
        return [status for _, status in self.answers]

    def since(self, moment: float) -> list[int | str]:
        """Pick the answers that came after *moment*."""
        return [status for when, status in self.answers if when > moment]

    def run(self) -> None:
        """Ask until stopped."""
        method, target = self.request.split(" ", 1)
        headers = {"authorization": f"Bearer {self.token}", "x-mark": self.request}
        with httpx.Client(base_url=self.url, timeout=10, headers=headers) as client:
            while not self._stopping.is_set():
                self.answers.append((time.monotonic(), self._ask(client, method, target)))
                time.sleep(0.005)  # two cores for everybody

    def stop(self) -> None:
        """Finish the request under way and no other."""
        self._stopping.set()

    @staticmethod
    def _ask(client: httpx.Client, method: str, target: str) -> int | str:
        try:
            return client.request(method, target).status_code
        except httpx.HTTPError as error:
            return repr(error)


@contextmanager
def traffic(stack: Stack, *requests: tuple[str, Person]) -> Iterator[tuple[Traffic, ...]]:
    """Keep asking each of *requests* (``METHOD target``, who) while the body runs."""
    flows = tuple(Traffic(stack.url, request, stack.issuer.token(who)) for request, who in requests)
    threads = [threading.Thread(target=flow.run) for flow in flows]
    for thread in threads:
        thread.start()
    try:
        yield flows
    finally:
        for flow in flows:
            flow.stop()
        for thread in threads:
            thread.join()


def eventually(holds: Callable[[], bool], patience: float = 5.0) -> float:
    """Wait until *holds*; how long that took, in seconds. Fails when *patience* is over."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < patience, f"not within {patience} s"
        time.sleep(0.02)
    return time.monotonic() - began


def access_log(stack: Stack, mark: str) -> dict[str, Any]:
    """Find the entry of the gateway's access log for the request with *mark* (see :func:`marked_log`)."""
    found: list[dict[str, Any]] = []

    def logged() -> bool:
        lines = [line for line in stack.envoy.output().splitlines() if line.startswith("{")]
        found[:] = [entry for entry in map(json.loads, lines) if entry["mark"] == mark]
        return bool(found)

    eventually(logged)
    return found[-1]
