"""CheckRequests as Envoy builds them, made with envoy-data-plane's own codec.

The builder follows ``check_request_utils.cc``: pseudo headers among the headers, names in lower case,
repeated headers joined with a comma or, as ``encode_raw_headers`` has it, told apart in ``header_map``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    HeaderMap,
    HeaderValue,
    Metadata,
    SocketAddress,
)
from envoy_data_plane.envoy.service.auth import v3 as auth
from envoy_data_plane.google.protobuf import Struct

Headers = Mapping[str, str] | Iterable[tuple[str, str | bytes]]

START = datetime.datetime(2026, 10, 1, 12, 0, 0, 250_000, tzinfo=datetime.UTC)


def check_request(
    method: str = "GET",
    url: str = "https://api.example.com/",
    headers: Headers = (),
    *,
    token: str | None = None,
    raw: bool = False,
    both: bool = False,
    body: str | None = None,
    raw_body: bytes | None = None,
    truncated: bool = False,
    principal: str = "",
    certificate: str = "",
    service: str = "",
    client: str = "192.0.2.10",
    context: Mapping[str, str] | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    route_metadata: Mapping[str, Mapping[str, Any]] | None = None,
    sni: str | None = None,
    time: datetime.datetime | None = START,
    protocol: str = "HTTP/1.1",
    http: Mapping[str, Any] | None = None,
) -> bytes:
    """Serialize the CheckRequest for one HTTP request.

    The path and query of the absolute *url* become ``http.path`` and ``:path`` exactly as written. *headers*
    is a mapping, or pairs if a name is repeated; *token* is short for ``authorization: Bearer ...``. With
    *raw* they are sent as ``header_map`` (``encode_raw_headers``), with *both* in both forms. *certificate*
    is PEM text. The fields in *http* (of ``AttributeContext.HttpRequest``) replace what the rest says, to
    contradict it.
    """
    fields = pseudo_headers(method, url) + pairs(headers)
    if token is not None:
        fields.append(("authorization", f"Bearer {token}"))
    if body is not None or raw_body is not None:
        fields.append(("x-envoy-auth-partial-body", str(truncated).lower()))
    fields_of_http = {
        "id": "1234567890123456789",
        "method": method,
        "path": target(url),
        "host": urlsplit(url).netloc,
        "scheme": urlsplit(url).scheme,
        "size": len(raw_body or (body or "").encode()) or -1,
        "protocol": protocol,
        "body": body or "",
        "raw_body": raw_body or b"",
        "headers": {} if raw and not both else joined(fields),
        "header_map": header_map(fields) if raw or both else None,
    }
    attributes = auth.AttributeContext(
        source=peer(client, 51234, principal, certificate, service),
        destination=peer("198.51.100.1", 8443),
        request=auth.AttributeContextRequest(
            time=time, http=auth.AttributeContextHttpRequest(**{**fields_of_http, **(http or {})})
        ),
        context_extensions=dict(context or {}),
        metadata_context=struct_metadata(metadata),
        route_metadata_context=struct_metadata(route_metadata),
        tls_session=None if sni is None else auth.AttributeContextTlsSession(sni=sni),
    )
    return bytes(auth.CheckRequest(attributes=attributes))


def grpc_request(path: str = "/pkg.Service/Method", **more: Any) -> bytes:
    """Serialize what a gRPC library without Envoy sends (gRFC A92): no headers, body, scheme or host."""
    http = auth.AttributeContextHttpRequest(method="POST", path=path, size=-1, protocol="HTTP/2", **more)
    attributes = auth.AttributeContext(
        source=peer("192.0.2.10", 51234, "spiffe://example.org/client"),
        destination=peer("198.51.100.1", 8443),
        request=auth.AttributeContextRequest(time=START, http=http),
    )
    return bytes(auth.CheckRequest(attributes=attributes))


def pairs(headers: Headers) -> list[tuple[str, str | bytes]]:
    """List header fields in order."""
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)


def pseudo_headers(method: str, url: str) -> list[tuple[str, str | bytes]]:
    """List the pseudo headers Envoy shows beside the others (RFC 9113 §8.3.1)."""
    return [
        (":authority", urlsplit(url).netloc),
        (":path", target(url)),
        (":method", method),
        (":scheme", urlsplit(url).scheme),
    ]


def target(url: str) -> str:
    """Cut scheme and authority off *url*, and nothing else."""
    _, _, rest = url.partition("://")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def joined(fields: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Join repeated fields with a comma; bytes that are not UTF-8 become ``!``, one for each."""
    headers: dict[str, str] = {}
    for name, value in fields:
        headers[name] = f"{headers[name]},{sanitised(value)}" if name in headers else sanitised(value)
    return headers


def sanitised(value: str | bytes) -> str:
    """Envoy's ``MessageUtil::sanitizeUtf8String``."""
    if isinstance(value, str):
        return value
    return "".join("!" if "\udc80" <= c <= "\udcff" else c for c in value.decode(errors="surrogateescape"))


def header_map(fields: Iterable[tuple[str, str | bytes]]) -> HeaderMap:
    """One HeaderValue for each field, with its raw bytes."""
    return HeaderMap(
        headers=[
            HeaderValue(key=name, raw_value=value if isinstance(value, bytes) else value.encode())
            for name, value in fields
        ]
    )


def peer(
    address: str, port: int, principal: str = "", certificate: str = "", service: str = ""
) -> auth.AttributeContextPeer:
    """One end of a connection."""
    return auth.AttributeContextPeer(
        address=Address(socket_address=SocketAddress(address=address, port_value=port)),
        principal=principal,
        certificate=quote(certificate, safe=""),
        service=service,
    )


def struct_metadata(metadata: Mapping[str, Mapping[str, Any]] | None) -> Metadata | None:
    """Filter metadata by namespace."""
    if metadata is None:
        return None
    return Metadata(
        filter_metadata={name: Struct.from_dict(dict(values)) for name, values in metadata.items()}
    )
