"""Who is compared: how each server is started, and what it is asked."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extauthz import config, hosted
from extauthz.transport import envoy
from extauthz.transport.address import Address
from extauthz.transport.calls import Options
from tests.bench.empty_server import ASYNCIO, LISTENING, OURS
from tests.bench.h2load import LoadError
from tests.bench.peers import build, expenses, gateway
from tests.bench.processes import StartError, await_ready, listens, running
from tests.bench.service import CONFIGURATION, ISSUER, environment, user_token, write_policies
from tests.differential import oracle
from tests.extauthz.key_server import jwks, private_key
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from tests.bench.peers.expenses import Question

CORES: Final = os.cpu_count() or 1
AUDIENCE: Final = "api"
EMPTY: Final = Path(__file__).resolve().parents[1] / "empty_server.py"
GRPCIO: Final = "grpcio"
ENVOY: Final = "envoy"
FAULTS: Final = (LoadError, StartError, oracle.OracleError, OSError)
"""What a side can fail with."""
REGO: Final = Path(__file__).resolve().parent / "expenses.rego"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    roots: tuple[int, ...]
    """The processes that do its work; their children belong to it."""
    address: Address
    question: Question
    """In its own API, for whoever asks it without a gateway."""


class Place:
    """What the servers of one run share: a directory, the token of the caller, the policies, one Cerbos."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-peers-")))
        self.bearer = user_token()
        self.policies = self.directory / "policies"
        self.policies.mkdir()
        write_policies(self.policies)

    @cached_property
    def cerbos(self) -> oracle.Oracle:
        """The real Cerbos over the policies; started when it is first asked for."""
        return self._stack.enter_context(oracle.cerbos(self.policies))

    def folder(self, name: str) -> Path:
        """Make a directory for one server."""
        made = self.directory / name
        made.mkdir()
        return made


@dataclass(frozen=True, slots=True)
class Side:
    """A row of the comparison."""

    name: str
    start: Callable[[Place], AbstractContextManager[Server]]
    missing: Callable[[], str | None] = lambda: None
    """Says why it cannot be run here; None if it can."""
    directly: bool = True
    """Whether it is measured without a gateway."""
    is_gateway: bool = False
    """Whether it is a gateway itself: its address is where clients send the requests that are checked."""
    behind_envoy: bool = False
    """Whether it is also measured as the ext_authz server of a real Envoy."""
    raw_headers: bool = False
    """Whether Envoy sends it headers as they are (``encode_raw_headers``), as its makers advise."""


# --- ours -------------------------------------------------------------------------------------------------


@contextmanager
def _extauthz(place: Place, transport: str, workers: int) -> Iterator[Server]:
    directory = place.folder(f"extauthz-{transport}-{workers}")
    address = Address("127.0.0.1", free_port())
    with _serving(place, directory, address, transport, workers) as server:
        yield server


@contextmanager
def _extauthz_socket(place: Place) -> Iterator[Server]:
    """Run it on a unix socket, which one worker has."""
    directory = place.folder("extauthz-socket")
    with _serving(place, directory, Address(path=str(directory / "check.sock")), ENVOY, 1) as server:
        yield server


@contextmanager
def _serving(
    place: Place, directory: Path, address: Address, transport: str, workers: int
) -> Iterator[Server]:
    http = free_port()
    variables = environment(place.policies, grpc=str(address), http=f"127.0.0.1:{http}", workers=workers)
    with extauthz(directory, variables, http, transport) as pid:
        yield Server((pid,), address, expenses.ext_authz(place.bearer))


@contextmanager
def extauthz(
    directory: Path, variables: Mapping[str, str], http: int, transport: str = GRPCIO
) -> Iterator[int]:
    """Run ``extauthz serve`` by the configuration of tests/bench/service.py; ready, every worker of it."""
    settings, log = directory / "extauthz.yaml", directory / "extauthz.log"
    settings.write_text(CONFIGURATION)
    command = [sys.executable, "-m", "extauthz", "serve", "--config", str(settings), "--transport", transport]
    with running(command, log, variables) as process:
        await_ready(process, log, lambda: _says_200(f"http://127.0.0.1:{http}/readyz"), START_PATIENCE)
        yield process.pid


@contextmanager
def _in_gateway(place: Place) -> Iterator[Server]:
    """Run a gateway that holds extauthz, with as many threads as the one in front of the others."""
    directory = place.folder("extauthz-in-gateway")
    settings, file, log = (directory / name for name in ("extauthz.yaml", "envoy.yaml", "envoy.log"))
    settings.write_text(CONFIGURATION)
    address, http = Address("127.0.0.1", free_port()), free_port()
    variables = environment(place.policies, http=f"127.0.0.1:{http}")
    loaded = config.load(settings, variables)
    file.write_text(yaml.safe_dump(gateway.holding_extauthz(loaded.config.server, address)))
    command = [sys.executable, "-m", "extauthz", "envoy", *gateway.arguments(file, CORES)]
    with running(command, log, {**variables, hosted.CONFIG: str(settings)}) as process:
        ready = f"http://127.0.0.1:{http}/readyz"
        await_ready(process, log, lambda: listens(address.port) and _says_200(ready), START_PATIENCE)
        yield Server((process.pid,), address, expenses.ext_authz(place.bearer))


START_PATIENCE: Final = 300.0
"""Seconds; 10,000 policies take long on a busy machine."""


def _says_200(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@contextmanager
def _empty(place: Place, workers: int, transport: str = OURS) -> Iterator[Server]:
    """Run empty handlers that share a port, as workers do."""
    port = free_port()
    directory = place.folder(f"empty-{transport}-{workers}")
    with ExitStack() as stack:
        pids = []
        for number in range(workers):
            log = directory / f"{number}.log"
            command = [sys.executable, str(EMPTY), transport, str(port)]
            process = stack.enter_context(running(command, log))
            await_ready(process, log, lambda log=log: LISTENING in log.read_text())  # type: ignore[misc] # mypy cannot infer a lambda with a default
            pids.append(process.pid)
        asked = expenses.ext_authz(place.bearer)
        yield Server(tuple(pids), Address("127.0.0.1", port), expenses.asked_of_nobody(asked))


@contextmanager
def _empty_envoy(place: Place, workers: int) -> Iterator[Server]:
    """Run the empty ASGI handler as the transport ``envoy`` runs ours: an Envoy for each worker."""
    address = Address("127.0.0.1", free_port())
    directory = place.folder(f"empty-envoy-{workers}")
    variables = envoy.environment()
    listener = gateway.envoy_address(address)
    with ExitStack() as stack:
        pids = []
        for number in range(workers):
            log, admin = directory / f"{number}.log", directory / f"{number}.sock"
            bootstrap = envoy.bootstrap(listener, Options(), admin=str(admin), app=EMPTY_APP)
            process = stack.enter_context(running(envoy.command(bootstrap, "warning"), log, variables))
            await_ready(process, log, lambda admin=admin: _is_live(admin))  # type: ignore[misc] # as above
            pids.append(process.pid)
        yield Server(tuple(pids), address, expenses.asked_of_nobody(expenses.ext_authz(place.bearer)))


EMPTY_APP: Final = "tests.bench.empty_asgi:app"


def _is_live(admin: Path) -> bool:
    """Ask an Envoy, by its administration, whether its listeners are up."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin))) as client:
        try:
            return client.get("http://envoy/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


# --- peers ------------------------------------------------------------------------------------------------


@contextmanager
def _cerbos_grpc(place: Place) -> Iterator[Server]:
    address = Address("127.0.0.1", place.cerbos.grpc_port)
    yield Server((place.cerbos.pid,), address, expenses.cerbos_grpc())


@contextmanager
def _cerbos_rest(place: Place) -> Iterator[Server]:
    address = Address("127.0.0.1", place.cerbos.http_port)
    yield Server((place.cerbos.pid,), address, expenses.cerbos_rest())


@contextmanager
def _cerbos_adapter(place: Place) -> Iterator[Server]:
    directory = place.folder("cerbos-adapter")
    key, log, port = directory / "issuer.pem", directory / "adapter.log", free_port()
    public = private_key("rsa").public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    command = [
        *(str(build.binary(ADAPTER)), "-listen", f"127.0.0.1:{port}", "-cerbos", place.cerbos.grpc_address),
        *("-key", str(key), "-issuer", ISSUER, "-audience", AUDIENCE),
    ]
    with running(command, log) as process:
        await_ready(process, log, lambda: listens(port))
        roots = (process.pid, place.cerbos.pid)
        yield Server(roots, Address("127.0.0.1", port), expenses.ext_authz(place.bearer))


@contextmanager
def _opa(place: Place) -> Iterator[Server]:
    directory = place.folder("opa")
    data, log, port = directory / "data.json", directory / "opa.log", free_port()
    known = {"jwks": jwks("rsa").decode(), "issuer": ISSUER, "audience": AUDIENCE}
    data.write_text(json.dumps(known))
    command = [
        *(str(build.binary(OPA)), "-listen", f"127.0.0.1:{port}"),
        *("-policy", str(REGO), "-data", str(data)),
    ]
    with running(command, log) as process:
        await_ready(process, log, lambda: listens(port))
        yield Server((process.pid,), Address("127.0.0.1", port), expenses.ext_authz(place.bearer))


ADAPTER: Final = "cerbos-adapter"
OPA: Final = "opa-authz"


def _no_pyvoy() -> str | None:
    try:
        envoy.module()
        envoy.binary()
    except envoy.MissingError as missing:
        return str(missing)
    return None


def _no_cerbos() -> str | None:
    return None if oracle.find_binary() is not None else "no Cerbos: `make oracle`"


def _no_adapter() -> str | None:
    return _no_cerbos() or build.missing(ADAPTER)


def workers(number: int) -> str:
    """Name a number of workers."""
    return f"{number} worker{'s' if number > 1 else ''}"


EMPTY_ONE: Final = f"empty, grpcio, {workers(1)}"
ENVOYS: Final = max(1, CORES // 2)
"""Workers of the transport envoy: each has a thread of Envoy's and one of Python's, for two cores."""
EMPTY_ENVOY: Final = f"empty, envoy, {workers(ENVOYS)}"
OURS_ENVOY: Final = f"extauthz, envoy, {workers(ENVOYS)}"
OURS_SOCKET: Final = f"extauthz, envoy, unix socket, {workers(1)}"
OURS_INSIDE: Final = "extauthz, in the gateway"
EMPTY_ALL: Final = f"empty, grpcio, {workers(CORES)}"
EMPTY_ASYNCIO: Final = f"empty, grpcio's own asyncio server, {workers(CORES)}"
OURS_ONE: Final = f"extauthz, grpcio, {workers(1)}"
OURS_ALL: Final = f"extauthz, grpcio, {workers(CORES)}"
CERBOS_GRPC: Final = "Cerbos, gRPC"
CERBOS_REST: Final = "Cerbos, REST"
CERBOS_ADAPTER: Final = "Cerbos behind an adapter"
OPA_AUTHZ: Final = "OPA as ext_authz server"

SIDES: Final = (
    Side(EMPTY_ONE, partial(_empty, workers=1)),
    Side(OURS_ONE, partial(_extauthz, transport=GRPCIO, workers=1)),
    Side(EMPTY_ASYNCIO, partial(_empty, workers=CORES, transport=ASYNCIO)),
    Side(EMPTY_ALL, partial(_empty, workers=CORES)),
    Side(
        OURS_ALL,
        partial(_extauthz, transport=GRPCIO, workers=CORES),
        behind_envoy=True,
        raw_headers=True,
    ),
    Side(EMPTY_ENVOY, partial(_empty_envoy, workers=ENVOYS), _no_pyvoy),
    Side(
        OURS_ENVOY,
        partial(_extauthz, transport=ENVOY, workers=ENVOYS),
        _no_pyvoy,
        behind_envoy=True,
        raw_headers=True,
    ),
    Side(
        OURS_SOCKET,
        _extauthz_socket,
        _no_pyvoy,
        directly=False,
        behind_envoy=True,
        raw_headers=True,
    ),
    Side(OURS_INSIDE, _in_gateway, _no_pyvoy, directly=False, is_gateway=True),
    Side(CERBOS_GRPC, _cerbos_grpc, _no_cerbos),
    Side(CERBOS_REST, _cerbos_rest, _no_cerbos),
    Side(CERBOS_ADAPTER, _cerbos_adapter, _no_adapter, behind_envoy=True),
    Side(OPA_AUTHZ, _opa, partial(build.missing, OPA), behind_envoy=True),
)
