"""extauthz served by an Envoy of its own, over a unix socket, and inside the gateway: through real Envoys."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from stack import ROOT, SETTINGS, Configuration, Stack, StartError, envoy_binary
from tests.e2e.harness import Gateway, connection_manager, eventually, ext_authz, marked_log, running
from tests.e2e.sabotage import DEATHS, FAULTS, PORT
from tests.extauthz.processes import children_of
from tokens import EMEA_MANAGER, SALES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REFERENCE = ROOT / "envoy" / "envoy.yaml"
KINDS = ("envoy", "unix-socket", "in-gateway")


def printed(settings: Path, *options: str) -> str:
    """Print a gateway's configuration as a user does."""
    command = [sys.executable, "-m", "extauthz", "envoy-config", str(settings), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # ours
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_for(kind: str, directory: Path) -> Callable[[Configuration], Configuration]:
    def changed(settings: Configuration) -> Configuration:
        settings["server"]["transport"] = "grpcio" if kind == "in-gateway" else "envoy"
        if kind == "unix-socket":
            settings["server"]["grpcListenAddr"] = f"unix:{directory}/check.sock"
        return settings

    return changed


def prepared(kind: str, directory: Path, **more: Any) -> Stack:
    """Prepare servers of which the gateway's configuration is the one that is printed for *kind*."""
    change = settings_for(kind, directory)
    file = directory / "for-gateway.yaml"
    file.write_text(
        yaml.safe_dump(change(yaml.safe_load(SETTINGS.read_text(encoding="utf-8")))), encoding="utf-8"
    )
    gateway = directory / "printed.yaml"
    options = ("--transport", "in-gateway") if kind == "in-gateway" else ()
    gateway.write_text(printed(file, *options), encoding="utf-8")
    more = {"gateway": marked_log_of_gateway, **more}
    return Stack(directory, gateway_file=gateway, settings=change, inside=kind == "in-gateway", **more)


def marked_log_of_gateway(configuration: Configuration) -> Configuration:
    """Mark the log of the listener that clients reach; the one inside has none."""
    outside = {"static_resources": {"listeners": configuration["static_resources"]["listeners"][:1]}}
    marked_log(outside)
    return configuration


@pytest.fixture(scope="module", params=KINDS)
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(prepared(request.param, tmp_path_factory.mktemp("stack"))) as started:
        client = Gateway(started)
        yield client
        client.close()


def test_decisions(gateway: Gateway) -> None:
    """However extauthz is reached, its decisions are the same, and so is what the service gets."""
    own = gateway.send(
        "GET /api/expenses/1", SALES, headers={"x-authz-principal": "admin", "x_authz_roles": "admin"}
    )
    assert own.status == httpx.codes.OK
    assert dict(own.identity)["x-authz-principal"] == SALES.name
    assert "admin" not in str(own.identity)
    assert gateway.send("GET /api/expenses/2", SALES).status == httpx.codes.FORBIDDEN
    assert gateway.send("GET /api/expenses/2", EMEA_MANAGER).status == httpx.codes.OK
    assert gateway.send("GET /api/expenses/1").status == httpx.codes.UNAUTHORIZED
    assert gateway.send("GET /nowhere", SALES).status == httpx.codes.NOT_FOUND
    assert gateway.send("GET /healthz").status == httpx.codes.OK


def test_a_hundred_at_once(gateway: Gateway) -> None:
    """Many requests at the same time get each its own answer."""
    tokens = {who: gateway.stack.issuer.token(who) for who in (SALES, EMEA_MANAGER)}
    wrong: list[object] = []

    def ask(number: int) -> None:
        who, wanted = ((SALES, 403), (EMEA_MANAGER, 200))[number % 2]
        with httpx.Client(base_url=gateway.url, timeout=20) as client:
            for _ in range(5):
                status = client.get(
                    "/api/expenses/2", headers={"authorization": f"Bearer {tokens[who]}"}
                ).status_code
                if status != wanted:
                    wrong.append((number, status))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- the configuration that is printed --------------------------------------------------------------------


def test_printed_is_the_explained_file(tmp_path: Path) -> None:
    """For the usual addresses the printed configuration is ``envoy/envoy.yaml``, but for the gRPC service."""
    settings = tmp_path / "extauthz.yaml"
    settings.write_text('server: {grpcListenAddr: ":9191"}\nstorage: {driver: disk, disk: {directory: p}}\n')
    reference = yaml.safe_load(REFERENCE.read_text(encoding="utf-8"))
    grpc = reference["static_resources"]["clusters"][-1]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    grpc["endpoint"]["address"]["socket_address"]["port_value"] = 8080
    assert yaml.safe_load(printed(settings)) == reference


@pytest.mark.parametrize(
    ("server", "options"),
    [
        ({}, ()),
        ({"transport": "envoy"}, ("--listen", "[::1]:8000", "--service", "expenses.internal:80")),
        ({"grpcListenAddr": "unix:/run/a b/check.sock"}, ()),
        ({"grpcListenAddr": "extauthz.internal:9191"}, ()),
        ({}, ("--transport", "in-gateway")),
    ],
    ids=["plain", "names", "unix socket", "remote", "in the gateway"],
)
def test_printed_fails_closed_and_starts(
    tmp_path: Path, server: dict[str, Any], options: tuple[str, ...]
) -> None:
    """Whatever it is made for, a printed configuration is valid, and as strict as the explained one."""
    document = {
        "server": {"httpListenAddr": "127.0.0.1:0", **server},
        "storage": {"driver": "disk", "disk": {"directory": str(ROOT / "envoy" / "demo" / "policies")}},
    }
    settings, file = tmp_path / "extauthz.yaml", tmp_path / "envoy.yaml"
    settings.write_text(yaml.safe_dump(document))
    file.write_text(printed(settings, *options))
    written, explained = (yaml.safe_load(each.read_text(encoding="utf-8")) for each in (file, REFERENCE))
    assert ext_authz(written) == ext_authz(explained)
    for each in (written, explained):
        connection_manager(each["static_resources"]["listeners"][0])["http_filters"] = []
    ours, theirs = (
        connection_manager(each["static_resources"]["listeners"][0]) for each in (written, explained)
    )
    assert ours == theirs
    program = [sys.executable, "-m", "extauthz", "envoy"] if "in-gateway" in options else [envoy_binary()]
    done = subprocess.run(  # noqa: S603  # our own command line
        [*program, "--mode", "validate", "--log-level", "warning", "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "EXTAUTHZ_CONFIG": str(settings)},
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()


@pytest.mark.parametrize(
    ("name", "server", "options"),
    [
        ("envoy-unix-socket.yaml", {"grpcListenAddr": "unix:/run/extauthz/check.sock"}, ()),
        ("envoy-in-gateway.yaml", {}, ("--transport", "in-gateway")),
    ],
)
def test_files_in_the_repository(
    tmp_path: Path, name: str, server: dict[str, str], options: tuple[str, ...]
) -> None:
    """The examples in ``envoy/`` are what is printed; the path of pyvoy is the one in the container image."""
    settings = tmp_path / "extauthz.yaml"
    storage = {"driver": "disk", "disk": {"directory": "policies"}}
    settings.write_text(yaml.safe_dump({"server": server, "storage": storage}))
    in_image = "filename: /opt/extauthz/lib/python3.13/site-packages/pyvoy/_pyvoy.abi3.so"
    text = re.sub(r"filename: .*/_pyvoy\.abi3\.so", in_image, printed(settings, *options))
    assert (REFERENCE.parent / name).read_text(encoding="utf-8") == text


def test_a_gateway_that_cannot_be(tmp_path: Path) -> None:
    """What does not fit together is said, with what to do."""
    settings = tmp_path / "extauthz.yaml"
    tls = {"cert": "a.crt", "key": "a.key"}
    storage = {"driver": "disk", "disk": {"directory": "p"}}
    settings.write_text(yaml.safe_dump({"server": {"tls": tls}, "storage": storage}))
    command = [sys.executable, "-m", "extauthz", "envoy-config", str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # ours
    assert done.returncode == 1
    assert "give `--ca-cert`" in done.stderr
    assert done.stdout == ""


# --- nothing is let through -------------------------------------------------------------------------------


def sabotaged(configuration: Configuration) -> Configuration:
    """Let the gateway hold the saboteur."""
    text = yaml.safe_dump(marked_log_of_gateway(configuration)).replace(
        "extauthz.hosted:app", "tests.e2e.sabotage:app"
    )
    changed: Configuration = yaml.safe_load(text)
    return changed


@pytest.fixture
def sabotaged_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    stack = prepared("in-gateway", tmp_path, gateway=sabotaged, alive="healthz")
    monkeypatch.setenv(PORT, f"127.0.0.1:{stack.ports.health}")
    stack.envoy._environment[PORT] = f"127.0.0.1:{stack.ports.health}"
    with running(stack) as started:
        client = Gateway(started)
        yield client
        client.close()


def test_faults_inside_the_gateway_let_nothing_through(sabotaged_gateway: Gateway) -> None:
    """Errors, rubbish, silence and a Python that stands still end in 503, and the gateway serves on."""
    for path in FAULTS:
        reply = sabotaged_gateway.send(f"GET {path.decode()}")
        assert (path, reply.status) == (path, httpx.codes.SERVICE_UNAVAILABLE)
        assert reply.arrivals == ()
        eventually(lambda: sabotaged_gateway.send("GET /ok").status != httpx.codes.SERVICE_UNAVAILABLE, 10)
    assert sabotaged_gateway.send("GET /ok").arrivals


@pytest.mark.parametrize("path", DEATHS)
def test_a_gateway_that_dies_lets_nothing_through(sabotaged_gateway: Gateway, path: bytes) -> None:
    """When Python takes the gateway with it, clients lose the connection and the service hears nothing."""
    with pytest.raises(httpx.TransportError):
        sabotaged_gateway.send(f"GET {path.decode()}", headers={"x-mark": path.decode()})
    assert sabotaged_gateway.arrivals(path.decode()) == ()


def test_a_gateway_without_policies_does_not_start(tmp_path: Path) -> None:
    """Where the policies are wrong the gateway does not come up, and says why in extauthz's words."""
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "broken.yaml").write_text("apiVersion: api.cerbos.dev/v1\nresourcePolicy: {resource: [}\n")
    stack = prepared("in-gateway", tmp_path, policies=policies)
    with pytest.raises(StartError, match=r"cannot start: .*broken\.yaml"), running(stack):
        pass


def test_a_worker_killed_in_the_middle(tmp_path: Path) -> None:
    """Killing the Envoy that serves extauthz costs a 503, never an allow; its successor answers."""
    with running(prepared("envoy", tmp_path)) as started:
        client = Gateway(started)
        assert client.send("GET /api/expenses/1", SALES).status == httpx.codes.OK
        assert started.extauthz._process is not None
        (minder,) = children_of(started.extauthz._process.pid)
        (worker,) = children_of(minder)
        os.kill(worker, signal.SIGSTOP)  # it hangs
        hanging = client.send("GET /api/expenses/1", SALES)
        assert (hanging.status, hanging.arrivals) == (httpx.codes.SERVICE_UNAVAILABLE, ())
        os.kill(worker, signal.SIGKILL)
        dead = client.send("GET /api/expenses/1", SALES)
        assert (dead.status, dead.arrivals) == (httpx.codes.SERVICE_UNAVAILABLE, ())
        eventually(lambda: client.send("GET /api/expenses/1", SALES).status == httpx.codes.OK, 30)
        assert client.send("GET /api/expenses/2", SALES).status == httpx.codes.FORBIDDEN
        client.close()
