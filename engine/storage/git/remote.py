"""Where a repository is and who asks for it, as the configuration says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from engine.document import did_you_mean
from engine.storage import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROTOCOLS = ("file", "http", "https", "ssh")
DEFAULT_PORT = {"http": 80, "https": 443, "ssh": 22}

_SCP_LIKE = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^/:\[\]]+|\[[^\]]+\]):(?P<path>[^/].*|/(?!/).*)")
"""``git@example.com:team/policies.git``"""


class RefusedError(StoreError):
    """It cannot go well before somebody changes something: to try again soon is of no use."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository and how to reach it; what is secret never shows in its texts."""

    protocol: str
    path: str
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    """Of the user over HTTPS."""
    private_key_file: str = ""
    key_password: str = field(default="", repr=False)
    known_hosts_file: str = ""

    def __str__(self) -> str:
        """Write the URL without user and password."""
        if self.protocol == "file":
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port != DEFAULT_PORT[self.protocol] else ""
        return f"{self.protocol}://{host}{port}/{self.path.lstrip('/')}"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Remote:
        """Read ``protocol``, ``url``, ``ssh`` and ``https`` of Cerbos's ``storage.git`` block.

        Raises:
            StoreError: they do not fit together; the message never holds a password.

        """
        protocol, url = settings.get("protocol") or "", settings.get("url") or ""
        if protocol not in PROTOCOLS:
            hint = did_you_mean(protocol, PROTOCOLS) or f"one of {', '.join(PROTOCOLS)}"
            raise StoreError(f"unknown `protocol` `{protocol}` of the git driver ({hint})")
        if not url:
            raise StoreError("the git driver needs a `url`")
        if protocol == "file":
            return cls("file", _local_path(url))
        if protocol == "ssh":
            return _over_ssh(url, _block(settings, "ssh", SSH_KEYS))
        return _over_http(protocol, url, _block(settings, "https", HTTPS_KEYS))


SSH_KEYS = ("user", "privateKeyFile", "password", "knownHostsFile")
HTTPS_KEYS = ("username", "password")


def refuse_unknown(settings: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise :class:`StoreError` for the first setting that is not known."""
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise StoreError(f"unknown setting `{unknown[0]}` of {where}")


def _block(settings: Mapping[str, Any], name: str, known: Iterable[str]) -> Mapping[str, str]:
    block: Mapping[str, str | None] = settings.get(name) or {}
    refuse_unknown(block, known, f"`{name}` of the git driver")
    return {key: value for key, value in block.items() if value}


def _local_path(url: str) -> str:
    """Return the path of ``file:///path`` or of a plain path."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file") and parts.netloc in ("", "localhost"):
        return str(Path(unquote(parts.path) if parts.scheme else url).absolute())
    raise StoreError("`url` has to be `file:///path` or a path, as `protocol` is `file`")


def _over_http(protocol: str, url: str, https: Mapping[str, str]) -> Remote:
    parts = _split(url)
    if parts.scheme != protocol or not parts.hostname:
        raise StoreError(f"`url` has to begin with `{protocol}://host`, as `protocol` is `{protocol}`")
    if parts.query or parts.fragment:
        raise StoreError("`url` of the git driver may have no `?` and no `#`")
    user = https.get("username") or unquote(parts.username or "")
    password = https.get("password") or unquote(parts.password or "")
    if protocol == "http" and (user or password):
        raise StoreError(
            "a user and password would be readable for everybody on the way: use the `https` protocol"
        )
    port = parts.port or DEFAULT_PORT[protocol]
    return Remote(protocol, parts.path or "/", parts.hostname, port, user, password)


def _over_ssh(url: str, ssh: Mapping[str, str]) -> Remote:
    if "://" in url:
        parts = _split(url)
        if parts.scheme != "ssh" or not parts.hostname:
            raise StoreError("`url` has to be `ssh://host/path` or `host:path`, as `protocol` is `ssh`")
        if parts.password:
            raise StoreError("a password in `url` is of no use over ssh: give a key in `ssh.privateKeyFile`")
        user, host, path = unquote(parts.username or ""), parts.hostname, unquote(parts.path)
        port = parts.port or DEFAULT_PORT["ssh"]
    else:
        found = _SCP_LIKE.fullmatch(url)
        if found is None:
            raise StoreError("`url` has to be `ssh://host/path` or `host:path`, as `protocol` is `ssh`")
        user, host, path, port = found["user"] or "", found["host"].strip("[]"), found["path"], 22
    if "privateKeyFile" not in ssh:
        raise StoreError("the git driver needs `ssh.privateKeyFile` for the `ssh` protocol")
    return Remote(
        "ssh",
        path,
        host,
        port,
        user or ssh.get("user", "git"),
        private_key_file=ssh["privateKeyFile"],
        key_password=ssh.get("password", ""),
        known_hosts_file=ssh.get("knownHostsFile", ""),
    )


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port  # is only looked at when it is asked for
    except ValueError:
        raise StoreError("`url` of the git driver is no URL") from None
    return parts
