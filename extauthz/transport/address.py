"""Addresses to listen on, as the configuration writes them.

``:9191`` (all interfaces), ``127.0.0.1:9191``, ``[::1]:9191``, ``localhost:9191``,
``unix:/run/extauthz.sock`` and ``unix:@name`` (Linux's abstract namespace); port 0 lets the system choose.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

WILDCARD: Final = ""
BACKLOG: Final = 1024

_TCP: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:/@\s]*)):(?P<port>[0-9]{1,5})", re.ASCII
)
_HOW_TO_WRITE: Final = "write `:9191`, `127.0.0.1:9191`, `[::1]:9191` or `unix:/path/to.sock`"
_ALL_IPV4: Final = "0.0.0.0"  # noqa: S104  # `:9191` means all interfaces
_LONGEST_PATH: Final = 107  # sockaddr_un.sun_path has 108 bytes, one of them the closing zero

_HINTS: Final = {
    errno.EADDRINUSE: "stop the process that has it, or choose another address",
    errno.EACCES: "a port below 1024 or this directory needs a privilege that the process lacks",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


class AddressError(ValueError):
    """The text is not an address to listen on."""


class ListenError(Exception):
    """The address is fine but cannot be had."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host and a port, or a unix socket."""

    host: str = WILDCARD
    port: int = 0
    path: str = ""
    """Of the unix socket; ``@name`` is in the abstract namespace. Empty for TCP."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address as the configuration writes it.

        Raises:
            AddressError: with a message for the person who wrote it.

        """
        if text.startswith("unix:"):
            return cls(path=_socket_path(text))
        found = _TCP.fullmatch(text)
        if found is None or int(found["port"]) > 65535:
            raise AddressError(f"`{text}` is not an address: {_HOW_TO_WRITE}")
        return cls(host=found["six"] or found["host"], port=int(found["port"]))

    @property
    def is_unix(self) -> bool:
        """Whether this is a unix socket."""
        return bool(self.path)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        if self.is_unix or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_abstract(self) -> bool:
        """Whether this is a unix socket without a file."""
        return self.path.startswith("@")

    def with_port(self, port: int) -> Address:
        """Return the same host with another port."""
        return dataclasses.replace(self, port=port)

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def grpc_target(self) -> str:
        """Write the address as gRPC does (grpc/doc/naming.md)."""
        if self.is_abstract:
            return f"unix-abstract:{self.path[1:]}"
        if self.is_unix:
            return f"unix:{self.path}"
        return str(self if self.host else dataclasses.replace(self, host="::"))


def _socket_path(text: str) -> str:
    path = text.removeprefix("unix:").removeprefix("//")  # gRPC's names also have the form unix:///run/x.sock
    if path in {"", "@"} or "\0" in path:
        raise AddressError(f"`{text}` names no socket: write `unix:/path/to.sock`")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise AddressError(
            f"`{text}` is longer than the {_LONGEST_PATH} bytes that a unix socket's path may have"
        )
    return path


@dataclass(frozen=True, slots=True)
class Reservation:
    """A port held for workers that will each listen on it with ``SO_REUSEPORT``.

    The socket is bound but does not listen, so the kernel gives it no connection; while it is open, port 0
    stays the port that was chosen, and nobody else can take it between a worker's end and its restart.
    """

    address: Address
    """With the real port."""
    socket: socket.socket | None
    shared: bool
    """Another process of the same user listens there already and will get a part of the requests."""

    def close(self) -> None:
        """Give the hold up; listeners are not affected."""
        if self.socket is not None:
            self.socket.close()


def reserve(address: Address) -> Reservation:
    """Hold a gRPC address and find out now, in words, why it cannot be had.

    Raises:
        ListenError: another user or a socket without ``SO_REUSEPORT`` has it, or it is not ours to take.

    """
    if address.is_unix:  # gRPC replaces the file itself, and two sockets cannot share one
        _check_directory(address)
        return Reservation(address, None, shared=False)
    with _in_words(address):
        shared = _somebody_listens(address)
        held = _bound(address, reuse_port=True)
        return Reservation(address.with_port(held.getsockname()[1]), held, shared)


def listen(address: Address, *, mode: int | None = None) -> socket.socket:
    """Listen on *address*, once; processes forked later may accept from the same socket.

    *mode* is the file mode of a unix socket.

    Raises:
        ListenError: the address cannot be had.

    """
    with _in_words(address):
        listener = _unix_socket(address, mode) if address.is_unix else _bound(address, reuse_port=False)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener


def _bound(address: Address, *, reuse_port: bool) -> socket.socket:
    family, where = _resolved(address)
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.host in {WILDCARD, "::"} else 1
            )
        bound.bind(where)
    except OSError:
        bound.close()
        raise
    return bound


def _resolved(address: Address) -> tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]:
    if address.host == WILDCARD and socket.has_dualstack_ipv6():
        return socket.AF_INET6, ("::", address.port, 0, 0)
    if address.host == WILDCARD:
        return socket.AF_INET, (_ALL_IPV4, address.port)
    family, _, _, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return family, where  # type: ignore[return-value]  # typeshed allows for families that SOCK_STREAM has not


def _somebody_listens(address: Address) -> bool:
    """Whether the port is in use by a process that shares it with us willingly.

    Without ``SO_REUSEPORT`` a bind fails beside any listener; with it, only beside one that does not share.
    """
    if address.port == 0:
        return False
    try:
        _bound(address, reuse_port=False).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _unix_socket(address: Address, mode: int | None) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if address.is_abstract:
            bound.bind("\0" + address.path[1:])
        else:
            _remove_stale_socket(address.path)
            bound.bind(address.path)
            if mode is not None:
                Path(address.path).chmod(mode)
    except OSError:
        bound.close()
        raise
    return bound


def _remove_stale_socket(path: str) -> None:
    """Remove what an earlier run left; a file that is not a socket is somebody's data and stays."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116  # one look at the inode, as bind(2) sees it
            Path(path).unlink()


def _check_directory(address: Address) -> None:
    if not address.is_abstract and not Path(address.path).parent.is_dir():
        raise ListenError(
            f"cannot listen on `{address}`: there is no directory `{Path(address.path).parent}`"
        )


@contextlib.contextmanager
def _in_words(address: Address) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError) as error:
        raise listen_error(address, error) from error


def listen_error(address: Address, error: Exception) -> ListenError:
    """Say why *address* cannot be had and what helps."""
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    hint = _HINTS.get(getattr(error, "errno", 0) or 0, "")
    return ListenError(f"cannot listen on `{address}`: {reason}" + (f"; {hint}" if hint else ""))
