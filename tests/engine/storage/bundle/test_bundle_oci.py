"""Bundles in a real OCI registry, Debian's ``docker-registry``: open, with passwords, tokens, TLS."""

from __future__ import annotations

import base64
import hashlib
import http.server
import itertools
import json
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import bcrypt
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from engine import StoreError
from engine.storage import Store, open_store
from engine.storage.bundle.oci import ARTIFACT_TYPE, MANIFEST_TYPE, Reference, Registry
from engine.storage.bundle.sources import Settings
from engine.storage.web import Access
from tests.engine.storage.bundle.publisher import NAME, PUBLIC_KEY, FollowedPublisher, WebServer, bundle
from tests.engine.storage.contract import (
    FilesContract,
    LookingContract,
    RetryingContract,
    WatchedContract,
    closed,
    policy,
)
from tests.engine.storage.processes import ServerProcess, required

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "ann", "s3cr3t-of-ann"
FILES = {"doc.yaml": policy()}


def registry_process(
    directory: Path, *, auth: str = "", tls: tuple[Path, Path] | None = None
) -> ServerProcess:
    """Start a registry that keeps what it has in *directory*."""
    program = required("docker-registry")
    directory.mkdir(exist_ok=True)
    config = directory / "config.yml"
    secured = "" if tls is None else f"  tls: {{certificate: {tls[0]}, key: {tls[1]}}}\n"

    def command(port: int) -> list[str]:
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}}}\n"
            f"http:\n  addr: 127.0.0.1:{port}\n  secret: secret\n{secured}{auth}"
        )
        return [program, "serve", str(config)]

    return ServerProcess(command, directory / "registry.log")


def client(server: ServerProcess, repository: str = "team/policies:main", **settings: Any) -> Registry:
    """Return a client that may push."""
    url = f"oci://127.0.0.1:{server.port}/{repository}"
    return Registry(Settings(url, 5.0, 20.0, 2**26, **settings), push=True)


class RegistryPublisher(FollowedPublisher):
    """Publishes in a registry."""

    def __init__(self, server: ServerProcess, directory: Path, repository: str) -> None:
        self.server = server
        self.repository = repository
        url = f"oci://127.0.0.1:{server.port}/{repository}:main"
        publish = client(server, f"{repository}:main").push
        super().__init__(lambda data: publish(data, {}), {"url": url}, directory)

    def go_away(self) -> None:
        """Stop the registry."""
        self.server.stop()

    def come_back(self) -> None:
        """Start it again."""
        self.server.start()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = registry_process(tmp_path_factory.mktemp("oci") / "registry")
    yield server
    server.stop()


numbers = itertools.count()


@pytest.fixture
def changer(registry: ServerProcess, tmp_path: Path) -> RegistryPublisher:
    registry.start()  # the test before may have stopped it
    return RegistryPublisher(registry, tmp_path, f"team/policies{next(numbers)}")


@pytest.fixture
def store(changer: RegistryPublisher) -> Iterator[Store]:
    store = changer.open()
    yield store
    store.close()


class TestBundleStoreInRegistry(FilesContract, WatchedContract, LookingContract, RetryingContract):
    """The bundle store keeps the contract of all stores when it follows a registry, too."""

    has_revision = True
    unreachable = r"cannot reach `http://127\.0\.0\.1:\d+/v2/team/policies\d+/manifests/main`: cannot connect"


def start(server: ServerProcess, cache: Path, **oci: str) -> str:
    """Start a store, and return the revision that it starts with."""
    settings = {
        "url": f"oci://127.0.0.1:{server.port}/team/policies:main",
        "name": NAME,
        "publicKeys": [{"data": PUBLIC_KEY}],
        "cacheDir": str(cache),
        "oci": oci,
    }
    with closed(open_store("bundle", settings)) as store:
        return store.read().revision


def test_a_digest_can_be_followed(changer: RegistryPublisher) -> None:
    """A pinned digest stays what it is, whatever the tag becomes."""
    registry = client(changer.server, f"{changer.repository}:main")
    digest = registry.push(bundle(FILES, 7), {})
    registry.push(bundle(FILES, 8), {})
    pinned = f"oci://127.0.0.1:{changer.server.port}/{changer.repository}@{digest}"
    with closed(changer.open(url=pinned)) as store:
        assert store.read().revision == "expenses#7"
    with closed(changer.open()) as store:
        assert store.read().revision == "expenses#8"


def test_what_is_no_bundle(changer: RegistryPublisher, at_once: None) -> None:
    """An image of something else, and a tag that is not there, are errors that say so."""
    registry = client(changer.server, f"{changer.repository}:other")
    registry.push(b"x", {})
    document = json.loads(
        registry.ask("GET", f"{registry.base}/manifests/other", {"accept": MANIFEST_TYPE}).body
    )
    document["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
    registry.ask(
        "PUT",
        f"{registry.base}/manifests/other",
        {"content-type": MANIFEST_TYPE},
        json.dumps(document).encode(),
    )
    base = changer.settings["url"].removesuffix(":main")
    for tag, message in (
        ("other", "what the registry has there is no bundle of extauthz"),
        ("nowhere", r"has no bundle there \(`team/policies\d+:nowhere`\): it answers 404"),
    ):
        with closed(changer.open(url=f"{base}:{tag}")) as store, pytest.raises(StoreError, match=message):
            store.read()


def test_passwords(tmp_path: Path, at_once: None) -> None:
    """A registry with passwords gets them, and they are in no message."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"{USER}:{hashed}\n")
    auth = f"auth: {{htpasswd: {{realm: here, path: {tmp_path / 'htpasswd'}}}}}\n"
    server = registry_process(tmp_path / "registry", auth=auth)
    try:
        client(server, access=Access(USER, PASSWORD)).push(bundle(FILES, 3), {})
        assert start(server, tmp_path / "1", username=USER, password=PASSWORD) == "expenses#3"
        with pytest.raises(StoreError, match="wants a user name and a password"):
            start(server, tmp_path / "2")
        with pytest.raises(StoreError, match="does not accept the credentials") as raised:
            start(server, tmp_path / "3", username=USER, password=f"{PASSWORD}x")
        assert PASSWORD not in str(raised.value)
    finally:
        server.stop()


def test_the_password_is_for_the_registry_alone(
    web: WebServer, certificate_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """A server that the registry redirects to cannot have the password by asking for it."""
    other = WebServer(*certificate_files)
    try:
        other.authorization = "whatever"
        web.redirects["/v2/team/policies/manifests/main"] = f"{other.url}/manifest"
        for challenge in ('Basic realm="other"', f'Bearer realm="{other.url}/token"'):
            other.challenge = {"www-authenticate": challenge}
            settings = {
                "url": f"oci://localhost:{web.port}/team/policies:main",
                "name": NAME,
                "publicKeys": [{"data": PUBLIC_KEY}],
                "cacheDir": str(tmp_path / "cache"),
                "oci": {"username": USER, "password": PASSWORD, "caCert": str(certificate_files[0])},
            }
            with (
                closed(open_store("bundle", settings)) as store,
                pytest.raises(StoreError, match="which wants a login of its own"),
            ):
                store.read()
        assert {authorization for _, authorization in other.seen} == {""}
    finally:
        other.stop()


def test_tls(tmp_path: Path, certificate_files: tuple[Path, Path]) -> None:
    """A registry over TLS is asked over TLS, and is verified."""
    server = registry_process(tmp_path / "registry", tls=certificate_files)
    try:
        client(server, ca_file=str(certificate_files[0])).push(bundle(FILES, 3), {})
        assert start(server, tmp_path / "1", caCert=str(certificate_files[0])) == "expenses#3"
    finally:
        server.stop()


# --- tokens -----------------------------------------------------------------------------------------------


class TokenServer:
    """Gives tokens to who knows the password, as the distribution project's specification has it."""

    def __init__(self, certificate_file: Path, key_file: Path) -> None:
        self.asked: list[dict[str, str]] = []
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        self._chain = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
        self._key: Any = load_pem_private_key(key_file.read_bytes(), None)
        self.lifetime = 60
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                outer.asked.append(query)
                wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                known = self.headers.get("authorization") == wanted
                body = json.dumps({"token": outer.token(query)} if known else {}).encode()
                self.send_response(200 if known else 401)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def token(self, query: dict[str, str]) -> str:
        """Sign a token for what is asked for."""
        kind, name, actions = query["scope"].split(":")
        now = int(time.time())
        claims = {
            "iss": "issuer",
            "aud": query["service"],
            "sub": USER,
            "exp": now + self.lifetime,
            "nbf": now - 5,
            "iat": now,
            "jti": "1",
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        return jwt.encode(claims, self._key, "ES256", headers={"x5c": self._chain})

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def test_tokens(tmp_path: Path, at_once: None, certificate_files: tuple[Path, Path]) -> None:
    """A registry that wants a token of another server gets one, for that repository."""
    tokens = TokenServer(*certificate_files)
    auth = (
        f"auth: {{token: {{realm: '{tokens.url}', service: registry, issuer: issuer, "
        f"rootcertbundle: {certificate_files[0]}}}}}\n"
    )
    server = registry_process(tmp_path / "registry", auth=auth)
    try:
        client(server, access=Access(USER, PASSWORD)).push(bundle(FILES, 3), {})
        assert tokens.asked[-1] == {"scope": "repository:team/policies:pull,push", "service": "registry"}
        assert start(server, tmp_path / "1", username=USER, password=PASSWORD) == "expenses#3"
        assert tokens.asked[-1] == {"scope": "repository:team/policies:pull", "service": "registry"}
        with pytest.raises(StoreError, match="gives no token: it answers 401"):
            start(server, tmp_path / "2", username=USER, password="wrong")
        tokens.lifetime = -120
        with pytest.raises(StoreError, match="does not accept the credentials"):
            start(server, tmp_path / "3", username=USER, password=PASSWORD)
    finally:
        server.stop()
        tokens.stop()


# --- registries that lie ----------------------------------------------------------------------------------


class Lying:
    """A registry whose answers the test makes up."""

    def __init__(self) -> None:
        self.manifest: bytes = b""
        self.blob: bytes = b""
        self.challenge = ""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.manifest if "/manifests/" in self.path else outer.blob
                self.send_response(401 if outer.challenge else 200)
                if outer.challenge:
                    self.send_header("www-authenticate", outer.challenge)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"oci://127.0.0.1:{self._server.server_address[1]}/team/policies:main"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def lying(at_once: None) -> Iterator[Lying]:
    server = Lying()
    yield server
    server.stop()


X_DIGEST = "sha256:" + hashlib.sha256(b"x").hexdigest()


def manifest(digest: Any = X_DIGEST, **more: Any) -> bytes:
    """Write a manifest of one layer."""
    return json.dumps(
        {"layers": [{"mediaType": ARTIFACT_TYPE, "digest": digest, "size": 1}], **more}
    ).encode()


@pytest.mark.parametrize(
    ("document", "blob", "challenge", "message"),
    [
        (b"", b"", "", "is no bundle of extauthz"),
        (b"[" * 100_000, b"", "", "is no bundle of extauthz"),
        (b"[]", b"", "", "is no bundle of extauthz"),
        (manifest(layers=[]), b"", "", "is no bundle of extauthz"),
        (manifest(layers=[1]), b"", "", "is no bundle of extauthz"),
        (manifest("sha256:../../x"), b"", "", "names its layer by something else than SHA-256"),
        (manifest(1), b"", "", "names its layer by something else than SHA-256"),
        (manifest(), b"y", "", "answers with another layer than"),
        (manifest(), b"x", "", "this is not a bundle"),
        (b"x" * 300_000, b"", "", "is larger than 262144 bytes"),
        (b"", b"", "Digest realm=x", "wants a login of an unknown kind"),
        (b"", b"", 'Bearer realm="http://tokens.example.com/x"', "must be an `https://` address"),
        (b"", b"", "Bearer", "names no host"),
    ],
)
def test_a_registry_that_lies(
    lying: Lying, tmp_path: Path, document: bytes, blob: bytes, challenge: str, message: str
) -> None:
    """Whatever a registry answers, only what is signed is taken, and no password goes where it should not."""
    lying.manifest, lying.blob, lying.challenge = document, blob, challenge
    settings = {
        "url": lying.url,
        "name": NAME,
        "publicKeys": [{"data": PUBLIC_KEY}],
        "cacheDir": str(tmp_path / "cache"),
        "oci": {"username": USER, "password": PASSWORD},
    }
    with closed(open_store("bundle", settings)) as store, pytest.raises(StoreError, match=message):
        store.read()


def test_addresses() -> None:
    """An address names host, repository, and a tag or a digest; without either, Docker's usual tag."""
    assert Reference.parse("oci://r.example.com/a/b") == Reference("r.example.com", "a/b", "latest")
    assert Reference.parse("oci://r.example.com:5000/a:v1").base == "https://r.example.com:5000/v2/a"
    digest = "sha256:" + "0" * 64
    assert Reference.parse(f"oci://[::1]:5000/a:v1@{digest}") == Reference("[::1]:5000", "a", digest)
    assert Reference.parse("oci://localhost/a").base == "http://localhost/v2/a"
    for wrong in (
        "oci://r",
        "oci://r/A",
        "oci://r/a:b:c",
        "oci://r/a@sha256:0",
        "oci://u:p@r/a",
        "oci://r/../a",
    ):
        with pytest.raises(StoreError):
            Reference.parse(wrong)
