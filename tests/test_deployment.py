"""What people deploy with: the image, the Kubernetes manifests, the CI scripts."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.engine import Engine
from extauthz import config
from extauthz.supervisor import MARGIN

ROOT = Path(__file__).parents[1]
K8S = ROOT / "k8s"
OVERLAYS = ("service", "sidecar", "daemonset")
MANIFESTS = sorted(K8S.rglob("*.yaml"))
WORKLOADS = (K8S / "overlays/service/deployment.yaml", K8S / "overlays/sidecar/sidecar.yaml")


@functools.cache
def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def pod(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = read(file)["spec"]["template"]["spec"]
    return found


def container(file: Path) -> dict[str, Any]:
    """Find extauthz among the containers of a workload."""
    spec = pod(file)
    containers = [*spec.get("containers", ()), *spec.get("initContainers", ())]
    (found,) = [each for each in containers if each["name"] == "extauthz"]
    return dict(found)


@functools.cache
def settings(**environment: str) -> config.Config:
    return config.load(K8S / "base/extauthz.yaml", environment).config


# --- manifests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: str(file.relative_to(K8S)))
def test_manifests_are_yaml(file: Path) -> None:
    """Every manifest is one YAML document with something in it."""
    assert isinstance(read(file), dict)


@pytest.mark.parametrize("file", sorted(K8S.rglob("kustomization.yaml")), ids=lambda file: file.parent.name)
def test_kustomizations_name_what_exists(file: Path) -> None:
    """Resources, patches and files that a kustomization names are there."""
    document = read(file)
    generated = [name for each in document.get("configMapGenerator", ()) for name in each["files"]]
    patches = [each["path"] for each in document.get("patches", ()) if "path" in each]
    for name in [*document.get("resources", ()), *patches, *generated]:
        assert (file.parent / name).exists(), name


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl renders the overlays, and is not installed"
)
def test_overlays_render(overlay: str) -> None:
    """Kustomize renders each overlay, with the image's tag and the hashed names of the configuration."""
    done = subprocess.run(  # noqa: S603  # fixed arguments
        [str(shutil.which("kubectl")), "kustomize", str(K8S / "overlays" / overlay)],
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    rendered = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    workload = rendered["DaemonSet" if overlay == "daemonset" else "Deployment"]
    assert "image: extauthz:0.1.0" in done.stdout
    assert re.search(r"name: extauthz-config-\w+", yaml.safe_dump(workload))
    assert ("PodDisruptionBudget" in rendered) == (overlay == "service")


@pytest.mark.parametrize("file", WORKLOADS, ids=lambda file: file.stem)
def test_the_container_has_no_privileges(file: Path) -> None:
    """Extauthz runs as a user without privileges, on a root file system that it cannot write."""
    found = container(file)
    security = {**pod(file).get("securityContext", {}), **found["securityContext"]}
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(mount["readOnly"] for mount in found["volumeMounts"])


@pytest.mark.parametrize("file", WORKLOADS, ids=lambda file: file.stem)
def test_the_container_is_probed_and_bounded(file: Path) -> None:
    """Extauthz has all three probes, what it needs, and a limit of memory."""
    found = container(file)
    assert found["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert found["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert found["startupProbe"]["periodSeconds"] * found["startupProbe"]["failureThreshold"] >= 60
    assert set(found["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in found["resources"]["limits"]


@pytest.mark.parametrize("file", WORKLOADS, ids=lambda file: file.stem)
def test_ports_are_those_of_the_configuration(file: Path) -> None:
    """The ports of the container are the ones that the configuration listens on."""
    found = container(file)
    environment = {each["name"]: each["value"] for each in found.get("env", ())}
    server = settings(**environment).server
    listening = {
        int(address.rpartition(":")[2]) for address in (server.grpc_listen_addr, server.http_listen_addr)
    }
    assert {port["containerPort"] for port in found["ports"]} <= listening
    if file.stem == "sidecar":
        assert server.grpc_listen_addr.startswith("127.0.0.1:")


@pytest.mark.parametrize("file", WORKLOADS, ids=lambda file: file.stem)
def test_volumes_are_mounted_where_they_are_read(file: Path) -> None:
    """Configuration and policies are mounted where the image and the configuration look for them."""
    maps = {each["name"]: each["configMap"]["name"] for each in pod(file)["volumes"]}
    mounts = {each["mountPath"]: maps[each["name"]] for each in container(file)["volumeMounts"]}
    generated = {each["name"] for each in read(K8S / "base/kustomization.yaml")["configMapGenerator"]}
    assert set(mounts.values()) == generated
    assert mounts[settings().storage.disk.directory] == "extauthz-policies"
    assert "EXTAUTHZ_CONFIG=/etc/extauthz/extauthz.yaml" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert mounts["/etc/extauthz"] == "extauthz-config"


def test_a_pod_has_time_to_drain() -> None:
    """Kubernetes waits for the pause before SIGTERM, the drain and the supervisor's margin together."""
    spec = pod(WORKLOADS[0])
    pause = container(WORKLOADS[0])["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = settings().server.drain_timeout.total_seconds()
    assert spec["terminationGracePeriodSeconds"] >= pause + drain + MARGIN


def test_the_service_is_protected() -> None:
    """The service has a disruption budget and a network policy for its pods."""
    wanted = {"matchLabels": {"app.kubernetes.io/name": "extauthz"}}
    directory = K8S / "overlays/service"
    assert read(directory / "deployment.yaml")["spec"]["selector"] == wanted
    assert read(directory / "poddisruptionbudget.yaml")["spec"]["selector"] == wanted
    policy = read(directory / "networkpolicy.yaml")["spec"]
    assert policy["podSelector"] == wanted
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (asking,) = [rule for rule in policy["ingress"] if {"port": "grpc"} in rule["ports"]]
    assert asking["from"], "nobody but the gateways may ask"


def test_the_configuration_is_one_that_works() -> None:
    """The configuration in the base has no fault and no warning, and the policies beside it compile."""
    assert config.load(K8S / "base/extauthz.yaml", {}).warnings == ()
    with Engine.from_directory(K8S / "base/policies") as engine:
        assert engine.status.policies == 1


# --- the image --------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Read the Dockerfile: each instruction with its arguments, continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8")).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def arguments(name: str) -> list[str]:
    return [text for instruction, text in instructions() if instruction == name]


def test_the_image_has_two_stages_and_no_root() -> None:
    """The image is built in one stage and runs in another, as a numbered user."""
    assert len(arguments("FROM")) == 2
    (user,) = arguments("USER")
    assert int(user.split(":")[0]) > 0
    assert [name for name, _ in instructions()].index("USER") > 1


def test_the_image_needs_no_shell() -> None:
    """Commands are lists of arguments, so that none goes through a shell."""
    (health,) = [text.partition(" CMD ")[2] for text in arguments("HEALTHCHECK")]
    for command in (*arguments("RUN"), *arguments("ENTRYPOINT"), *arguments("CMD"), health):
        assert all(isinstance(word, str) for word in json.loads(command))


def test_the_image_gets_what_it_copies() -> None:
    """What the Dockerfile copies is there, and .dockerignore lets it pass."""
    passes = set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())
    for text in arguments("COPY"):
        if not text.startswith("--from"):
            for source in text.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in passes


def test_the_image_and_the_manifests_agree() -> None:
    """Ports and user of the image are those of the manifests."""
    exposed = {int(port) for port in arguments("EXPOSE")[0].split()}
    assert exposed == {port["containerPort"] for port in container(WORKLOADS[0])["ports"]}
    user = pod(WORKLOADS[0])["securityContext"]
    assert arguments("USER") == [f"{user['runAsUser']}:{user['runAsGroup']}"]


# --- CI ---------------------------------------------------------------------------------------------------


def test_the_ci_script_is_sound() -> None:
    """The script that CI runs is executable bash that stops at the first error."""
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
    subprocess.run([str(shutil.which("bash")), "-n", str(script)], check=True)  # noqa: S603  # only parsed


def test_the_ci_script_needs_the_conformance_data(tmp_path: Path) -> None:
    """Without the outside data CI fails at once and says how to mend it."""
    environment = {**os.environ, "CONFORMANCE_DIR": str(tmp_path)}
    done = subprocess.run(  # noqa: S603  # our own script
        [str(ROOT / ".ci/run")], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert "set CONFORMANCE_DIR" in done.stderr


def test_the_workflow_checks_everything() -> None:
    """The workflow for forks runs ``make check`` with every Python that the package says it supports."""
    jobs = read(ROOT / ".github/workflows/ci.yml")["jobs"]
    assert {"run": "make check"} in jobs["check"]["steps"]
    assert "3.11" in jobs["check"]["strategy"]["matrix"]["python"]
