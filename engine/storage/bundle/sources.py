"""Where a bundle can come from: one row for each kind of address, one class for each row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from engine.storage import StoreError
from engine.storage.web import Access, Web, check_address, shown, trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source has now, and what it calls this state (an ETag, a digest)."""

    data: bytes
    tag: str


class Source(Protocol):
    """A place that has the latest bundle."""

    def fetch(self, known: str) -> Fetched | None:
        """Return what is there, ``None`` when that is what it called *known*.

        Raises:
            StoreError: it cannot be had; the message holds no secrets.

        """
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How a source is reached. Times in seconds, for one exchange and for the bundle itself."""

    url: str = field(repr=False)  # its query may be a secret
    request_timeout: float
    download_timeout: float
    max_bytes: int
    access: Access = field(default_factory=Access)
    ca_file: str = ""


class HttpsSource:
    """A file on a web server, asked for with its last ETag (RFC 9110 §13.1.2)."""

    def __init__(self, settings: Settings) -> None:
        check_address(settings.url)
        self._url = settings.url
        self._access = settings.access
        self._web = Web(
            trust(settings.ca_file), timeout=settings.download_timeout, max_bytes=settings.max_bytes
        )

    def fetch(self, known: str) -> Fetched | None:
        """Ask the server; without ETags the whole file comes each time, and is compared."""
        condition = {"if-none-match": known} if known else {}
        answer = self._web.ask("GET", self._url, {**self._access.header(), **condition})
        if answer.status == 304 and known:
            return None
        if answer.status != 200:
            raise StoreError(f"`{shown(self._url)}` answers {answer.status}{_hint(answer.status)}")
        return Fetched(answer.body, answer.headers.get("etag", ""))


def _hint(status: int) -> str:
    if status in {401, 403}:
        return ": the credentials do not suffice"
    return ": there is no bundle" if status in {404, 410} else ""


def _oci(settings: Settings) -> Source:
    from engine.storage.bundle.oci import OciSource  # noqa: PLC0415 - each kind is imported when it is used

    return OciSource(settings)


def _bucket(settings: Settings) -> Source:
    try:
        from engine.storage.bundle.in_bucket import BucketSource  # noqa: PLC0415 - it needs an extra
    except ImportError as error:
        raise StoreError(f"bundles in buckets need `{error.name}`; install `extauthz[blob]`") from error

    return BucketSource(settings)


SOURCES: Final[Mapping[str, Callable[[Settings], Source]]] = {
    "https": HttpsSource,
    "http": HttpsSource,
    "oci": _oci,
    "s3": _bucket,
    "gs": _bucket,
}
"""Kinds of sources, by the scheme of their addresses."""


def open_source(settings: Settings) -> Source:
    """Return the source at the address.

    Raises:
        StoreError: there is none of that kind, or the settings do not fit.

    """
    scheme = settings.url.partition(":")[0]
    make = SOURCES.get(scheme)
    if make is None or "://" not in settings.url:
        raise StoreError("the `url` of a bundle begins with `https://`, `oci://`, `s3://` or `gs://`")
    return make(settings)
