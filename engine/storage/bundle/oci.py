"""A bundle as an artifact in an OCI registry (distribution specification 1.1): one manifest, one layer."""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engine.storage import StoreError
from engine.storage.bundle.sources import Fetched
from engine.storage.web import LOOPBACK, Web, check_address, shown, trust

if TYPE_CHECKING:
    from engine.storage.bundle.sources import Settings
    from engine.storage.web import Answer

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.extauthz.bundle.v1"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
EMPTY: Final = b"{}"
MAX_DOCUMENT: Final = 256 * 1024
"""Bytes of a registry's manifest, of a token, of an error."""

PAUSES: Final = (0.05, 0.2)
"""Seconds between two questions to a registry that has failed by itself."""

_REPOSITORY = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
_ADDRESS = re.compile(
    rf"oci://(?P<host>[A-Za-z0-9.-]+(?::[0-9]+)?|\[[0-9a-f:]+\](?::[0-9]+)?)/(?P<repository>{_REPOSITORY})"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Reference:
    """``oci://host/repository:tag`` or ``oci://host/repository@sha256:...``."""

    host: str
    repository: str
    reference: str

    @classmethod
    def parse(cls, url: str) -> Reference:
        """Read an address.

        Raises:
            StoreError: it is none.

        """
        found = _ADDRESS.fullmatch(url)
        if found is None:
            raise StoreError("the address must be like `oci://registry.example.com/team/policies:tag`")
        return cls(found["host"], found["repository"], found["digest"] or found["tag"] or "latest")

    @property
    def base(self) -> str:
        """Where the registry's API has this repository; without TLS on this machine only, as Docker does."""
        name = urllib.parse.urlsplit(f"//{self.host}").hostname
        return f"{'http' if name in LOOPBACK else 'https'}://{self.host}/v2/{self.repository}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def digest_of(data: bytes) -> str:
    """Return what the registry calls *data*."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """One repository of a registry; logs in when it is told to, and again when that has run out."""

    def __init__(self, settings: Settings, *, push: bool = False) -> None:
        self.reference = Reference.parse(settings.url)
        self._access = settings.access
        self._actions = "pull,push" if push else "pull"
        self._max_bytes = settings.max_bytes
        tls = trust(settings.ca_file)
        if settings.ca_file:  # whoever gives an authority wants TLS, on this machine too
            self.base = self.reference.base.replace("http://", "https://", 1)
        else:
            self.base = self.reference.base
        self._short = Web(tls, timeout=settings.request_timeout, max_bytes=MAX_DOCUMENT)
        self._long = Web(tls, timeout=settings.download_timeout, max_bytes=settings.max_bytes)
        self._authorization: dict[str, str] = {}

    # -- asking --------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        *,
        large: bool = False,
    ) -> Answer:
        """Ask the registry; when it wants to know who asks, tell it, and ask again.

        Raises:
            StoreError: there is no answer, or the registry does not let us in.

        """
        web = self._long if large else self._short
        answer = web.ask(method, url, {**(headers or {}), **self._authorization}, content=content)
        if answer.status != 401:
            return answer
        if _origin(answer.url) != _origin(self.base):
            # The password is for the registry, and for the server that the registry itself names.
            told = f"the registry `{self.reference.host}` leads to `{shown(answer.url)}`"
            raise StoreError(f"{told}, which wants a login of its own")
        self._authorization = self._log_in(answer.headers.get("www-authenticate", ""))
        answer = web.ask(method, url, {**(headers or {}), **self._authorization}, content=content)
        if answer.status == 401:
            self._authorization = {}
            raise StoreError(f"the registry `{self.reference.host}` does not accept the credentials")
        return answer

    def _log_in(self, challenge: str) -> dict[str, str]:
        """Return the header that the registry wants: basic, or a token of the server that it names."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if not self._access.is_given:
                raise StoreError(f"the registry `{self.reference.host}` wants a user name and a password")
            return self._access.header()
        if scheme.lower() != "bearer":
            raise StoreError(f"the registry `{self.reference.host}` wants a login of an unknown kind")
        return {"authorization": f"Bearer {self._token(dict(_CHALLENGE.findall(rest)))}"}

    def _token(self, wanted: dict[str, str]) -> str:
        realm = wanted.get("realm", "")
        check_address(realm)
        query = {"scope": f"repository:{self.reference.repository}:{self._actions}"}
        if wanted.get("service"):
            query["service"] = wanted["service"]
        joint = "&" if urllib.parse.urlsplit(realm).query else "?"
        url = f"{realm}{joint}{urllib.parse.urlencode(query)}"
        answer = self._short.ask("GET", url, self._access.header())
        found = _json(answer.body) if answer.status == 200 else {}
        token = found.get("token") or found.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise StoreError(f"`{shown(realm)}` gives no token: it answers {answer.status}")
        return token

    # -- pulling and pushing -------------------------------------------------------------------------------

    def layer_digest(self) -> str:
        """Return what the tag's only layer is called.

        Raises:
            StoreError: there is no such tag, or it is no bundle.

        """
        url = f"{self.base}/manifests/{self.reference.reference}"
        answer = self._settled(url)
        self._expect(answer, 200, "has no bundle there")
        if (
            self.reference.reference.startswith("sha256:")
            and digest_of(answer.body) != self.reference.reference
        ):
            raise StoreError(
                f"the registry `{self.reference.host}` answers with another manifest than asked for"
            )
        layers = _json(answer.body).get("layers")
        layer = layers[0] if isinstance(layers, list) and len(layers) == 1 else None
        if not isinstance(layer, dict) or layer.get("mediaType") != ARTIFACT_TYPE:
            raise StoreError("what the registry has there is no bundle of extauthz")
        digest = layer.get("digest")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise StoreError("the manifest in the registry names its layer by something else than SHA-256")
        return digest

    def _settled(self, url: str) -> Answer:
        """Ask for a manifest. Some registries fail for a moment while a tag is moved: then ask again."""
        for pause in PAUSES:
            answer = self.ask("GET", url, {"accept": MANIFEST_TYPE})
            if answer.status < 500:
                return answer
            time.sleep(pause)
        return self.ask("GET", url, {"accept": MANIFEST_TYPE})

    def blob(self, digest: str) -> bytes:
        """Return the layer of that name, which is compared with it.

        Raises:
            StoreError: it cannot be had.

        """
        answer = self.ask("GET", f"{self.base}/blobs/{digest}", large=True)
        self._expect(answer, 200, "lacks the layer of the bundle")
        if digest_of(answer.body) != digest:
            raise StoreError(
                f"the registry `{self.reference.host}` answers with another layer than asked for"
            )
        return answer.body

    def push(self, data: bytes, annotations: dict[str, str]) -> str:
        """Upload a bundle and put the tag on it; returns the digest of the manifest.

        Raises:
            StoreError: the registry does not take it.

        """
        for content in (EMPTY, data):
            self._upload(content)
        layer = {"mediaType": ARTIFACT_TYPE, "digest": digest_of(data), "size": len(data)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": {"mediaType": EMPTY_TYPE, "digest": digest_of(EMPTY), "size": len(EMPTY)},
            "layers": [layer],
            "annotations": annotations,
        }
        document = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        url = f"{self.base}/manifests/{self.reference.reference}"
        answer = self.ask("PUT", url, {"content-type": MANIFEST_TYPE}, document)
        self._expect(answer, 201, "does not take the manifest")
        return digest_of(document)

    def _upload(self, content: bytes) -> None:
        digest = digest_of(content)
        if self.ask("HEAD", f"{self.base}/blobs/{digest}").status == 200:
            return
        answer = self.ask("POST", f"{self.base}/blobs/uploads/")
        self._expect(answer, 202, "begins no upload")
        location = urllib.parse.urljoin(f"{self.base}/blobs/uploads/", answer.headers.get("location", ""))
        joint = "&" if urllib.parse.urlsplit(location).query else "?"
        url = f"{location}{joint}{urllib.parse.urlencode({'digest': digest})}"
        if urllib.parse.urlsplit(url).netloc != urllib.parse.urlsplit(self.base).netloc:
            raise StoreError(f"the registry `{self.reference.host}` wants the upload on another host")
        headers = {"content-type": "application/octet-stream"}
        self._expect(self.ask("PUT", url, headers, content, large=True), 201, "does not take the bundle")

    def _expect(self, answer: Answer, status: int, otherwise: str) -> None:
        if answer.status == status:
            return
        where = f"the registry `{self.reference.host}`"
        if answer.status == 403:
            raise StoreError(f"{where} denies access to `{self.reference.repository}`")
        name = f"{self.reference.repository}:{self.reference.reference}"
        raise StoreError(f"{where} {otherwise} (`{name}`): it answers {answer.status}")


class OciSource:
    """A tag of a repository; the digest of its layer tells whether the bundle is another one."""

    def __init__(self, settings: Settings) -> None:
        self._registry = Registry(settings)

    def fetch(self, known: str) -> Fetched | None:
        """Ask for the manifest, and for the layer when it is a new one."""
        digest = self._registry.layer_digest()
        return None if digest == known else Fetched(self._registry.blob(digest), digest)


def _json(text: bytes) -> dict[str, Any]:
    """Return an object from a registry, an empty one when it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
