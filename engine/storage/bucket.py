"""A bucket of S3, of something that speaks like S3, or of Google Cloud Storage: listing and reading it.

Addresses are Cerbos's (those of gocloud.dev's ``blob``): ``s3://bucket?region=...&endpoint=...``,
``gs://bucket``. Credentials come from the environment, as the providers' own tools take them.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError, InvalidPathError, NotFoundError
from obstore.store import GCSStore, S3Store

from engine.storage import StoreError
from engine.storage.web import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger(__name__)

MAX_OBJECTS: Final = 100_000
"""Objects under a prefix that are listed; more are no tree of policies but a mistake."""
RETRIES: Final = 2
EMULATOR_VARIABLE: Final = "STORAGE_EMULATOR_HOST"
"""Where Google's own libraries look for a GCS that is not Google's."""


class UnreachableError(StoreError):
    """The bucket gives no answer, or none of its own: it may be well, but we do not know what is in it."""


class GoneError(StoreError):
    """An object that was listed is not there any more, or is another one."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing; *path* is its key without the prefix."""

    path: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Address:
    """What the URL of a bucket says."""

    scheme: str
    bucket: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """How the bucket is called in messages."""
        return f"{self.scheme}://{self.bucket}"


def _switch(value: str) -> bool:
    if value.lower() not in {"true", "false", "1", "0", "t", "f"}:
        raise ValueError("must be `true` or `false`")
    return value.lower() in {"true", "1", "t"}


S3_OPTIONS: Final[Mapping[str, str]] = {
    "region": "region",
    "endpoint": "endpoint",
    "use_path_style": "path_style",
    "s3ForcePathStyle": "path_style",
    "disable_https": "disable_https",
    "disableSSL": "disable_https",
    "anonymous": "anonymous",
    "hostname_immutable": "",
    "awssdk": "",
}
"""What may stand in the query of an S3 address, and what it is here; nothing where it changes nothing."""
GCS_OPTIONS: Final[Mapping[str, str]] = {"anonymous": "anonymous"}
_OPTIONS = {"s3": S3_OPTIONS, "gs": GCS_OPTIONS}
_SWITCHES = frozenset(("path_style", "disable_https", "anonymous"))
_INSTANCE = "169.254."
"""Where credentials of instances and containers come from, when there are none in the environment."""
_BUCKET = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9._-]{1,221}")


def parse_address(url: str, *, what: str = "bucket") -> tuple[Address, str]:
    """Read the URL of a bucket; returns it and the path behind it. *what* is the setting it stands in.

    Raises:
        StoreError: it is none, or says something that is not known.

    """
    try:
        parts = urllib.parse.urlsplit(url)
        query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise StoreError(f"the `{what}` cannot be read as a URL") from None
    if parts.scheme not in _OPTIONS or not _BUCKET.fullmatch(parts.netloc):
        raise StoreError(f"the `{what}` must be like `s3://name?region=eu-west-1` or `gs://name`")
    options: dict[str, str] = {}
    for name, value in query:
        if name not in _OPTIONS[parts.scheme]:
            known = ", ".join(f"`{each}`" for each in _OPTIONS[parts.scheme])
            raise StoreError(f"unknown option `{name}` in the `{what}` (there is {known})")
        meaning = _OPTIONS[parts.scheme][name]
        try:
            options[meaning] = str(_switch(value)) if meaning in _SWITCHES else value
        except ValueError as error:
            raise StoreError(f"the option `{name}` in the `{what}` {error}") from None
    options.pop("", None)
    return Address(parts.scheme, parts.netloc, options), parts.path.strip("/")


class Bucket:
    """The objects under a prefix of a bucket."""

    def __init__(
        self,
        address: Address,
        prefix: str = "",
        *,
        request_timeout: float,
        download_timeout: float,
        ca_file: str = "",
    ) -> None:
        """*request_timeout* is for one page of a listing, *download_timeout* for one object, in seconds.

        Raises:
            StoreError: the settings do not fit together.

        """
        self.shown = address.shown
        self._prefix = prefix.strip("/")
        self._short = _store(address, request_timeout, ca_file)
        self._long = _store(address, download_timeout, ca_file)

    def listing(self) -> Iterator[Listed]:
        """Yield all objects under the prefix.

        Raises:
            UnreachableError: the bucket gives no answer.
            StoreError: it refuses, or holds what cannot be policies.

        """
        start = len(self._prefix) + 1 if self._prefix else 0
        number = 0
        try:
            for page in obstore.list(self._short, self._prefix or None, chunk_size=1000):
                for found in page:
                    number += 1
                    if number > MAX_OBJECTS:
                        raise StoreError(f"`{self.shown}` has more than {MAX_OBJECTS} objects to look at")
                    yield Listed(found["path"][start:], _etag(found), found["size"])
        except InvalidPathError:
            raise StoreError(f"`{self.shown}` holds an object whose name is no path") from None
        except (BaseError, OSError, ValueError) as error:
            raise self._error(error, "cannot be listed") from None

    def read(self, path: str, etag: str, max_bytes: int) -> bytes:
        """Return the content of an object as it was listed.

        Raises:
            GoneError: it is not there any more, or not the same.
            UnreachableError: the bucket gives no answer.
            StoreError: it refuses.

        """
        found, content = self._get(path, max_bytes)
        if etag and found != etag:
            raise GoneError(f"`{path}` in `{self.shown}` has changed since it was listed")
        return content

    def read_unless(self, path: str, known: str, max_bytes: int) -> tuple[str, bytes] | None:
        """Return ETag and content of an object, ``None`` when its ETag is *known*.

        Raises:
            StoreError: it cannot be had.

        """
        if known:
            try:
                head = obstore.head(self._short, self._key(path))
            except (BaseError, OSError, ValueError) as error:
                raise self._error(error, f"does not give `{path}`") from None
            if _etag(head) == known:
                return None
        return self._get(path, max_bytes)

    def _get(self, path: str, max_bytes: int) -> tuple[str, bytes]:
        try:
            result = obstore.get(self._long, self._key(path))
            content = bytearray()
            for chunk in result.stream(min_chunk_size=256 * 1024):
                content += chunk
                if len(content) > max_bytes:
                    raise StoreError(f"`{path}` in `{self.shown}` is larger than {max_bytes} bytes")
            return _etag(result.meta), bytes(content)
        except (FileNotFoundError, NotFoundError):
            raise GoneError(f"`{path}` is not in `{self.shown}`") from None
        except (BaseError, OSError, ValueError) as error:
            raise self._error(error, f"does not give `{path}`") from None

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _error(self, error: Exception, what: str) -> StoreError:
        """Word what the library says: its own words are long, and quote what the server sends."""
        text = str(error)
        status = re.search(r"non-2xx status code: (\d{3})", text)
        code = re.search(r"<Code>([A-Za-z.]{1,80})</Code>", text)
        if status is None and _INSTANCE in text:
            return UnreachableError(
                f"`{self.shown}` cannot be asked: no credentials in the environment, and no instance role"
            )
        if status is None:
            cause = re.search(r'message: "([^"]{1,200})"', text)
            reason = cause[1] if cause else "no answer in time"
            return UnreachableError(f"`{self.shown}` cannot be reached: {reason}")
        reason = f"{status[1]} {code[1]}" if code else status[1]
        refused = status[1].startswith("4") and status[1] not in {"408", "429"}
        kind = StoreError if refused else UnreachableError
        return kind(f"`{self.shown}` {what}: it answers {reason}")


def _etag(found: Mapping[str, Any]) -> str:
    """Return what tells that an object has changed; Google quotes it here and not there."""
    etag = found.get("e_tag")
    if etag:
        return str(etag).strip('"')
    return f"{found['size']}@{found['last_modified'].timestamp()}"


# --- clients ----------------------------------------------------------------------------------------------


def _store(address: Address, timeout: float, ca_file: str) -> S3Store | GCSStore:
    client: dict[str, Any] = {
        "timeout": datetime.timedelta(seconds=timeout),
        "connect_timeout": datetime.timedelta(seconds=min(timeout, 5.0)),
        "user_agent": "extauthz",
    }
    if ca_file:
        client["root_certificate"] = _certificates(ca_file)
    retries: Any = {
        "max_retries": RETRIES,
        "retry_timeout": datetime.timedelta(seconds=timeout),
        "backoff": {
            "init_backoff": datetime.timedelta(seconds=0.1),
            "max_backoff": datetime.timedelta(seconds=2),
            "base": 2,
        },
    }
    make: Callable[..., S3Store | GCSStore] = _s3 if address.scheme == "s3" else _gcs
    try:
        return make(address, client, retries)
    except (BaseError, ValueError, TypeError):
        raise StoreError(
            f"the settings of `{address.shown}` cannot be used: look at its URL, "
            "and at the credentials in the environment"
        ) from None


def _s3(address: Address, client: dict[str, Any], retries: Any) -> S3Store:
    options = address.options
    path_style = options.get("path_style") == "True"
    config: dict[str, Any] = {"virtual_hosted_style_request": not path_style}
    if options.get("region"):
        config["region"] = options["region"]
    if options.get("anonymous") == "True":
        config["skip_signature"] = True
    endpoint = options.get("endpoint", "")
    if endpoint:
        config["endpoint"], client["allow_http"] = _endpoint(address, endpoint, path_style=path_style)
    elif not path_style:
        config["virtual_hosted_style_request"] = "." not in address.bucket  # no certificate fits a dot more
    return S3Store(address.bucket, client_options=client, retry_config=retries, **config)  # type: ignore[arg-type]  # plain dicts


def _endpoint(address: Address, endpoint: str, *, path_style: bool) -> tuple[str, bool]:
    """Return the URL of the service, and whether it is one without TLS."""
    scheme = "http" if address.options.get("disable_https") == "True" else "https"
    url = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"{scheme}://{endpoint}")
    if url.scheme not in {"http", "https"} or not url.hostname or url.username or url.query:
        raise StoreError(f"the `endpoint` of `{address.shown}` must be a host, or an `https://` URL")
    plain = url.scheme == "http"
    if plain and url.hostname not in LOOPBACK:
        logger.warning("`%s` is read without TLS: whoever is on the way can change policies", address.shown)
    host = url.netloc if path_style else f"{address.bucket}.{url.netloc}"
    return urllib.parse.urlunsplit((url.scheme, host, url.path.rstrip("/"), "", "")), plain


def _gcs(address: Address, client: dict[str, Any], retries: Any) -> GCSStore:
    config: dict[str, Any] = {}
    emulator = os.environ.get(EMULATOR_VARIABLE, "")
    if emulator:
        config["base_url"] = emulator if "://" in emulator else f"http://{emulator}"
        client["allow_http"] = True
    if emulator or address.options.get("anonymous") == "True":
        config["skip_signature"] = True
    return GCSStore(address.bucket, client_options=client, retry_config=retries, **config)  # type: ignore[arg-type]  # plain dicts


def _certificates(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - a name from the configuration, read once
            return opened.read()
    except OSError as error:
        raise StoreError(f"cannot read the CA certificates `{file}`: {error.strerror}") from error
