"""The configurations in ``envoy/``: Envoy accepts them, and what decisions depend on is written down."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from stack import GATEWAY, Stack, envoy_binary
from tests.e2e.certificates import issue
from tests.e2e.harness import connection_manager, ext_authz, running
from tokens import SALES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENVOY = GATEWAY.parent
TLS = ENVOY / "envoy-tls.yaml"
INSIDE = ENVOY / "envoy-in-gateway.yaml"
"""It needs more than an Envoy to be accepted: see test_transports.py."""
GATEWAYS = sorted(ENVOY.glob("*.yaml"))
PLAIN = [file for file in GATEWAYS if file != INSIDE]
ISTIO = sorted((ENVOY / "istio").glob("*.yaml"))
ENVOY_GATEWAY = sorted((ENVOY / "gateway").glob("*.yaml"))


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with ``tls/``: a CA, certificates of the gateway and of extauthz."""
    directory = tmp_path_factory.mktemp("certificates")
    issue(directory / "tls", "gateway", "extauthz")
    return directory


@pytest.mark.parametrize("file", PLAIN, ids=lambda file: file.name)
def test_envoy_accepts(file: Path, certificates: Path) -> None:
    """`envoy --mode validate` accepts the file as it is."""
    command = [envoy_binary(), "--mode", "validate", "--log-level", "warning", "-c", str(file)]
    done = subprocess.run(  # noqa: S603  # our own command line
        command, cwd=certificates, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()


@pytest.mark.parametrize("file", GATEWAYS, ids=lambda file: file.name)
def test_gateway_fails_closed(file: Path) -> None:
    """No answer is an error for the client, after a stated time, and what was checked is what is sent."""
    settings = ext_authz(load(file))
    assert settings["failure_mode_allow"] is False
    assert settings["status_on_error"] == {"code": "ServiceUnavailable"}
    assert settings["clear_route_cache"] is False
    assert settings["validate_mutations"] is True
    assert settings["grpc_service"]["timeout"] == "1s"


@pytest.mark.parametrize("file", PLAIN, ids=lambda file: file.name)
def test_ext_authz_stands_before_the_router(file: Path) -> None:
    """Nothing may change a request between its check and its way on."""
    for listener in load(file)["static_resources"]["listeners"]:
        names = [each["name"] for each in connection_manager(listener)["http_filters"]]
        assert names[-2:] == ["envoy.filters.http.ext_authz", "envoy.filters.http.router"]


def test_tls_gateway_differs_only_in_its_tls() -> None:
    """The two gateways are one configuration: a setting mended in one file is mended in the other."""
    plain, tls = load(GATEWAY), load(TLS)
    for resource in (
        *tls["static_resources"]["clusters"],
        tls["static_resources"]["listeners"][0]["filter_chains"][0],
    ):
        resource.pop("transport_socket", None)
    connection_manager(tls["static_resources"]["listeners"][0]).pop("forward_client_cert_details")
    for key in ("include_peer_certificate", "include_tls_session"):
        ext_authz(tls).pop(key)
    assert tls == plain


@pytest.fixture(params=["grpcio", "envoy"])
def tls_stack(request: pytest.FixtureRequest, tmp_path: Path, certificates: Path) -> Iterator[Stack]:
    """Run the demo's servers with TLS wherever envoy-tls.yaml has it."""
    tls = certificates / "tls"
    files = {
        "cert": str(tls / "extauthz.crt"),
        "key": str(tls / "extauthz.key"),
        "caCert": str(tls / "ca.crt"),
    }

    def with_tls(settings: dict[str, Any]) -> dict[str, Any]:
        settings["server"] |= {"tls": files, "transport": request.param}
        return settings

    yield from _running(Stack(tmp_path, gateway_file=TLS, settings=with_tls, workplace=certificates))


def _running(stack: Stack) -> Iterator[Stack]:
    with running(stack) as started:
        yield started


def test_mutual_tls(tls_stack: Stack, certificates: Path) -> None:
    """With envoy-tls.yaml clients, gateway and extauthz speak TLS, and the answers are the same."""
    context = ssl.create_default_context(cafile=str(certificates / "tls" / "ca.crt"))
    context.check_hostname = False  # the gateway's certificate names `gateway`, we call it by its address
    headers = {"authorization": f"Bearer {tls_stack.issuer.token(SALES)}"}
    with httpx.Client(
        base_url=f"https://127.0.0.1:{tls_stack.ports.gateway}", verify=context, headers=headers
    ) as client:
        assert client.get("/api/expenses/1").status_code == httpx.codes.OK
        assert client.get("/api/expenses/2").status_code == httpx.codes.FORBIDDEN


def test_istio_provider_fails_closed() -> None:
    """Istio's defaults (ten minutes, 403) are replaced, and the policy has no exception."""
    mesh, policy = (
        load(ENVOY / "istio" / "mesh-config.yaml"),
        load(ENVOY / "istio" / "authorization-policy.yaml"),
    )
    (provider,) = mesh["spec"]["meshConfig"]["extensionProviders"]
    settings = provider["envoyExtAuthzGrpc"]
    assert (settings["failOpen"], settings["timeout"], settings["statusOnError"]) == (False, "1s", "503")
    assert policy["spec"]["action"] == "CUSTOM"
    assert policy["spec"]["provider"]["name"] == provider["name"]
    assert policy["spec"]["rules"] == [{}]


def test_envoy_gateway_fails_closed() -> None:
    """Envoy Gateway's policy neither lets requests through on an error nor picks another route afterwards."""
    settings = load(ENVOY / "gateway" / "security-policy.yaml")["spec"]["extAuth"]
    assert (settings["failOpen"], settings["recomputeRoute"], settings["timeout"]) == (False, False, "1s")


@pytest.mark.parametrize("file", [*ISTIO, *ENVOY_GATEWAY], ids=lambda file: file.name)
def test_kubernetes_object(file: Path) -> None:
    """Each file is one Kubernetes object: it has a kind and a version."""
    loaded = load(file)
    assert loaded["kind"]
    assert "/" in loaded["apiVersion"]
