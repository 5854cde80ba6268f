"""Ask a running server as Envoy would, and show what it says.

The messages are built and read with ``envoy-data-plane``'s own codec, which shares no code with the server's:
what this shows is what another reader of the protocol sees.
"""

from __future__ import annotations

import datetime
import enum
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.auth import v3 as auth
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console, RenderableType

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"


class QuestionError(ValueError):
    """What was typed cannot be asked; worded for the person who typed it."""


class ServerError(Exception):
    """The server could not be reached or had no answer; worded for the person who asks."""


class Verdict(enum.Enum):
    """What Envoy makes of an answer; the values are exit codes."""

    ALLOW = 0
    DENY = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Question:
    """A request as Envoy would describe it."""

    url: str
    method: str = "GET"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    principal: str = ""
    """Of the client's certificate."""
    source: str = "127.0.0.1"
    """The client's address."""
    context: Mapping[str, str] = field(default_factory=dict)
    """``context_extensions`` of the route in Envoy."""


def check_request(question: Question) -> bytes:
    """Serialize the CheckRequest for *question*, with the pseudo headers and the request id that Envoy adds.

    Raises:
        QuestionError: the URL has no host.

    """
    scheme, authority, path = _target(question.url)
    text, raw = _body(question.body)
    request_id = str(uuid.uuid4())
    http = auth.AttributeContextHttpRequest(
        id=request_id,
        method=question.method,
        headers=_headers(question, authority, path, request_id),
        path=path,
        host=authority,
        scheme=scheme,
        size=len(question.body),
        protocol="HTTP/1.1",
        body=text,
        raw_body=raw,
    )
    now = datetime.datetime.now(datetime.UTC)
    context = auth.AttributeContext(
        source=auth.AttributeContextPeer(address=_address(question.source), principal=question.principal),
        destination=auth.AttributeContextPeer(address=_address("127.0.0.1")),
        request=auth.AttributeContextRequest(time=now, http=http),
        context_extensions=dict(question.context),
    )
    return bytes(auth.CheckRequest(attributes=context))


_URL: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<authority>[^/?#]+)(?P<path>.*)", re.DOTALL
)


def _target(url: str) -> tuple[str, str, str]:
    """Split into scheme, authority and path with query, without tidying up: an attack is asked as typed."""
    found = _URL.fullmatch(url)
    if found is None:
        raise QuestionError(f"`{url}` has no host: write `https://api.example.com/path`")
    path = found["path"]
    return found["scheme"] or "http", found["authority"], path if path.startswith("/") else f"/{path}"


def _headers(question: Question, authority: str, path: str, request_id: str) -> dict[str, str]:
    """Join repeated headers with a comma, as Envoy does; names are lower case."""
    joined = {":authority": authority, ":method": question.method, ":path": path, "x-request-id": request_id}
    if question.body:
        joined["content-length"] = str(len(question.body))
    for name, value in question.headers:
        key = name.lower()
        joined[key] = f"{joined[key]},{value}" if key in joined else value
    return joined


def _body(body: bytes) -> tuple[str, bytes]:
    """Choose the field: ``body`` for text, ``raw_body`` for anything else."""
    try:
        return body.decode(), b""
    except UnicodeDecodeError:
        return "", body


def _address(ip: str) -> core.Address:
    return core.Address(socket_address=core.SocketAddress(address=ip, port_value=50000))


@dataclass(frozen=True, slots=True)
class Tls:
    """How to talk TLS: PEM, as read from files."""

    ca: bytes | None = None
    """None: the CAs that gRPC brings."""
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str = ""
    """The name that the server's certificate must have, when it is not the address."""


def send(
    request: bytes, address: str, *, tls: Tls | None = None, timeout: float = 5.0
) -> tuple[bytes, float]:
    """Send a serialized CheckRequest to *address*; return the answer and how many seconds it took.

    Raises:
        ServerError: it could not be reached, took too long or gave an error.

    """
    began = time.perf_counter()
    with _channel(address, tls) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        try:
            answer = check(request, timeout=timeout)
        except grpc.RpcError as error:
            raise _in_words(error, address, timeout) from error
    return answer, time.perf_counter() - began


_HINTS: Final = {
    grpc.StatusCode.UNAVAILABLE: "is it running, is the address right, does it talk TLS?",
    grpc.StatusCode.UNIMPLEMENTED: "something else listens there: ask its gRPC port",
    grpc.StatusCode.DEADLINE_EXCEEDED: "see `--timeout`",
}


def _in_words(error: grpc.RpcError, address: str, timeout: float) -> ServerError:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        details = f"no answer within {timeout:g} s"
    hint = f" ({_HINTS[code]})" if code in _HINTS else ""
    return ServerError(f"`{address}` gave no decision: {code.name}: {details}{hint}")


def _channel(address: str, tls: Tls | None) -> grpc.Channel:
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    if tls is None:
        return grpc.insecure_channel(address, options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.secure_channel(
        address, grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate), options
    )


# --- the answer -------------------------------------------------------------------------------------------


def verdict(answer: auth.CheckResponse) -> Verdict:
    """Read an answer as Envoy's client does (``ext_authz_grpc_impl.cc``): the status code alone decides."""
    if answer.status is None or answer.status.code == 0:
        return Verdict.ALLOW
    return Verdict.ERROR if answer.error_response is not None else Verdict.DENY


_SHOWN: Final = {
    Verdict.ALLOW: Text("allow", "bold green"),
    Verdict.DENY: Text("deny", "bold red"),
    Verdict.ERROR: Text("error", "bold yellow"),
}


def show(data: bytes, seconds: float, console: Console) -> Verdict:
    """Print a serialized CheckResponse and return what Envoy makes of it."""
    answer = auth.CheckResponse.parse(data)
    found = verdict(answer)
    code = 0 if answer.status is None else answer.status.code
    console.print(_SHOWN[found], Text(f"gRPC code {code}, {seconds * 1000:.1f} ms with connecting", "dim"))
    for part in _parts(answer):
        console.print(part, soft_wrap=isinstance(part, Text))  # JSON stays one that can be copied
    if found is Verdict.ALLOW and answer.ok_response is None:
        console.print(
            Text("an answer with code 0 and no ok_response still lets the request through", "yellow")
        )
    return found


def _parts(answer: auth.CheckResponse) -> list[RenderableType]:
    """Whatever the answer holds, in the order in which Envoy applies it."""
    parts: list[RenderableType] = []
    if (ok := answer.ok_response) is not None:
        parts += _header_table("to the upstream", ok.headers)
        parts += _list("removed from the request", ok.headers_to_remove)
        parts += _header_table("to the client", ok.response_headers_to_add)
        parts += _list(
            "query parameters set", [f"{each.key}={each.value}" for each in ok.query_parameters_to_set]
        )
        parts += _list("query parameters removed", ok.query_parameters_to_remove)
    for response in (answer.denied_response, answer.error_response):
        parts += [] if response is None else _denial(response)
    if answer.dynamic_metadata is not None:
        metadata = json.dumps(answer.dynamic_metadata.to_dict(), indent=2, ensure_ascii=False)
        parts += [_title("dynamic metadata"), Text(metadata)]
    return parts


def _denial(response: auth.DeniedHttpResponse) -> list[RenderableType]:
    status = 0 if response.status is None else int(response.status.code)
    parts: list[RenderableType] = [Text(f"HTTP status {status or 'not set (Envoy sends 403)'}")]
    parts += _header_table("to the client", response.headers)
    if response.body:
        parts += [_title("body"), Text(response.body)]
    return parts


def _title(text: str) -> Text:
    return Text(f"{text}:", "bold")


def _list(title: str, items: Sequence[str]) -> list[RenderableType]:
    return [_title(title), Text("  " + ", ".join(items))] if items else []


def _header_table(title: str, headers: Sequence[core.HeaderValueOption]) -> list[RenderableType]:
    if not headers:
        return []
    table = Table("header", title=f"headers {title}", title_justify="left", title_style="bold")
    table.add_column("value", overflow="fold")
    table.add_column("how")
    for option in headers:
        header = option.header or core.HeaderValue()
        value = header.value or header.raw_value.decode("utf-8", "replace")
        table.add_row(escape(header.key), escape(value), append_semantics(option))
    return [table]


_ACTION = core.HeaderValueOptionHeaderAppendAction
_ACTIONS: Final = {
    _ACTION.APPEND_IF_EXISTS_OR_ADD: "append or add",
    _ACTION.ADD_IF_ABSENT: "add if absent",
    _ACTION.OVERWRITE_IF_EXISTS_OR_ADD: "overwrite or add",
    _ACTION.OVERWRITE_IF_EXISTS: "overwrite if there",
}


def append_semantics(option: core.HeaderValueOption) -> str:
    """Say what Envoy does with a header when there is one of that name already.

    With both fields set as one, all versions agree. With neither, Envoy 1.37.0 appends where others overwrite
    (envoy 43310): a client's own copy survives.
    """
    action = _ACTIONS.get(option.append_action, f"action {int(option.append_action)}")
    if option.append is None:
        unset = option.append_action == _ACTION.APPEND_IF_EXISTS_OR_ADD
        return "differs between versions of Envoy: nothing is set" if unset else action
    appends = option.append_action == _ACTION.APPEND_IF_EXISTS_OR_ADD
    if option.append != appends:
        return f"differs between versions of Envoy: append={str(option.append).lower()}, {action}"
    return action
