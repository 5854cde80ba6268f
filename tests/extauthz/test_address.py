"""Addresses to listen on: how they are written, and how they are had."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

import pytest

from extauthz.transport.address import Address, AddressError, ListenError, listen, reserve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "address", "target"),
    [
        (":9191", Address("", 9191), "[::]:9191"),
        ("127.0.0.1:0", Address("127.0.0.1", 0), "127.0.0.1:0"),
        ("[::1]:9191", Address("::1", 9191), "[::1]:9191"),
        ("localhost:9191", Address("localhost", 9191), "localhost:9191"),
        ("unix:/run/x.sock", Address(path="/run/x.sock"), "unix:/run/x.sock"),
        ("unix:///run/x.sock", Address(path="/run/x.sock"), "unix:/run/x.sock"),
        ("unix:x.sock", Address(path="x.sock"), "unix:x.sock"),
        ("unix:@extauthz", Address(path="@extauthz"), "unix-abstract:extauthz"),
    ],
)
def test_addresses_as_written(text: str, address: Address, target: str) -> None:
    """An address is read as the configuration writes it and written as gRPC reads it."""
    assert Address.parse(text) == address
    assert address.grpc_target() == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9191",
        "host",
        "host:",
        ":http",
        ":70000",
        "::1:9191",
        "a b:1",
        "http://h:1",
        "unix:",
        "unix:@",
        ":-1",
    ],
)
def test_what_is_not_an_address(text: str) -> None:
    """What cannot be listened on is refused with how to write it."""
    with pytest.raises(AddressError, match="write `"):
        Address.parse(text)


def test_a_path_that_no_socket_can_have() -> None:
    """A path longer than the kernel takes is refused before anything is bound."""
    with pytest.raises(AddressError, match="longer than the 107 bytes"):
        Address.parse("unix:/" + "x" * 107)


def test_a_reserved_port_stays_the_same() -> None:
    """Port 0 becomes a real port, which workers can listen on with SO_REUSEPORT and nobody else can take."""
    held = reserve(Address("127.0.0.1", 0))
    where = ("127.0.0.1", held.address.port)
    assert where[1] > 0
    assert not held.shared
    with (
        socket.create_server(where, reuse_port=True),
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind(where)
    held.close()


def test_a_listener_that_shares_is_noticed() -> None:
    """Another server on the port is no fault when it shares the port, but it is told."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        held = reserve(Address("127.0.0.1", other.getsockname()[1]))
        assert held.shared
        held.close()


def test_a_listener_that_does_not_share_is_a_fault() -> None:
    """A port that somebody has for himself cannot be had, and the message says what helps."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(ListenError, match="address already in use; stop the process that has it"):
            reserve(address)
        with pytest.raises(ListenError, match="address already in use"):
            listen(address)


def test_an_address_of_another_machine() -> None:
    """An address that this machine does not have is said to be that (192.0.2.0/24: RFC 5737)."""
    with pytest.raises(ListenError, match="this machine has no such address"):
        listen(Address("192.0.2.1", 0))


def test_a_name_that_does_not_resolve() -> None:
    """A host name without an address is a fault like any other (.invalid: RFC 2606)."""
    with pytest.raises(ListenError, match=r"cannot listen on `no\.such\.invalid:1`"):
        reserve(Address("no.such.invalid", 1))


def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    """A socket left behind makes way; a file that is no socket is somebody's data and stays."""
    path = tmp_path / "x.sock"
    listen(Address(path=str(path))).close()
    assert stat.S_ISSOCK(path.stat().st_mode)
    listen(Address(path=str(path)), mode=0o600).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    path.write_text("data", encoding="utf-8")
    with pytest.raises(ListenError, match="address already in use"):
        listen(Address(path=str(path)))
    assert path.read_text(encoding="utf-8") == "data"


def test_a_socket_needs_its_directory(tmp_path: Path) -> None:
    """A unix socket for gRPC in a directory that is not there is refused before workers start."""
    with pytest.raises(ListenError, match="there is no directory"):
        reserve(Address(path=str(tmp_path / "no" / "x.sock")))


def test_all_interfaces() -> None:
    """``:0`` listens on IPv4 and, where there is IPv6, on that as well."""
    with listen(Address.parse(":0")) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        if socket.has_dualstack_ipv6():
            socket.create_connection(("::1", port)).close()
