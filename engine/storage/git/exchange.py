"""One exchange with a git server, which ends within its time, whatever the server does.

dulwich speaks git's protocol; the connections are made here, so that each of them can be cut: a timeout of a
socket only bounds the silence between two bytes. What comes over a connection is taken as hostile: redirects
lead nowhere else, host keys and certificates are checked, the amount is bounded, texts are cleaned.
"""

from __future__ import annotations

import contextlib
import http.client
import shlex
import socket
import ssl
import threading
import time
from base64 import b64encode
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, Self
from urllib.parse import urljoin, urlsplit

import paramiko
from dulwich.client import AbstractHttpGitClient, GitClient, TraditionalGitClient
from dulwich.errors import GitProtocolError, NotGitRepository
from dulwich.protocol import Protocol as GitProtocol

from engine.storage import StoreError
from engine.storage.git.remote import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.storage.git.remote import Remote

MAX_RECEIVED: Final = 1024 * 1024 * 1024
"""Bytes that one exchange may bring."""

THIN: Final = True
"""Whether packs may refer to what we have. Otherwise git sends everything again to whoever has a commit
without its history."""

MAX_REDIRECTS: Final = 3
MAX_WORDS: Final = 300
"""Characters of a server's own words that are repeated."""

SYSTEM_KNOWN_HOSTS: Final = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


class Closable(Protocol):
    """What has to be closed."""

    def close(self) -> object:
        """Let go of it."""


class Exchange:
    """The time that one exchange may take, and the connections to cut when it is over.

    Use it as a context: whatever goes wrong inside, once the time is over or :meth:`cut` was called,
    comes out as a :class:`StoreError` that says so.
    """

    def __init__(self, remote: Remote, seconds: float) -> None:
        self.remote = remote
        self._ends = time.monotonic() + seconds
        self._too_long = f"no end within {seconds:g} s (`operationTimeout`)"
        self._sockets: list[socket.socket] = []
        self._opened = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._cut = ""
        self._received = 0
        self._timer = threading.Timer(seconds, self.cut, [self._too_long])
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._timer.cancel()
        self._opened.close()
        if self._over and isinstance(error, Exception):
            raise StoreError(self._over) from None

    @property
    def _over(self) -> str:
        """Why the exchange has to end; empty while it may go on."""
        return self._cut or (self._too_long if time.monotonic() >= self._ends else "")

    @property
    def remaining(self) -> float:
        """Seconds that are left.

        Raises:
            StoreError: none are.

        """
        over = self._over
        if over:
            raise StoreError(over)
        return max(self._ends - time.monotonic(), 0.001)

    def cut(self, reason: str) -> None:
        """End the exchange now."""
        with self._lock:
            self._cut = self._cut or reason
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own method: that one lets go of what a reading thread is using.
                    socket.socket.shutdown(each, socket.SHUT_RDWR)

    def _connected(self, host: str, port: int) -> socket.socket:
        failed: OSError = OSError("the name has no address")
        for address in _addresses(host, port, self.remaining):
            try:
                return socket.create_connection(address, timeout=self.remaining)
            except OSError as error:
                failed = error
        raise failed

    def closes(self, opened: Closable) -> None:
        """Close something at the end."""
        self._opened.callback(opened.close)

    def count(self, number: int) -> None:
        """Note that *number* bytes have come.

        Raises:
            StoreError: these are too many.

        """
        self._received += number
        if self._received > MAX_RECEIVED:
            raise StoreError(f"the server sends more than {MAX_RECEIVED >> 20} MiB")

    def connect(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> socket.socket:
        """Return a connection that ends with the exchange.

        Raises:
            StoreError: there is none to be had.

        """
        try:
            made = self._connected(host, port)
            if tls is not None:
                made = tls.wrap_socket(made, server_hostname=host, do_handshake_on_connect=False)
            self.closes(made)
            with self._lock:
                self._sockets.append(made)
            made.settimeout(self.remaining)
            if isinstance(made, ssl.SSLSocket):
                made.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise RefusedError(
                f"the certificate of `{host}` is not trusted: {error.verify_message}"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot connect to `{host}` port {port}: {error.strerror or error}") from None
        return made


def _addresses(host: str, port: int, seconds: float) -> list[tuple[str, int]]:
    """Look a name up in a thread, because what the system does for that has no end of its own."""
    answers: SimpleQueue[list[tuple[str, int]] | OSError] = SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([(str(address[0]), port) for *_, address in found])
        except OSError as error:
            answers.put(error)

    threading.Thread(target=look_up, name="git-store-names", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise StoreError(f"the name `{host}` is not found in time") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


@contextlib.contextmanager
def said_clearly() -> Iterator[None]:
    """Turn what goes wrong between us and a server into a :class:`StoreError`."""
    try:
        yield
    except StoreError:
        raise
    except NotGitRepository:
        raise StoreError("there is no git repository") from None
    except GitProtocolError as error:
        raise StoreError(cleaned(str(error)) or "the server ended the connection") from None
    except Exception as error:
        # A server that does not keep to the protocol can make the library fail in any way.
        raise StoreError(f"the server's answer cannot be understood: {cleaned(repr(error))}") from None


def cleaned(text: str) -> str:
    """Return words of a server in one short line that a log and a terminal can bear."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]}..."


def client_for(exchange: Exchange) -> GitClient:
    """Return what speaks git over the remote's protocol."""
    return _Ssh(exchange) if exchange.remote.protocol == "ssh" else _Http(exchange)


# --- HTTP -------------------------------------------------------------------------------------------------


class _Http(AbstractHttpGitClient):
    """Speaks to a smart HTTP server, over connections of the exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        super().__init__(str(exchange.remote), dumb=False, thin_packs=THIN, quiet=True)
        remote = exchange.remote
        self._tls = ssl.create_default_context() if remote.protocol == "https" else None
        credentials = b64encode(f"{remote.user}:{remote.password}".encode()).decode()
        self._authorization = (
            {"Authorization": f"Basic {credentials}"} if remote.user or remote.password else {}
        )

    def _http_request(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        data: bytes | Iterator[bytes] | None = None,
        raise_for_status: bool = True,
    ) -> tuple[Any, Callable[[int], bytes]]:
        """Ask once; a redirect is followed for the first request, to the same server only."""
        del raise_for_status  # a status other than 200 is always an error
        asked = url
        body = data if data is None or isinstance(data, bytes) else b"".join(data)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._ask(asked, headers or {}, body)
            if body is not None or response.status not in (301, 302, 303, 307, 308):
                break
            asked = self._redirected(asked, response.getheader("Location", ""))
        else:
            raise RefusedError("the server redirects without end")
        self._check(response)
        answer = _Answer(response, self._exchange, asked if asked != url else "")
        return answer, answer.read

    def _ask(self, url: str, headers: dict[str, str], body: bytes | None) -> http.client.HTTPResponse:
        remote, parts = self._exchange.remote, urlsplit(url)
        if (parts.scheme, parts.hostname, parts.port or remote.port) != (
            remote.protocol,
            remote.host,
            remote.port,
        ):
            # Redirects are looked at elsewhere; a server can name further addresses in git's protocol too.
            raise RefusedError("the server sends us to another server, which is refused")
        connection = http.client.HTTPConnection(remote.host, remote.port)
        connection.sock = self._exchange.connect(remote.host, remote.port, tls=self._tls)
        self._exchange.closes(connection)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        try:
            connection.request(
                "GET" if body is None else "POST",
                target,
                body,
                {**headers, **self._authorization, "User-Agent": "git/extauthz", "Pragma": "no-cache"},
            )
            response = connection.getresponse()
        except (http.client.HTTPException, OSError) as error:
            reason = cleaned(str(error) or repr(error))
            raise StoreError(f"no answer from `{remote.host}`: {reason}") from None
        self._exchange.closes(response)
        return response

    def _redirected(self, url: str, location: str) -> str:
        remote = self._exchange.remote
        target = urljoin(url, location)
        parts = urlsplit(target)
        if (parts.scheme, parts.hostname) != (remote.protocol, remote.host) or (
            parts.port or remote.port
        ) != remote.port:
            shown = cleaned(f"{parts.scheme}://{parts.hostname}{parts.path}")
            raise RefusedError(
                f"the server redirects to `{shown}`, which is refused: set `url` to where it is"
            )
        return target

    def _check(self, response: http.client.HTTPResponse) -> None:
        if response.status == 200:
            kind = response.getheader("Content-Type", "")
            if not kind.startswith("application/x-git-"):
                raise RefusedError("there is a web page and no git repository")
            return
        refusals = {
            401: "the server wants another user or password (`https.username`, `https.password`)",
            403: "the server refuses access to this user",
            404: "there is no repository, or this user may not see it",
        }
        if response.status in refusals:
            raise RefusedError(refusals[response.status])
        raise StoreError(f"the server answers with status {response.status}")


class _Answer:
    """What dulwich wants to know of an answer."""

    def __init__(self, response: http.client.HTTPResponse, exchange: Exchange, location: str) -> None:
        self._response = response
        self._exchange = exchange
        self.content_type = response.getheader("Content-Type")
        self.redirect_location = location

    def read(self, size: int) -> bytes:
        """Return *size* bytes, fewer at the end."""
        data = self._response.read(size)
        self._exchange.count(len(data))
        return data

    def close(self) -> None:
        """Let go of the connection."""
        self._response.close()


# --- SSH --------------------------------------------------------------------------------------------------


class _Ssh(TraditionalGitClient):
    """Runs git's command on the server, if that is the server that we know."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(thin_packs=THIN, quiet=True)
        self._exchange = exchange

    def _connect(
        self, cmd: bytes, path: str | bytes, protocol_version: int | None = None
    ) -> tuple[GitProtocol, Callable[[], bool], IO[bytes] | None]:
        del protocol_version
        there = path.decode() if isinstance(path, bytes) else path
        command = (
            f"git-{cmd.decode()} {shlex.quote(there.removeprefix('/') if there.startswith('/~') else there)}"
        )
        channel = self._run(command)
        connected = GitProtocol(channel.read, channel.write, channel.close)
        self._exchange.closes(connected)
        return connected, channel.can_read, channel.stderr

    def _run(self, command: str) -> _Channel:
        exchange, remote = self._exchange, self._exchange.remote
        key = _private_key(remote)
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        for file in _known_hosts(remote.known_hosts_file):
            client.load_system_host_keys(str(file))
        try:
            client.connect(
                remote.host,
                remote.port,
                remote.user,
                pkey=key,
                allow_agent=False,
                look_for_keys=False,
                sock=exchange.connect(remote.host, remote.port),
                timeout=exchange.remaining,
                banner_timeout=exchange.remaining,
                auth_timeout=exchange.remaining,
            )
            transport = client.get_transport()
            if transport is None:
                raise EOFError("the server ended the connection")
            channel = transport.open_session(timeout=exchange.remaining)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            client.close()
            raise _refusal(error, remote) from None
        except BaseException:
            client.close()
            raise
        return _Channel(client, channel, exchange)


def _refusal(error: Exception, remote: Remote) -> StoreError:
    if isinstance(error, paramiko.BadHostKeyException):
        return RefusedError(
            f"the host key of `{remote.host}` is another one than the known hosts say: refused"
        )
    if isinstance(error, paramiko.AuthenticationException):
        return RefusedError(f"the server does not accept the key for user `{remote.user}`")
    if "not found in known_hosts" in str(error):
        where = f"`{remote.known_hosts_file}`" if remote.known_hosts_file else "known_hosts"
        return RefusedError(
            f"the host key of `{remote.host}` is not known: check it and add it to {where} "
            "(`ssh.knownHostsFile`)"
        )
    return StoreError(f"no connection over ssh: {cleaned(str(error) or repr(error))}")


def _known_hosts(file: str) -> list[Path]:
    if file:
        if not Path(file).is_file():
            raise RefusedError(f"there is no file `{file}` (`ssh.knownHostsFile`)")
        return [Path(file)]
    with contextlib.suppress(RuntimeError):  # a user without a home directory
        return [path for path in (Path(each).expanduser() for each in SYSTEM_KNOWN_HOSTS) if path.is_file()]
    return []


def _private_key(remote: Remote) -> paramiko.PKey:
    file = remote.private_key_file
    try:
        # Bytes, because paramiko 5 hands the password on to cryptography as it is.
        password: Any = remote.key_password.encode() or None
        return paramiko.PKey.from_path(file, password)
    except OSError as error:
        raise RefusedError(f"cannot read `{file}` (`ssh.privateKeyFile`): {error.strerror}") from None
    except Exception:  # the libraries below have many ways to say so, and none may show the password
        hint = "is `ssh.password` right?" if remote.key_password else "does it need `ssh.password`?"
        raise RefusedError(f"the key in `{file}` cannot be used: {hint}") from None


class _Channel:
    """A command on the server: what dulwich reads from and writes to."""

    def __init__(self, client: paramiko.SSHClient, channel: paramiko.Channel, exchange: Exchange) -> None:
        self._client = client
        self._channel = channel
        self._exchange = exchange
        self.stderr: Any = channel.makefile_stderr("rb")

    def can_read(self) -> bool:
        """Tell whether bytes have come."""
        ready: bool = self._channel.recv_ready()
        return ready

    def read(self, size: int) -> bytes:
        """Return *size* bytes, fewer at the end."""
        data = bytearray()
        while len(data) < size and (more := self._channel.recv(size - len(data))):
            data += more
        self._exchange.count(len(data))
        return bytes(data)

    def write(self, data: bytes) -> int:
        """Send everything."""
        self._channel.sendall(data)
        return len(data)

    def close(self) -> None:
        """End the connection."""
        self._client.close()
