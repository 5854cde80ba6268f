"""The configuration file: its shape, as frozen models that check themselves, and how it is read.

The ``server``, ``storage``, ``engine``, ``auxData``, ``schema`` and ``audit`` blocks have Cerbos's keys and
meaning; ``extAuthz`` is ours. What is read is complete: slots are compiled, routes do not clash, names that
are referred to exist. ``docs/configuration.md`` describes every key for users.

Annotations are evaluated here (no ``from __future__ import annotations``): pydantic reads them.
"""

import base64
import binascii
import datetime
import os
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from engine.artefacts.cache import MAX_BYTES as CACHE_BYTES
from engine.artefacts.cache import CacheSettings
from engine.document import Document, DocumentError, Fault
from engine.document import parse as parse_document
from extauthz import blocks, slots
from extauthz.admin.credentials import LEAST_COST, Credentials, HashError, check_hash, read_hash
from extauthz.blocks import (
    Block,
    Complaint,
    Duration,
    NonEmpty,
    Path,
    PositiveDuration,
    fault,
    not_empty,
    raise_all,
    unknown,
)
from extauthz.keysets import HMAC_BITS, VERIFIERS
from extauthz.request import LIMITS, Limits
from extauthz.routes import HostPattern, PathTemplate, Pattern, clashes
from extauthz.slots import Scope, Slot, Want
from extauthz.sources import UrlTemplate
from extauthz.storage_blocks import LATER_DRIVERS, DiskStorage, Storage
from extauthz.transport.address import Address, AddressError

MAKE_HASH = "`extauthz ctl password-hash`"
Bytes = Annotated[int, Field(ge=1, le=1 << 30)]
Count = Annotated[int, Field(ge=1, le=1 << 20)]


def seconds(value: float) -> datetime.timedelta:
    """Make a duration."""
    return datetime.timedelta(seconds=value)


def _base64(text: object) -> object:
    try:
        base64.b64decode("".join(text.split()) if isinstance(text, str) else b"", validate=True)
    except (binascii.Error, ValueError):
        raise fault("must be base64") from None
    return text


def _url(text: object) -> object:
    if not isinstance(text, str):
        return text
    try:
        parts = urllib.parse.urlsplit(text)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise fault(f"`{text}` is not an http or https URL")
    return text


Url = Annotated[str, BeforeValidator(_url)]


def _repeated(kind: str, path: Path, names: Iterable[str], key: str = "id") -> Iterator[Complaint]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield (*path, index, key), f"{kind} `{name}` is declared twice"
        seen.add(name)


# --- server -----------------------------------------------------------------------------------------------


def _listen_address(text: object) -> object:
    try:
        Address.parse(text if isinstance(text, str) else "")
    except AddressError as error:
        raise fault(str(error)) from None
    return text


def _socket_mode(value: object) -> object:
    """Read a file mode as Cerbos writes it: ``0o766``, in quotes or not."""
    mode = int(value, 8) if isinstance(value, str) and _MODE.fullmatch(value) else value
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777:
        raise fault(f"`{value}` is not a file mode: write it in octal, such as `0o766`")
    return mode


_MODE = re.compile(r"0?o?[0-7]{1,4}", re.ASCII)


ListenAddress = Annotated[str, BeforeValidator(_listen_address)]


class Tls(Block):
    """Certificates of the listeners; the files are read again when they change."""

    cert: NonEmpty
    key: NonEmpty
    ca_cert: str | None = None
    """With a CA, a client must show a certificate that it signed."""


class GrpcAdvanced(Block):
    """Limits of the gRPC port."""

    max_recv_msg_size_bytes: Bytes = 4 * 1024 * 1024
    max_concurrent_streams: Annotated[int, Field(ge=0, lt=1 << 31)] = 1024
    """0: no limit."""
    max_connection_age: Duration = seconds(600)
    connection_timeout: Duration = seconds(60)


class HttpAdvanced(Block):
    """Limits of the HTTP port."""

    read_timeout: Duration = seconds(30)
    read_header_timeout: Duration = seconds(15)
    write_timeout: Duration = seconds(30)
    idle_timeout: Duration = seconds(120)


class Advanced(Block):
    """Limits of the two ports."""

    grpc: GrpcAdvanced = GrpcAdvanced()
    http: HttpAdvanced = HttpAdvanced()


class Cors(Block):
    """Which pages of other origins may use the PDP API from a browser."""

    disabled: bool = False
    allowed_origins: tuple[NonEmpty, ...] = ()
    """An origin may hold one ``*``. None: all."""
    allowed_headers: tuple[NonEmpty, ...] = ()
    max_age: Duration = seconds(0)

    def _complaints(self) -> Iterator[Complaint]:
        for index, origin in enumerate(self.allowed_origins):
            if origin.count("*") > 1:
                yield ("allowedOrigins", index), f"`{origin}` has more than one `*`"


class RequestLimits(Block):
    """How much one request of the PDP API may ask."""

    max_actions_per_resource: Annotated[int, Field(ge=1, le=500)] = 50
    max_resources_per_request: Annotated[int, Field(ge=1, le=500)] = 50


class AdminCredentials(Block):
    """The one user of the admin API."""

    username: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^:\x00-\x1f]+$")] = "cerbos"
    password_hash: str | None = None
    """Base64 of a bcrypt hash; looked at when the API is enabled."""


class AdminApi(Block):
    """Cerbos's admin API: policies and schemas in the store."""

    enabled: bool = False
    admin_credentials: AdminCredentials = AdminCredentials()
    allow_plaintext: bool = False
    """Ours: the password may come over connections without TLS, also from other machines."""
    accept_incomplete: bool = False
    """Ours: policies may be put before others that they need, as Cerbos lets them."""

    def _complaints(self) -> Iterator[Complaint]:
        given = self.admin_credentials.password_hash
        if not self.enabled:
            return
        if given is None:
            told = (
                "the admin API needs a password of its own, as there is no default: set "
                f"`adminCredentials.passwordHash`, which {MAKE_HASH} makes"
            )
            yield ("enabled",), told
            return
        try:
            check_hash(read_hash(given))
        except HashError as error:
            told = f"{error}: {MAKE_HASH} makes one of a password of yours"
            yield ("adminCredentials", "passwordHash"), told

    @property
    def credentials(self) -> Credentials | None:
        """Who may use it; None when it is not enabled."""
        given = self.admin_credentials
        if not self.enabled or given.password_hash is None:
            return None
        return Credentials(given.username, read_hash(given.password_hash))


class Server(Block):
    """Where the service listens, and with how many processes."""

    grpc_listen_addr: ListenAddress = ":3593"
    http_listen_addr: ListenAddress = ":3592"
    tls: Tls | None = None
    advanced: Advanced = Advanced()
    transport: Literal["grpcio", "envoy"] = "grpcio"
    """Ours: what serves the gRPC port."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Ours: processes that share the gRPC port."""
    drain_timeout: Duration = seconds(30)
    """Ours: how long requests under way may take after SIGTERM."""
    admin_api: AdminApi = Field(default=AdminApi(), alias="adminAPI")
    uds_file_mode: Annotated[int, BeforeValidator(_socket_mode)] | None = None
    cors: Cors = Cors()
    request_limits: RequestLimits = RequestLimits()
    api_explorer_enabled: bool = True
    log_request_payloads: bool = False
    metrics_enabled: bool = True
    playground_enabled: Any = None

    def _complaints(self) -> Iterator[Complaint]:
        admin = self.admin_api
        if not admin.enabled or admin.allow_plaintext or self.tls is not None:
            return
        listening = (("grpcListenAddr", self.grpc_listen_addr), ("httpListenAddr", self.http_listen_addr))
        for key, address in listening:
            if not Address.parse(address).is_local:
                told = (
                    f"the password would come without TLS from other machines (`{key}: {address}`): set "
                    "`tls`, listen on the loopback or a unix socket, or set `adminAPI.allowPlaintext: true`"
                )
                yield ("adminAPI", "enabled"), told


# --- engine, schema, audit --------------------------------------------------------------------------------

Evaluation = Literal["safe", "strict", "lenient"]
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class PolicyCache(Block):
    """Ours: where what policies compile to is kept, so that the next start need not compile them again."""

    enabled: bool = True
    directory: str = ""
    """Empty: ``extauthz`` in the user's directory for caches."""
    max_bytes: Annotated[int, Field(ge=1024 * 1024, le=1 << 36)] = CACHE_BYTES

    @property
    def settings(self) -> CacheSettings | None:
        """What the engine is told; ``None`` where nothing is kept."""
        if not self.enabled:
            return None
        if self.directory:
            return CacheSettings(FilePath(self.directory).absolute(), self.max_bytes)
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - does not raise
        return CacheSettings(FilePath(home, "extauthz"), self.max_bytes) if os.path.isabs(home) else None  # noqa: PTH117


class EngineSettings(Block):
    """How policies are evaluated."""

    default_policy_version: Annotated[str, Field(pattern=r"^\w+$")] = "default"
    default_scope: str = ""
    globals: dict[str, Any] = Field(default_factory=dict)
    lenient_scope_search: bool = False
    strict_evaluation: bool | None = None
    evaluation: Evaluation | None = None
    """Ours: what a condition that fails at run time does. See :attr:`mode`."""
    runtime_action: bool = False
    """Ours: policies may read ``runtime.action``, which Cerbos does not know."""
    cache: PolicyCache = PolicyCache()
    cel_error_log_level: Any = None
    policy_loader_timeout: Any = None
    num_workers: Any = None

    @property
    def mode(self) -> Evaluation:
        """``safe`` unless chosen otherwise: a failing ALLOW rule grants nothing, a failing DENY rule denies.

        ``strict`` and ``lenient`` are Cerbos's ``strictEvaluation: true`` and ``false``.
        """
        if self.evaluation is not None:
            return self.evaluation
        return {None: "safe", True: "strict", False: "lenient"}[self.strict_evaluation]  # type: ignore[return-value] # mypy widens the dict's values

    def _complaints(self) -> Iterator[Complaint]:
        for name in self.globals:
            if not _IDENTIFIER.fullmatch(name):
                yield ("globals", name), f"`{name}` is not an identifier: letters, digits and `_` only"
        if self.strict_evaluation is not None and self.evaluation not in {
            None,
            "strict" if self.strict_evaluation else "lenient",
        }:
            yield ("evaluation",), "contradicts `strictEvaluation`: keep one of the two"


class PdpSettings(Block):
    """Ours: whether Cerbos's clients can ask here."""

    enabled: bool | None = None
    """None: when the file has no ``extAuthz``, so that a file of Cerbos's works as it is."""
    evaluation: Evaluation | None = None
    """What a condition that fails at run time does; see :attr:`Config.pdp_evaluation`."""
    explain: bool = False
    """Whether decisions are explained to whoever asks: policies and attributes are shown."""


class Schema(Block):
    """Whether attributes are checked against schemas."""

    enforcement: Literal["none", "warn", "reject"] = "none"
    cache_size: Any = None
    """Without effect: schemas are compiled when policies are loaded, and all of them are kept."""


class Audit(Block):
    """Whether decisions are recorded."""

    enabled: bool = False
    backend: Any = None
    access_logs_enabled: Any = None
    decision_logs_enabled: Any = None
    include_metadata_keys: Any = None
    exclude_metadata_keys: Any = None
    decision_log_filters: Any = None
    file: Any = None
    local: Any = None
    kafka: Any = None
    hub: Any = None

    def _complaints(self) -> Iterator[Complaint]:
        if self.enabled:
            yield ("enabled",), "audit logs are not written yet: remove `audit`, or set `enabled: false`"


# --- auxData ----------------------------------------------------------------------------------------------


class RemoteKeys(Block):
    """A key set behind a URL."""

    url: Url
    refresh_interval: PositiveDuration = seconds(3600)
    cooldown: Duration = seconds(30)
    """Ours: least time between two fetches, however many unknown key ids arrive."""
    timeout: PositiveDuration = seconds(5)
    """Ours: how long one fetch may take."""
    stale_for: Duration = seconds(24 * 3600)
    """Ours: how long keys stay in use when they cannot be fetched again."""
    max_bytes: Bytes = 1024 * 1024
    """Ours: the largest key set that is read."""


class LocalKeys(Block):
    """A key set in a file, or in the configuration itself."""

    file: NonEmpty | None = None
    data: Annotated[NonEmpty, BeforeValidator(_base64)] | None = None
    """Base64."""
    pem: bool = False

    def _complaints(self) -> Iterator[Complaint]:
        if (self.file is None) == (self.data is None):
            yield (), "needs one of `file` and `data`"


class InsecureKeys(Block):
    """What a key may lack."""

    optional_alg: bool = False
    optional_kid: bool = False


class KeySet(Block):
    """Keys that tokens are verified with."""

    id: NonEmpty
    remote: RemoteKeys | None = None
    local: LocalKeys | None = None
    insecure: InsecureKeys = InsecureKeys()

    def _complaints(self) -> Iterator[Complaint]:
        if (self.remote is None) == (self.local is None):
            yield (), f"key set `{self.id}` needs one of `remote` and `local`"


class Jwt(Block):
    """Key sets, and what is common to all tokens."""

    disable_verification: bool = False
    """Signatures of tokens in ``auxData`` of the PDP API are not looked at. Those of Envoy's requests are."""
    acceptable_time_skew: Duration = seconds(0)
    key_sets: tuple[KeySet, ...] = ()
    cache_size: Any = None

    def _complaints(self) -> Iterator[Complaint]:
        yield from _repeated("key set", ("keySets",), [keys.id for keys in self.key_sets])


class AuxData(Block):
    """Where verified facts beside the request come from."""

    jwt: Jwt = Jwt()


# --- what is known while a file is read -------------------------------------------------------------------


@dataclass(slots=True)
class Reading:
    """What the parts of a file may refer to, taken from the text before its parts are checked."""

    document: Document
    key_sets: Mapping[str, Any]
    identities: tuple[str, ...]
    sources: Mapping[str, frozenset[str]]
    """The path parameters that the address of each source needs."""
    parameters: frozenset[str] | None = None
    """The path parameters of the route being read; None when its path could not be read."""


def _reading(info: ValidationInfo) -> Reading:
    return cast("Reading", info.context)


# --- slots ------------------------------------------------------------------------------------------------


def _reader(scope: Scope, want: Want) -> Callable[[object, ValidationInfo], Slot]:
    """Make what reads a slot: compiles it, and checks that the route has the path parameters it uses."""

    def read(value: object, info: ValidationInfo) -> Slot:
        try:
            slot = slots.compile_slot(value, scope, want)
        except slots.SlotFault as error:
            raise fault(str(error)) from None
        parameters = _reading(info).parameters
        for name in sorted(slot.parameters - (slot.parameters if parameters is None else parameters)):
            raise fault(f"the path of this route has no {_parameter(name, parameters or ())}")
        return slot

    return read


def _parameter(name: str, parameters: Iterable[str]) -> str:
    known = sorted(parameters)
    there = f"it has {', '.join(f'`{{{each}}}`' for each in known)}" if known else "it has none"
    return f"parameter `{{{name}}}`{blocks.suggestion(name, known) or f' ({there})'}"


NO_TEXT = slots.compile_slot("", Scope.ROUTE, Want.TEXT)

IdentityName = Annotated[Slot, PlainValidator(_reader(Scope.IDENTITY, Want.NAME))]
IdentityText = Annotated[Slot, PlainValidator(_reader(Scope.IDENTITY, Want.TEXT))]
IdentityTexts = Annotated[Slot, PlainValidator(_reader(Scope.IDENTITY, Want.TEXTS))]
IdentityValue = Annotated[Slot, PlainValidator(_reader(Scope.IDENTITY, Want.VALUE))]
SourceText = Annotated[Slot, PlainValidator(_reader(Scope.SOURCE, Want.TEXT))]
RouteName = Annotated[Slot, PlainValidator(_reader(Scope.ROUTE, Want.NAME))]
RouteText = Annotated[Slot, PlainValidator(_reader(Scope.ROUTE, Want.TEXT))]
ResponseText = Annotated[Slot, PlainValidator(_reader(Scope.RESPONSE, Want.TEXT))]
ResponseParameter = Annotated[Slot, PlainValidator(_reader(Scope.RESPONSE, Want.PARAMETER))]
ResponseTexts = Annotated[Slot, PlainValidator(_reader(Scope.RESPONSE, Want.HEADER))]
ResponseValue = Annotated[Slot, PlainValidator(_reader(Scope.RESPONSE, Want.VALUE))]


# --- header names -----------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 §5.6.2
_FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _header_name(text: object) -> str:
    if not isinstance(text, str):
        raise fault("must be text")
    if text.startswith(":"):
        raise fault(f"`{text}` is a pseudo-header, which Envoy does not let us change")
    if not _TOKEN.fullmatch(text):
        raise fault(f"`{text}` is not a header name (RFC 9110 §5.6.2)")
    return text.lower()


def _settable_name(text: object) -> str:
    name = _header_name(text)
    if name == "host":
        raise fault("`host` cannot be set here: rewrite it in the gateway's route")
    if name in _FRAMING:
        raise fault(f"`{name}` frames the message and belongs to the gateway")
    return name


def _upstream_name(text: object) -> str:
    name = _settable_name(text)
    if name.startswith("x-envoy-"):
        raise fault(f"`{name}` steers the gateway itself and is not set from here")
    return name


def _removable_name(text: object) -> str:
    name = _header_name(text)
    if name == "host":
        raise fault("Envoy does not let us remove `host`")
    return name


HeaderName = Annotated[str, BeforeValidator(_header_name)]
ClientHeaderName = Annotated[str, BeforeValidator(_settable_name)]
UpstreamHeaderName = Annotated[str, BeforeValidator(_upstream_name)]
RemovableHeaderName = Annotated[str, BeforeValidator(_removable_name)]


# --- extAuthz: identity -----------------------------------------------------------------------------------


def _algorithm(text: object) -> object:
    if isinstance(text, str) and text.lower() == "none":
        raise fault("`none` means a token without a signature: anybody could write one")
    if isinstance(text, str) and text not in VERIFIERS:
        raise fault(unknown("algorithm", text, VERIFIERS))
    return text


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


Algorithm = Annotated[str, BeforeValidator(_algorithm)]
OneOrMore = Annotated[tuple[NonEmpty, ...], BeforeValidator(_one_or_more), AfterValidator(not_empty)]


class TokenFrom(Block):
    """Where a token may be: in a header, after a scheme, or in a cookie."""

    header: HeaderName | None = None
    cookie: NonEmpty | None = None
    scheme: str | None = None
    """What stands before the token in a header; empty: the value is the token. None: see :attr:`prefix`."""

    @property
    def prefix(self) -> str:
        """What stands before the token: by default ``Bearer`` in ``authorization``, nothing anywhere else."""
        if self.scheme is not None:
            return self.scheme
        return "Bearer" if self.header == "authorization" else ""

    def _complaints(self) -> Iterator[Complaint]:
        if (self.header is None) == (self.cookie is None):
            yield (), "needs one of `header` and `cookie`"
        if self.cookie is not None and self.scheme is not None:
            yield ("scheme",), "a cookie has no scheme"
        if self.scheme and not _TOKEN.fullmatch(self.scheme):
            yield ("scheme",), f"`{self.scheme}` is not a scheme (RFC 9110 §11.1)"


def _known_key_set(name: str, info: ValidationInfo) -> str:
    known = _reading(info).key_sets
    if name not in known:
        raise fault(unknown("key set", name, known))
    return name


class JwtIdentity(Block):
    """How a token is found and what must be true of it."""

    key_set_id: Annotated[str, Field(alias="keySetID"), BeforeValidator(_known_key_set)]
    issuer: OneOrMore
    audiences: OneOrMore
    algorithms: Annotated[tuple[Algorithm, ...], AfterValidator(not_empty)]
    sources: Annotated[tuple[TokenFrom, ...], AfterValidator(not_empty)] = Field(
        default=(TokenFrom(header="authorization"),), alias="from"
    )
    leeway: Duration | None = None
    """None: ``auxData.jwt.acceptableTimeSkew``; see :meth:`Config.leeway`."""
    max_token_bytes: Annotated[int, Field(ge=64, le=1 << 20)] = 8192
    required_claims: tuple[NonEmpty, ...] = ("exp",)

    @model_validator(mode="after")
    def _check_keys(self, info: ValidationInfo) -> "JwtIdentity":
        raise_all(self._key_complaints(_reading(info).key_sets.get(self.key_set_id)))
        return self

    def _key_complaints(self, key_set: object) -> Iterator[Complaint]:
        """Make sure that a public key never serves as the secret of an HMAC (RFC 8725 §3.1)."""
        secret = [name for name in self.algorithms if name in HMAC_BITS]
        if not secret:
            return
        if len(secret) != len(self.algorithms):
            yield ("algorithms",), f"`{secret[0]}` needs a secret, the others public keys: do not mix them"
        local = key_set.get("local") if isinstance(key_set, dict) else None
        if not isinstance(local, dict) or local.get("pem"):
            yield (
                ("algorithms",),
                f"`{secret[0]}` needs a secret, and the keys of `{self.key_set_id}` are public",
            )


class PrincipalSlots(Block):
    """How a principal is made of the claims."""

    id: IdentityName
    roles: IdentityTexts
    attr: dict[str, IdentityValue] = Field(default_factory=dict)
    policy_version: IdentityText = NO_TEXT
    scope: IdentityText = NO_TEXT


class Identity(Block):
    """One way of knowing who asks."""

    id: NonEmpty | None = None
    jwt: JwtIdentity
    principal: PrincipalSlots

    @property
    def name(self) -> str:
        """What routes call it: its id, else that of its key set."""
        return self.jwt.key_set_id if self.id is None else self.id


class Anonymous(Block):
    """Who asks where nobody has to say who they are."""

    id: NonEmpty = "anonymous"
    roles: tuple[NonEmpty, ...] = ("anonymous",)


# --- extAuthz: sources ------------------------------------------------------------------------------------


def _url_template(value: object) -> UrlTemplate:
    if not isinstance(value, str):
        raise fault("must be text")
    try:
        return UrlTemplate(value)
    except ValueError as error:
        raise fault(f"`{value}`: {error}") from None


class SourceCache(Block):
    """How long, and how many, records are remembered."""

    ttl: PositiveDuration = seconds(5)
    max: Count = 10_000


class HttpSource(Block):
    """A look-up of one record over HTTP."""

    url: Annotated[UrlTemplate, PlainValidator(_url_template)]
    method: Literal["GET"] = "GET"
    headers: dict[UpstreamHeaderName, SourceText] = Field(default_factory=dict)
    timeout: PositiveDuration = seconds(0.2)
    cache: SourceCache | None = None
    max_bytes: Bytes = 64 * 1024
    not_found: Literal["deny", "empty"] = "deny"
    """What a 404 of the source means: ``deny`` the request with 404, or go on with an ``empty`` record."""


class Source(Block):
    """A place to look attributes up."""

    http: HttpSource

    @property
    def parameters(self) -> frozenset[str]:
        """The path parameters it needs."""
        return self.http.url.parameters.union(*(slot.parameters for slot in self.http.headers.values()))


# --- extAuthz: routes -------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)


def _path_template(value: object) -> PathTemplate:
    try:
        return PathTemplate.parse(value)
    except ValueError as error:
        raise fault(str(error)) from None


def _host_pattern(value: object) -> HostPattern:
    try:
        return HostPattern.parse(value)
    except ValueError as error:
        raise fault(str(error)) from None


def _method(value: object) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise fault(f"`{value}` is not a method (RFC 9110 §9.1)")
    if value != value.upper():
        raise fault(f"methods are case-sensitive: write `{value.upper()}`")
    return value


Method = Annotated[str, BeforeValidator(_method)]


class RouteMatch(Block):
    """What a route is for: its path, and if need be hosts, methods and headers."""

    path: Annotated[PathTemplate, PlainValidator(_path_template)]
    hosts: Annotated[
        tuple[Annotated[HostPattern, PlainValidator(_host_pattern)], ...], BeforeValidator(_one_or_more)
    ] = ()
    methods: Annotated[tuple[Method, ...], BeforeValidator(_one_or_more)] = ()
    headers: dict[HeaderName, str | Literal[True]] = Field(default_factory=dict)
    """Each must have that value, or with ``true`` be there at all."""


_RELAXATIONS: Mapping[tuple[str, str], frozenset[str]] = {
    ("backslash", "keep"): frozenset({"path.backslash"}),
    ("control_characters", "keep"): frozenset({"path.control"}),
    ("dot_segments", "resolve"): frozenset({"path.dot_segment"}),
    ("double_encoding", "keep"): frozenset({"path.double_encoding"}),
    ("empty_segments", "merge"): frozenset({"path.empty_segment"}),
    ("encoded_slash", "keep"): frozenset({"path.encoded_slash"}),
    ("fragment", "strip"): frozenset({"path.fragment"}),
    ("path_params", "strip"): frozenset({"path.parameters"}),
    ("encoded_path_params", "keep"): frozenset({"path.encoded_parameters"}),
}
"""What each choice in ``normalize`` accepts, by the codes of :data:`extauthz.request.PATH_FAULTS`."""


class Normalize(Block):
    """Spellings of a path that a route accepts although they are not canonical, and what they are read as."""

    backslash: Literal["reject", "keep"] = "reject"
    control_characters: Literal["reject", "keep"] = "reject"
    dot_segments: Literal["reject", "resolve"] = "reject"
    double_encoding: Literal["reject", "keep"] = "reject"
    empty_segments: Literal["reject", "merge"] = "reject"
    encoded_path_params: Literal["reject", "keep"] = "reject"
    encoded_slash: Literal["reject", "keep"] = "reject"
    fragment: Literal["reject", "strip"] = "reject"
    path_params: Literal["reject", "strip"] = "reject"
    trailing_slash: Literal["exact", "ignore"] = "exact"

    @property
    def relaxed(self) -> frozenset[str]:
        """The path faults that are accepted."""
        chosen = (
            _RELAXATIONS.get((name, getattr(self, name)), frozenset()) for name in type(self).model_fields
        )
        return frozenset().union(*chosen)


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of a resource: the records of *sources*, in order, then each of *slots* over them."""

    sources: tuple[str, ...] = ()
    slots: Mapping[str, Slot] = field(default_factory=dict)


_read_route_value = _reader(Scope.ROUTE, Want.VALUE)


def _attributes(value: object, info: ValidationInfo) -> Attributes:
    """Read ``attr``, where ``source`` names sources, unless its value is a slot: then it is an attribute."""
    if not isinstance(value, dict):
        raise fault("must be a mapping")
    complaints: list[Complaint] = []
    found: dict[str, Slot] = {}
    sources: tuple[str, ...] = ()
    for name, entry in value.items():
        try:
            if name == "source" and not isinstance(entry, dict):
                sources = _source_names(entry, _reading(info))
            else:
                found[name] = _read_route_value(entry, info)
        except PydanticCustomError as error:
            complaints.append(((name,), error.message()))
    raise_all(complaints)
    return Attributes(sources, MappingProxyType(found))


def _source_names(value: object, reading: Reading) -> tuple[str, ...]:
    names = _one_or_more(value)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise fault("must be the name of a source, or a list of names")
    mistakes = [mistake for name in names if (mistake := _source_mistake(name, reading))]
    if mistakes:
        raise fault("; ".join(mistakes))
    return tuple(names)


def _source_mistake(name: str, reading: Reading) -> str:
    if name not in reading.sources:
        return unknown("source", name, reading.sources)
    needed, there = reading.sources[name], reading.parameters
    missing = [] if there is None else sorted(needed - there)
    return f"the source `{name}` needs {_parameter(missing[0], there or ())}" if missing else ""


class ResourceSlots(Block):
    """What is asked for, made of the request."""

    kind: RouteName
    id: RouteName
    attr: Annotated[Attributes, PlainValidator(_attributes)] = Attributes()
    policy_version: RouteText = NO_TEXT
    scope: RouteText = NO_TEXT

    def all_slots(self) -> Iterator[tuple[Path, Slot]]:
        """Every slot, and where it is in the block."""
        yield from ((("kind",), self.kind), (("id",), self.id))
        yield from ((("policyVersion",), self.policy_version), (("scope",), self.scope))
        yield from ((("attr", name), slot) for name, slot in self.attr.slots.items())


_read_action = _reader(Scope.ROUTE, Want.NAME)
ANY_METHOD = "*"


def _actions(value: object, info: ValidationInfo) -> Mapping[str, Slot]:
    """Read ``actions``: methods (``GET``, ``GET|HEAD``, ``*``) and what each one does."""
    if not isinstance(value, dict) or not value:
        raise fault("must be a mapping of methods to actions, such as `{GET: read}`")
    complaints: list[Complaint] = []
    found: dict[str, Slot] = {}
    for key, entry in value.items():
        try:
            action = _read_action(entry, info)
            for method in key.split("|"):
                if method in found:
                    raise fault(f"`{method}` has two actions")
                found[method if method == ANY_METHOD else _method(method)] = action
        except PydanticCustomError as error:
            complaints.append(((key,), error.message()))
    raise_all(complaints)
    return MappingProxyType(found)


class Body(Block):
    """How a route reads the body, when its slots do."""

    max_bytes: Bytes | None = None
    """None: ``limits.maxBodyBytes``."""


class Query(Block):
    """Changes to the request's query."""

    set_: dict[NonEmpty, ResponseParameter] = Field(default_factory=dict, alias="set")
    remove: tuple[NonEmpty, ...] = ()


class AllowBlock(Block):
    """What is changed about a request that is let through, and about the response to it."""

    headers: dict[UpstreamHeaderName, ResponseTexts] = Field(default_factory=dict)
    remove_headers: tuple[RemovableHeaderName, ...] = ()
    response_headers: dict[ClientHeaderName, ResponseTexts] = Field(default_factory=dict)
    query: Query = Query()


ENVOY_STATUS: frozenset[int] = frozenset().union(
    range(300, 306), (307, 308),
    range(400, 418), range(421, 425), (426, 428, 429, 431),
    range(500, 509), (510, 511),
)  # fmt: skip
"""The statuses a denial may have: Envoy refuses numbers that its enum does not name."""


def _status(value: object) -> object:
    if isinstance(value, int) and value not in ENVOY_STATUS:
        raise fault(f"`{value}` is not a status that Envoy sends in a denial (300 to 511, registered ones)")
    return value


class Problem(Block):
    """Members of the problem document (RFC 9457) that differ from the usual ones."""

    type: ResponseText | None = None
    title: ResponseText | None = None
    detail: ResponseText | None = None
    instance: ResponseText | None = None
    members: dict[NonEmpty, ResponseValue] = Field(default_factory=dict)

    def _complaints(self) -> Iterator[Complaint]:
        for name in self.members:
            if name in {"type", "title", "status", "detail", "instance"}:
                yield ("members", name), f"`{name}` is a member of its own: write it beside `members`"


class DenyBlock(Block):
    """What a client is told when a policy turns it away."""

    status: Annotated[int, BeforeValidator(_status)] = 403
    headers: dict[ClientHeaderName, ResponseTexts] = Field(default_factory=dict)
    body: ResponseText | None = None
    problem: Problem | None = None

    def _complaints(self) -> Iterator[Complaint]:
        if self.body is not None and self.problem is not None:
            yield ("problem",), "the body is either `body` or a problem document: keep one of the two"


_SHORTHAND = re.compile(r"(?:(\S+) +)?(/\S*)")
ANONYMOUS = "anonymous"


def _identity_names(value: object, info: ValidationInfo) -> object:
    """``anonymous``, or the names of identities."""
    if value is None:
        return value
    known = _reading(info).identities
    names = _one_or_more(value)
    listed = names if isinstance(names, list) else []
    for name in listed:
        if name == ANONYMOUS and len(listed) > 1:
            raise fault("`anonymous` stands alone; to let a token be absent, write `anonymous: allow`")
        if isinstance(name, str) and name not in {*known, ANONYMOUS}:
            raise fault(unknown("identity", name, {*known, ANONYMOUS}))
    return names


class Route(Block):
    """What is asked of whom, when a request matches."""

    match: RouteMatch
    id: NonEmpty | None = None
    decision: Literal["policy", "allow", "deny"] = "policy"
    """Who decides: the policies, or the route itself."""
    identity: Annotated[tuple[str, ...] | None, BeforeValidator(_identity_names)] = None
    """Names of the identities that are accepted, ``("anonymous",)``, or None for all there are."""
    anonymous: Literal["allow", "deny"] = "deny"
    """Whether a request without any credentials goes on as the anonymous principal."""
    actions: Annotated[Mapping[str, Slot], PlainValidator(_actions)] | None = None
    action: RouteName | None = None
    resource: ResourceSlots | None = None
    body: Body = Body()
    normalize: Normalize = Normalize()
    allow: AllowBlock = AllowBlock()
    deny: DenyBlock | None = None
    """None: ``responses.deny``."""

    @model_validator(mode="before")
    @classmethod
    def _open(cls, value: Any, info: ValidationInfo) -> Any:
        """Write the short form (``GET /healthz: allow``) out, and note the path parameters for the slots."""
        value = _written_out(value)
        match = value.get("match") if isinstance(value, dict) else None
        path = match.get("path") if isinstance(match, dict) else None
        try:
            _reading(info).parameters = PathTemplate.parse(path).parameters
        except ValueError:
            _reading(info).parameters = None
        return value

    @property
    def name(self) -> str:
        """Its id, else what it matches."""
        return str(self.pattern) if self.id is None else self.id

    @cached_property
    def pattern(self) -> Pattern:
        """What it matches."""
        return Pattern(
            hosts=self.match.hosts,
            path=self.match.path,
            methods=self._methods(),
            headers=tuple(
                sorted((name, None if value is True else value) for name, value in self.match.headers.items())
            ),
            trailing_slash=self.normalize.trailing_slash == "ignore",
        )

    @cached_property
    def relaxed(self) -> frozenset[str]:
        """The path faults that it accepts."""
        return self.normalize.relaxed

    @property
    def is_anonymous(self) -> bool:
        """Whether tokens are not looked at: everybody is the anonymous principal."""
        return self.decision != "policy" or self.identity == (ANONYMOUS,)

    def action_of(self, method: str) -> Slot:
        """Give the action that *method*, which matched, stands for. Only for routes that policies decide."""
        if self.actions is None:
            return cast("Slot", self.action)
        return self.actions[method] if method in self.actions else self.actions[ANY_METHOD]

    def _complaints(self) -> Iterator[Complaint]:
        yield from self._decision_complaints()
        yield from self._claim_complaints()
        if self.actions is not None and self.match.methods:
            yield ("match", "methods"), "the keys of `actions` are the methods already: remove one of the two"
        if self.identity == (ANONYMOUS,) and self.anonymous == "allow":
            yield ("anonymous",), "`identity: anonymous` says it already: remove one of the two"
        if reason := self.match.path.unreachable(self.relaxed):
            yield ("match", "path"), f"no request can match: {reason}"

    def _methods(self) -> frozenset[str] | None:
        methods = frozenset(self.match.methods if self.actions is None else self.actions)
        return None if not methods or ANY_METHOD in methods else methods

    def _decision_complaints(self) -> Iterator[Complaint]:
        if self.decision == "policy":
            if self.resource is None:
                yield (), "needs `resource`: policies decide about one (or write `decision: allow`)"
            if (self.actions is None) == (self.action is None):
                yield (), "needs one of `actions` (by method) and `action`"
            return
        for key in ("resource", "actions", "action", "identity"):
            if getattr(self, key) is not None:
                yield (key,), f"has no effect with `decision: {self.decision}`: no policy is asked"

    def _claim_complaints(self) -> Iterator[Complaint]:
        if not self.is_anonymous and self.anonymous == "deny":
            return
        for path, slot in self._slots():
            if slot.needs_claims:
                yield (
                    path,
                    "a request without a token may come here, and has no claims: give a `default`",
                )

    def _slots(self) -> Iterator[tuple[Path, Slot]]:
        if self.action is not None:
            yield ("action",), self.action
        for method, slot in (self.actions or {}).items():
            yield ("actions", method), slot
        if self.resource is not None:
            yield from ((("resource", *path), slot) for path, slot in self.resource.all_slots())


def _written_out(value: Any) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((key, decision),) = value.items()
    short = _SHORTHAND.fullmatch(key)
    if short is None:
        return value
    if decision not in {"allow", "deny"}:
        raise fault(
            f"the short form `{key}` takes `allow` or `deny`; for anything else write `match: {{path: ...}}`"
        )
    methods, path = short.groups()
    match = {"path": path} if methods is None else {"path": path, "methods": methods.split("|")}
    return {"match": match, "decision": decision}


def _each_route(
    value: Any, handler: Callable[[Any], tuple[Route, ...]], info: ValidationInfo
) -> tuple[Route, ...]:
    """Read the routes one by one: clashes are found among the right ones while others are still wrong."""
    if not isinstance(value, list):
        return handler(value)
    routes: dict[int, Route] = {}
    complaints: list[InitErrorDetails] = []
    for index, item in enumerate(value):
        try:
            (routes[index],) = handler([item])
        except ValidationError as error:
            complaints.extend(blocks.moved(error, (index,)))
    _reading(info).parameters = None
    positions = list(routes)
    for clash in clashes([route.pattern for route in routes.values()]):
        first, second = positions[clash.first], positions[clash.second]
        line, column = _reading(info).document.place(("extAuthz", "routes", first))
        message = f"{clash.reason} as the route in line {line}, column {column}"
        complaints.append(blocks.detail((second, "match"), message))
    if complaints:
        raise ValidationError.from_exception_data("routes", complaints)
    return tuple(routes.values())


class Responses(Block):
    """What denials look like where a route does not say otherwise."""

    problem_type_prefix: str = ""
    """What stands before the reason in a problem's ``type``; empty: ``about:blank``."""
    retry_after: PositiveDuration = seconds(1)
    """``Retry-After`` of failures, in whole seconds."""
    unknown_route: Literal[404, 403] = 404
    realm: Annotated[str, Field(pattern=r"^[ -~]*$")] = "extauthz"
    """What ``WWW-Authenticate`` calls the place that credentials are for."""
    deny: DenyBlock = DenyBlock()


class LimitsBlock(Block):
    """Bounds of what a client can send."""

    max_path_length: Annotated[int, Field(ge=64, le=1 << 20)] = LIMITS.path
    max_headers: Annotated[int, Field(ge=1, le=100_000)] = LIMITS.headers
    max_header_bytes: Bytes = LIMITS.header_bytes
    max_body_bytes: Bytes = 64 * 1024
    """The largest body that is parsed for slots."""

    @property
    def request(self) -> Limits:
        """Give them as the decoder takes them."""
        return Limits(path=self.max_path_length, headers=self.max_headers, header_bytes=self.max_header_bytes)


def _source_name(value: object) -> object:
    if isinstance(value, str) and not _NAME.fullmatch(value):
        raise fault(f"`{value}` is not a name: letters, digits, `_`, `-` and `.` only")
    return value


def _default(value: object) -> object:
    if value != "deny":
        raise fault("can only be `deny`: what no route names is never allowed")
    return value


class ExtAuthz(Block):
    """Our own block: who asks, what for, and what the answers look like."""

    identity: tuple[Identity, ...] = ()
    anonymous: Anonymous = Anonymous()
    owned_headers: tuple[UpstreamHeaderName, ...] = ()
    sources: dict[Annotated[str, BeforeValidator(_source_name)], Source] = Field(default_factory=dict)
    routes: Annotated[tuple[Route, ...], WrapValidator(_each_route)] = ()
    default: Annotated[Literal["deny"], BeforeValidator(_default)] = "deny"
    responses: Responses = Responses()
    limits: LimitsBlock = LimitsBlock()

    @cached_property
    def owned(self) -> frozenset[str]:
        """Every header that only we may set upstream: those listed, and those that any route sets."""
        return frozenset(self.owned_headers).union(*(route.allow.headers for route in self.routes))

    def identities(self, route: Route) -> tuple[Identity, ...]:
        """Give the identities that *route* accepts, in the order of the file; none when it is anonymous."""
        if route.is_anonymous:
            return ()
        return tuple(each for each in self.identity if route.identity is None or each.name in route.identity)

    def _complaints(self) -> Iterator[Complaint]:
        yield from _repeated("identity", ("identity",), [each.name for each in self.identity])
        named = {index: route.id for index, route in enumerate(self.routes) if route.id is not None}
        for index, name in named.items():
            first = next(other for other, known in named.items() if known == name)
            if first != index:
                yield ("routes", index, "id"), f"route `{name}` is declared twice"
        for index, route in enumerate(self.routes):
            if not route.is_anonymous and route.anonymous == "deny" and not self.identity:
                yield (
                    ("routes", index),
                    "nobody could pass: there is no `identity`, and the route is not anonymous",
                )


# --- the file ---------------------------------------------------------------------------------------------


class Config(Block):
    """A whole configuration file."""

    server: Server = Server()
    storage: Storage = Storage(driver="disk", disk=DiskStorage.model_validate({"watchForChanges": True}))
    engine: EngineSettings = EngineSettings()
    attribute_schemas: Schema = Field(default=Schema(), alias="schema")
    aux_data: AuxData = AuxData()
    audit: Audit = Audit()
    pdp: PdpSettings = PdpSettings()
    ext_authz: ExtAuthz = ExtAuthz()
    compile: Any = None
    hub: Any = None
    telemetry: Any = None
    tracing: Any = None

    @property
    def serves_pdp(self) -> bool:
        """Whether Cerbos's clients can ask here."""
        if self.pdp.enabled is None:
            return "ext_authz" not in self.model_fields_set
        return self.pdp.enabled

    @property
    def pdp_evaluation(self) -> Evaluation:
        """Cerbos's own way, ``lenient``, unless something else is chosen for the API or for the engine."""
        if self.pdp.evaluation is not None:
            return self.pdp.evaluation
        chosen = self.engine.evaluation is not None or self.engine.strict_evaluation is not None
        return self.engine.mode if chosen else "lenient"

    def key_set(self, identity: Identity) -> KeySet:
        """Give the key set that the tokens of *identity* are verified with."""
        return next(keys for keys in self.aux_data.jwt.key_sets if keys.id == identity.jwt.key_set_id)

    def leeway(self, identity: Identity) -> datetime.timedelta:
        """How far the clock of whoever issued a token may be off."""
        own = identity.jwt.leeway
        return self.aux_data.jwt.acceptable_time_skew if own is None else own


NO_EFFECT: Mapping[Path, str] = {
    ("server", "playgroundEnabled"): "there is no playground",
    ("server", "advanced", "http", "readHeaderTimeout"): "`idleTimeout` ends such connections",
    ("server", "advanced", "http", "writeTimeout"): "answers are small, and never wait for a slow reader",
    ("engine", "celErrorLogLevel"): "conditions that fail are part of the decision",
    ("engine", "policyLoaderTimeout"): "loading policies has no time limit",
    ("engine", "numWorkers"): "see `server.workers`",
    ("schema", "cacheSize"): "every schema is compiled when policies are loaded, and kept",
    ("auxData", "jwt", "cacheSize"): "Cerbos has retired it as well",
    ("audit", "backend"): "audit logs are not written yet",
    ("compile",): "Cerbos has retired it as well",
    ("hub",): "there is no Cerbos Hub here",
    ("telemetry",): "nothing is ever reported home",
    ("tracing",): "Cerbos has retired it as well",
    **{("storage", driver): "the driver is not built yet" for driver in LATER_DRIVERS},
}
"""Keys of Cerbos that are accepted so that a file of theirs can be used, and change nothing."""


class ConfigError(Exception):
    """The file cannot be used; *faults* are in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used."""

    config: Config
    warnings: tuple[Fault, ...] = ()
    """What is probably not meant so, or has no effect."""


def load(file: str | FilePath, environment: Mapping[str, str] = os.environ) -> Loaded:
    """Read the configuration file *file*.

    Raises:
        ConfigError: with every fault that was found.

    """
    try:
        text = FilePath(file).read_bytes()
    except OSError as error:
        raise ConfigError([Fault(str(file), 0, 0, f"cannot be read: {error.strerror}")]) from None
    return parse(text, str(file), environment)


def parse(text: str | bytes, file: str, environment: Mapping[str, str]) -> Loaded:
    """Read the text of a configuration file; *file* is what faults call it."""
    try:
        document = parse_document(text, file)
        if document.value is None:
            document = parse_document("{}", file)
    except DocumentError as error:
        raise ConfigError(error.faults) from None
    value, missing = blocks.fill(document.value, environment)
    faults = [document.fault(message, path) for path, message in missing]
    try:
        config = Config.model_validate(value, context=_names(value, document))
    except ValidationError as error:
        faults += blocks.faults_of(error, Config, document, unset=[path for path, _ in missing])
    if faults:
        raise ConfigError(faults)
    return Loaded(config, tuple(sorted(_warnings(config, value, document))))


def _names(value: Any, document: Document) -> Reading:
    """Collect the names that are declared, from a text that may be wrong in any way."""
    key_sets = _items(_at(value, "auxData", "jwt", "keySets"))
    sources = _at(value, "extAuthz", "sources")
    identities = _items(_at(value, "extAuthz", "identity"))
    return Reading(
        document,
        {name: keys for keys in key_sets if isinstance(name := _at(keys, "id"), str)},
        tuple(
            name
            for each in identities
            if isinstance(name := _at(each, "id") or _at(each, "jwt", "keySetID"), str)
        ),
        {str(name): _source_parameters(source) for name, source in sources.items()}
        if isinstance(sources, dict)
        else {},
    )


def _at(value: Any, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _source_parameters(source: Any) -> frozenset[str]:
    """Find the path parameters that a source needs; none of what is faulty, which is reported elsewhere."""
    headers = _at(source, "http", "headers")
    found = _parameters_of(UrlTemplate, _at(source, "http", "url"))
    for value in headers.values() if isinstance(headers, dict) else ():
        found |= _parameters_of(_source_slot, value)
    return found


def _source_slot(value: object) -> Slot:
    return slots.compile_slot(value, Scope.SOURCE, Want.TEXT)


def _parameters_of(compile_it: Callable[[Any], UrlTemplate | Slot], value: object) -> frozenset[str]:
    try:
        return compile_it(value).parameters
    except (ValueError, TypeError):
        return frozenset()


def _warnings(config: Config, value: Any, document: Document) -> Iterator[Fault]:
    for path, reason in NO_EFFECT.items():
        if _at(value, *map(str, path)) is not None:
            yield document.fault(f"`{path[-1]}` has no effect here: {reason}", path, key=True)
    if not config.ext_authz.routes and ("ext_authz" in config.model_fields_set or not config.serves_pdp):
        yield document.fault("there are no routes: every request will be denied", ("extAuthz", "routes"))
    yield from _pdp_warnings(config, value, document)
    yield from _admin_warnings(config, document)
    for index, keys in enumerate(config.aux_data.jwt.key_sets):
        if keys.remote is not None and not _is_confidential(keys.remote.url):
            path = ("auxData", "jwt", "keySets", index, "remote", "url")
            yield document.fault("keys are fetched without TLS: whoever is on the way can replace them", path)


PDP_ONLY: tuple[Path, ...] = (
    ("server", "cors"),
    ("server", "requestLimits"),
    ("server", "apiExplorerEnabled"),
    ("server", "logRequestPayloads"),
    ("server", "advanced", "http", "readTimeout"),
    ("auxData", "jwt", "disableVerification"),
    ("pdp", "explain"),
)
"""Keys that only the PDP API heeds."""


def _pdp_warnings(config: Config, value: Any, document: Document) -> Iterator[Fault]:
    if config.serves_pdp:
        if config.aux_data.jwt.disable_verification:
            told = "signatures of tokens in `auxData` are not verified: anyone can make one"
            yield document.fault(told, ("auxData", "jwt", "disableVerification"))
        return
    for path in PDP_ONLY:
        if _at(value, *map(str, path)) is not None:
            reason = "the PDP API is not served (`pdp: {enabled: true}` serves it)"
            yield document.fault(f"`{path[-1]}` has no effect here: {reason}", path, key=True)


def _admin_warnings(config: Config, document: Document) -> Iterator[Fault]:
    admin = config.server.admin_api
    if not admin.enabled:
        return
    path = ("server", "adminAPI")
    if admin.allow_plaintext and config.server.tls is None:
        told = "the password of the admin API comes without TLS: whoever is on the way can read it"
        yield document.fault(told, (*path, "allowPlaintext"))
    credentials = admin.credentials
    if credentials is not None and credentials.cost < LEAST_COST:
        cost = credentials.cost
        told = f"whoever gets this hash soon has the password: its cost is {cost}, {LEAST_COST} is usual"
        yield document.fault(told, (*path, "adminCredentials", "passwordHash"))


def _is_confidential(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or parts.hostname in {"localhost", "127.0.0.1", "::1"}
