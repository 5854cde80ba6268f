"""Data source names of Go's driver for MySQL, which Cerbos uses.

``user:password@tcp(host:3306)/database?tls=name&timeout=5s``
(https://github.com/go-sql-driver/mysql#dsn-data-source-name): nothing but the database's name is escaped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from engine.storage import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IGNORED: Final = frozenset(
    (
        "allowAllFiles",
        "allowFallbackToPlaintext",
        "allowNativePasswords",
        "allowOldPasswords",
        "checkConnLiveness",
        "clientFoundRows",
        "columnsWithAlias",
        "compress",
        "connectionAttributes",
        "interpolateParams",
        "loc",
        "maxAllowedPacket",
        "multiStatements",
        "parseTime",
        "rejectReadOnly",
        "timeTruncate",
    )
)
"""Parameters that are about Go or about statements which this service never sends."""

_NETWORK: Final = re.compile(r"(?P<protocol>\w*)(?:\((?P<address>.*)\))?", re.DOTALL)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Dsn:
    """What a data source name says. Times in seconds, 0 where it says nothing."""

    database: str
    user: str = ""
    password: str = ""
    host: str = "127.0.0.1"
    port: int = 3306
    socket: str = ""
    tls: str = ""
    server_public_key: str = ""
    charset: str = "utf8mb4"
    collation: str = ""
    timeout: float = 0.0
    read_timeout: float = 0.0
    write_timeout: float = 0.0
    clear_passwords: bool = False

    @property
    def where(self) -> str:
        """The server, for messages."""
        return self.socket or f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Read a data source name.

        Raises:
            StoreError: it is none, or has a parameter that is not known; the password is never repeated.

        """
        before, slash, after = text.rpartition("/")
        if not slash:
            raise StoreError("the `dsn` of the mysql driver lacks the `/` before the database's name")
        credentials, _, network = before.rpartition("@")
        user, _, password = credentials.partition(":")
        database, _, query = after.partition("?")
        if not database:
            raise StoreError("the `dsn` of the mysql driver names no database after the `/`")
        return cls(unquote(database), user, password, **_address(network), **_parameters(query))


def _address(text: str) -> dict[str, Any]:
    found = _NETWORK.fullmatch(text)
    if found is None:
        raise StoreError("the `dsn` of the mysql driver has no address such as `tcp(host:3306)`")
    protocol, address = found["protocol"] or "tcp", found["address"] or ""
    if protocol == "unix":
        return {"socket": address or "/tmp/mysql.sock"}  # noqa: S108 - the default of Go's driver
    if protocol not in {"tcp", "tcp4", "tcp6"}:
        raise StoreError(f"`{protocol}` in the `dsn` of the mysql driver: use `tcp` or `unix`")
    host, _, port = address.rpartition(":") if re.search(r":\d+$", address) else (address, "", "3306")
    return {"host": host.strip("[]") or "127.0.0.1", "port": int(port)}


def _parameters(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _KNOWN:
            field, read = _KNOWN[name]
            found[field] = read(value)
        elif name not in IGNORED:
            raise StoreError(f"unknown parameter `{name}` in the `dsn` of the mysql driver")
    return found


def _seconds(value: str) -> float:
    parts = _DURATION.findall(value)
    if not parts or "".join(map("".join, parts)) != value:
        raise StoreError(f"`{value}` in the `dsn` of the mysql driver is no duration such as `5s`")
    return sum(float(number) * _UNIT[unit] for number, unit in parts)


def _first(value: str) -> str:
    return value.partition(",")[0]


def _truth(value: str) -> bool:
    return value.lower() in {"1", "true"}


_KNOWN: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "tls": ("tls", str),
    "serverPubKey": ("server_public_key", str),
    "charset": ("charset", _first),
    "collation": ("collation", str),
    "timeout": ("timeout", _seconds),
    "readTimeout": ("read_timeout", _seconds),
    "writeTimeout": ("write_timeout", _seconds),
    "allowCleartextPasswords": ("clear_passwords", _truth),
}
"""Parameters: which field of :class:`Dsn` they are, and how they are read."""
