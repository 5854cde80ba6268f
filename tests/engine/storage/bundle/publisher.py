"""What the tests of bundles share: keys, a publisher of bundles, and a web server of files over TLS."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import ipaddress
import ssl
import threading
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from engine.storage import open_store
from engine.storage.bundle.format import write_bundle
from engine.storage.bundle.keys import public_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from engine.storage import Store

NAME = "expenses"
CREATED = datetime.datetime(2026, 11, 28, 16, 0, tzinfo=datetime.UTC)

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
PUBLIC_KEY = public_text(KEY.public_key())
OTHER_PUBLIC_KEY = public_text(OTHER_KEY.public_key())


def bundle(
    contents: Mapping[str, bytes],
    sequence: int = 1,
    *,
    keys: tuple[Ed25519PrivateKey, ...] = (KEY,),
    name: str = NAME,
    created: datetime.datetime = CREATED,
    version: str = "",
) -> bytes:
    """Make a bundle."""
    return write_bundle(contents, keys, name=name, sequence=sequence, created=created, version=version)


class Publisher:
    """Changes policies by publishing a bundle of all of them."""

    def __init__(self, publish: Callable[[bytes], object]) -> None:
        self._publish = publish
        self._contents: dict[str, bytes] = {}
        self.sequence = 0

    def put(self, path: str, content: bytes) -> None:
        """Add or replace a file."""
        self.together({path: content})

    def remove(self, path: str) -> None:
        """Take a file away."""
        del self._contents[path]
        self.together({})

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Add or replace files."""
        self._contents |= contents
        self.sequence += 1
        self._publish(bundle(self._contents, self.sequence))


class FollowedPublisher(Publisher):
    """A publisher whose bundles stores follow, each with a memory of its own."""

    def __init__(self, publish: Callable[[bytes], object], settings: dict[str, Any], directory: Path) -> None:
        super().__init__(publish)
        trusted = {"name": NAME, "publicKeys": [{"data": PUBLIC_KEY}], "updatePollInterval": 0.1}
        self.settings = {**trusted, **settings}
        self._directory = directory
        self._opened = 0
        self.together({})

    def open(self, **settings: Any) -> Store:
        """Open a store that knows nothing of earlier ones."""
        self._opened += 1
        cache = str(self._directory / str(self._opened))
        return open_store("bundle", {**self.settings, "cacheDir": cache, **settings})


def certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir(parents=True, exist_ok=True)
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


class WebServer:
    """Serves files over HTTPS with ETags, and goes away when told to. Requests are counted by answer."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.authorization = ""
        """What the header of that name has to be, if anything."""
        self.challenge: dict[str, str] = {}
        """The headers that go with a 401."""
        self.etags = True
        self.answers: list[int] = []
        self.seen: list[tuple[str, str]] = []
        """Path and ``authorization`` of each request."""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(cert_file, key_file)
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}"

    def start(self) -> None:
        """Serve; on the same port as before."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        server.socket = self._tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self._server = server

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 20

            def do_GET(self) -> None:
                shown = self.headers.get("authorization", "")
                server.seen.append((self.path, shown))
                content = server.files.get(self.path.partition("?")[0])
                if server.authorization and shown != server.authorization:
                    self._answer(401, server.challenge)
                elif self.path in server.redirects:
                    self._answer(302, {"location": server.redirects[self.path]})
                elif content is None:
                    self._answer(404)
                else:
                    self._file(content)

            def _file(self, content: bytes) -> None:
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                headers = {"etag": etag} if server.etags else {}
                if server.etags and self.headers.get("if-none-match") == etag:
                    self._answer(304, headers)
                else:
                    self._answer(200, headers, content)

            def _answer(
                self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
            ) -> None:
                server.answers.append(status)
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        return Handler
