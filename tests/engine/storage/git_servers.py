"""Real git repositories, and real servers of them: git's own http-backend behind TLS, Debian's sshd."""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.e2e.certificates import issue
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.com",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.com",
}

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


def needed(what: str | None, name: str) -> None:
    """Skip the test when a program is missing, but fail in CI."""
    if what is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing: .ci/run installs it")
        pytest.skip(f"needs {name}")


class Repository:
    """A bare repository with a branch; each change is a commit."""

    def __init__(self, path: Path, branch: str = "main") -> None:
        self.path = path
        self.branch = branch
        needed(shutil.which("git"), "git")
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", f"--initial-branch={branch}")
        self.commit({"README.md": b"Policies.\n"})

    def git(self, *arguments: str, given: bytes = b"") -> str:
        """Run git in the repository, and return what it prints."""
        done = subprocess.run(  # noqa: S603  # git, with words of tests
            ["git", *arguments],  # noqa: S607  # whichever git there is
            cwd=self.path,
            input=given,
            env={**os.environ, **GIT_ENVIRONMENT},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def commit(
        self,
        contents: Mapping[str, bytes | None],
        *,
        branch: str = "",
        onto: str = "",
        mode: str = "100644",
    ) -> str:
        """Change files (None removes one) in one commit on a branch, and return its id.

        The commit follows the branch's last one, or *onto* another one; ``onto="nothing"`` begins anew.
        """
        ref = f"refs/heads/{branch or self.branch}"
        parent = onto or self._last(ref)
        lines = [f"commit {ref}\ncommitter Ann <ann@example.com> {int(time.time())} +0000\n".encode()]
        lines.append(b"data 6\nChange\n")
        if parent not in ("", "nothing"):
            lines.append(f"from {parent}\n".encode())
        for path, content in contents.items():
            if content is None:
                lines.append(f'D "{path}"\n'.encode())
            else:
                lines.append(f'M {mode} inline "{path}"\ndata {len(content)}\n'.encode() + content + b"\n")
        if onto:
            self.git("update-ref", "-d", ref)
        self.git("fast-import", "--quiet", "--force", given=b"".join(lines))
        return self._last(ref)

    def _last(self, ref: str) -> str:
        return self.git("for-each-ref", "--format=%(objectname)", ref)


class GitServer(Protocol):
    """Serves the repositories below a folder."""

    def settings(self, repository: Path) -> dict[str, Any]:
        """Return what the driver has to be told to reach one of them."""

    def start(self) -> None:
        """Listen, at the same place as before."""

    def stop(self) -> None:
        """Listen no more."""


class Files:
    """No server: the repository's own path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def settings(self, repository: Path) -> dict[str, Any]:
        return {"protocol": "file", "url": f"file://{repository}"}

    def start(self) -> None:
        self.root.with_name("away").rename(self.root)

    def stop(self) -> None:
        if self.root.exists():
            self.root.rename(self.root.with_name("away"))


class HttpServer:
    """git http-backend behind a server with TLS, a user and a password."""

    user, password = "ann", "s3cr3t/+"

    def __init__(self, root: Path, certificates: Path, *, tls: bool = True) -> None:
        self.root = root
        self.tls = tls
        self.port = free_port()
        self.is_old = False
        """Whether to speak only the first version of git's protocol."""
        self.requests: list[str] = []
        self.redirects: dict[str, str] = {}
        """Beginnings of paths, and where they have moved to."""
        if tls:
            issue(certificates, "localhost")
        self.certificates = certificates
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    def settings(self, repository: Path) -> dict[str, Any]:
        found: dict[str, Any] = {"protocol": self.url.partition(":")[0]}
        found["url"] = f"{self.url}/{repository.relative_to(self.root)}"
        if self.tls:
            found["https"] = {"username": self.user, "password": self.password}
        return found

    def start(self) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificates / "localhost.crt", self.certificates / "localhost.key")
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None


@contextlib.contextmanager
def served_over_https(
    repository: Repository, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HttpServer]:
    """Serve a repository; this process, and those that it starts, trust the server's certificate."""
    server = HttpServer(repository.path.parent, certificates)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificates / "ca.crt"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _handler(served: HttpServer) -> type[BaseHTTPRequestHandler]:
    expected = "Basic " + base64.b64encode(f"{served.user}:{served.password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        """Runs git http-backend for each request."""

        timeout = 20

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            served.requests.append(f"{self.command} {self.path}")
            for begin, target in served.redirects.items():
                if self.path.startswith(begin):
                    self.send_response(301)
                    self.send_header("Location", target + self.path.removeprefix(begin))
                    self.end_headers()
                    return
            if served.tls and self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            self._run()

        def _run(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(
                ["git", "http-backend"],  # noqa: S607  # whichever git there is
                input=body,
                capture_output=True,
                check=False,
                env={
                    **os.environ,
                    **GIT_ENVIRONMENT,
                    "GIT_PROJECT_ROOT": str(served.root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_PROTOCOL": "" if served.is_old else self.headers.get("Git-Protocol") or "",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type") or "",
                    "CONTENT_LENGTH": str(len(body)),
                    "REMOTE_ADDR": "127.0.0.1",
                },
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200").split(" ")[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler


class SshServer:
    """Debian's sshd, with a host key and a user key of its own."""

    def __init__(self, directory: Path, *, key_password: str = "") -> None:
        needed(SSHD, "sshd")
        self.directory = directory
        self.port = free_port()
        self.key_password = key_password
        directory.mkdir(parents=True)
        self._key("host", "")
        self._key("user", key_password)
        public = (directory / "host.pub").read_text(encoding="ascii").split()
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n", encoding="ascii")
        shutil.copy(directory / "user.pub", directory / "authorized_keys")
        (directory / "sshd_config").write_text(self._configuration(), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def _key(self, name: str, password: str) -> None:
        subprocess.run(  # noqa: S603  # words of tests
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", password, "-f", str(self.directory / name)],  # noqa: S607
            check=True,
        )

    def _configuration(self) -> str:
        return "\n".join(
            (
                f"Port {self.port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {self.directory}/host",
                f"AuthorizedKeysFile {self.directory}/authorized_keys",
                "AuthenticationMethods publickey",
                "PermitRootLogin prohibit-password",
                "StrictModes no",
                "UsePAM no",
                "PidFile none",
                "AllowTcpForwarding no",
                "",
            )
        )

    def settings(self, repository: Path) -> dict[str, Any]:
        key = {"privateKeyFile": str(self.directory / "user"), "knownHostsFile": str(self.known_hosts)}
        if self.key_password:
            key["password"] = self.key_password
        url = f"ssh://127.0.0.1:{self.port}{repository}"
        return {"protocol": "ssh", "url": url, "ssh": {"user": getpass.getuser(), **key}}

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it, and only a service makes it
        assert SSHD is not None
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # Debian's sshd
                [SSHD, "-D", "-e", "-f", str(self.directory / "sshd_config")], stderr=log
            )
        end = time.monotonic() + 20
        while True:
            assert self._process.poll() is None, (self.directory / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < end, "sshd does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
