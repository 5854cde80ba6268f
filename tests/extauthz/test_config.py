"""A configuration file is right as a whole, or refused with everything that is wrong with it."""

from __future__ import annotations

import base64
import datetime
import re
import typing
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml
from envoy_data_plane.envoy.type.v3 import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from extauthz import request, routes
from extauthz.admin.credentials import made_hash
from extauthz.blocks import Block, fill, parse_duration
from extauthz.config import (
    ENVOY_STATUS,
    NO_EFFECT,
    PDP_ONLY,
    Config,
    ConfigError,
    Loaded,
    Normalize,
    TokenFrom,
    load,
    parse,
)
from extauthz.slots import Slot
from extauthz.storage_blocks import LATER_DRIVERS

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
BROKEN = sorted((TESTS / "broken" / "config").glob("*.yaml"))

WHOLE = """
server: {grpcListenAddr: ":9191", httpListenAddr: "127.0.0.1:9192", workers: 2, drainTimeout: 1m30s,
         tls: {cert: tls.crt, key: tls.key, caCert: ca.crt}, udsFileMode: 0o660,
         advanced: {grpc: {maxConnectionAge: 5m}}}
storage: {driver: disk, disk: {directory: "${POLICIES:/policies}", watchForChanges: true}}
engine: {defaultPolicyVersion: v1, defaultScope: acme, globals: {environment: test}, lenientScopeSearch: true}
auxData:
  jwt:
    acceptableTimeSkew: 2s
    keySets:
      - id: idp
        remote: {url: "https://id.example.com/jwks.json", refreshInterval: 10m}
      - id: partner
        local: {file: partner.json}
        insecure: {optionalKid: true}
extAuthz:
  identity:
    - jwt: {keySetID: idp, issuer: [https://a/, https://b/], audiences: api, algorithms: [RS256, ES256],
            from: [{header: Authorization}, {header: x-token, scheme: ""}, {cookie: sid}]}
      principal:
        id: {claim: sub}
        roles: {claim: realm_access.roles, default: []}
        attr: {region: {claim: region}}
    - id: friends
      jwt: {keySetID: partner, issuer: p, audiences: [api], algorithms: [ES256], leeway: 5s}
      principal: {id: {expr: '"partner:" + string(claims.sub)'}, roles: [partner]}
  anonymous: {id: nobody, roles: [guest]}
  ownedHeaders: [X-Authz-Principal]
  sources:
    expense: {http: {url: "http://expenses/api/{id}", timeout: 200ms, cache: {ttl: 5s, max: 10}}}
  routes:
    - GET|HEAD /healthz: allow
    - /internal: deny
    - match: {path: "/api/expenses/{id}", hosts: api.example.com, headers: {x-version: "2", x-beta: true}}
      id: expenses
      identity: friends
      actions: {GET|HEAD: read, DELETE: delete, "*": access}
      resource:
        {kind: expense, id: "{id}", scope: acme, attr: {source: expense, amount: {expr: "body.?amount"}}}
      normalize: {encodedSlash: keep, trailingSlash: ignore}
      body: {maxBytes: 1000}
      allow:
        headers: {X-Authz-Scope: {expr: decision.scope}}
        removeHeaders: [Authorization]
        responseHeaders: {x-decision: {expr: decision.id}}
        query: {set: {region: {expr: "outputs.?region"}}, remove: [debug]}
      deny: {status: 404, headers: {x-reason: {expr: reason}}, problem: {title: No, members: {ask: "{id}"}}}
    - match: {path: /api/public}
      anonymous: allow
      action: {expr: request.method.lowerAscii()}
      resource: {kind: public, id: {query: id, default: all}}
  responses: {problemTypePrefix: "https://errors.example.com/", retryAfter: 2s, unknownRoute: 403, realm: api}
  limits: {maxBodyBytes: 2000, maxHeaders: 50}
  default: deny
"""


def read(text: str, **environment: str) -> Loaded:
    return parse(text, "test.yaml", environment)


def faults(text: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        read(text, **environment)
    return [str(fault) for fault in refused.value.faults]


# --- broken files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_one_fault_is_told_with_its_place(file: Path) -> None:
    """Each broken file gives exactly the fault that its first line names, where it names it."""
    expected = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    with pytest.raises(ConfigError) as refused:
        load(file, {})
    assert [str(fault) for fault in refused.value.faults] == [f"{file}:{expected}"]


def test_there_are_broken_files() -> None:
    """The folder of broken files is found."""
    assert len(BROKEN) > 100


def test_all_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    """Faults of the text, of shapes, of slots, of references and between routes come together."""
    assert faults(
        """\
server: {workers: 0, htpListenAddr: ":1", grpcListenAddr: "${UNSET}"}
extAuthz:
  ownedHeaders: ["a b"]
  sources: {s: {http: {url: "http://h/{id}", timeout: 5}}}
  routes:
    - GET /a: allow
    - match: {path: /b}
      action: {expr: "1 + x"}
      resource: {kind: k, id: "{id}", attr: {source: [s, t]}}
    - GET /a: deny
  default: allow
"""
    ) == [
        "test.yaml:1:19: must be at least 1",
        "test.yaml:1:22: unknown key `htpListenAddr` (did you mean `httpListenAddr`?)",
        "test.yaml:1:59: environment variable `UNSET` is not set: set it, or write `${UNSET:default}`",
        "test.yaml:3:18: `a b` is not a header name (RFC 9110 §5.6.2)",
        "test.yaml:4:55: `5` is not a duration: write a number and a unit, such as `10s`, `1m30s` or `200ms`",
        "test.yaml:8:15: in the expression `1 + x`: 1:5: undeclared reference to 'x' (in container '')",
        "test.yaml:9:31: the path of this route has no parameter `{id}` (it has none)",
        (
            "test.yaml:9:54: the source `s` needs parameter `{id}` (it has none); "
            "unknown source `t` (there is `s`)"
        ),
        "test.yaml:10:7: matches the same requests as the route in line 6, column 7",
        "test.yaml:11:12: can only be `deny`: what no route names is never allowed",
    ]


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """A missing file is told like any other fault."""
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        load(tmp_path / "none.yaml")


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "extAuthz",
                        "routes",
                        "match",
                        "path",
                        "identity",
                        "jwt",
                        "principal",
                        "sources",
                        "http",
                        "url",
                    ),
                    *(
                        "auxData",
                        "keySets",
                        "id",
                        "resource",
                        "attr",
                        "source",
                        "expr",
                        "claim",
                        "server",
                        "allow",
                    ),
                    *(
                        "headers",
                        "actions",
                        "action",
                        "GET /x",
                        "local",
                        "remote",
                        "keySetID",
                        "algorithms",
                        "hosts",
                    ),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["extAuthz", "auxData", "server", "storage"]), HOSTILE, max_size=3))
def test_whatever_a_file_says_the_answer_is_a_configuration_or_faults(value: Any) -> None:
    """No text whatsoever ends in an exception of ours: it is read, or refused with placed faults."""
    try:
        read(yaml.safe_dump(value, allow_unicode=True))
    except ConfigError as error:
        told = [fault.message for fault in error.faults]
    else:
        told = ["nothing"]
    assert all(told)
    assert told


# --- a whole file -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> Config:
    return read(WHOLE).config


def test_a_whole_file_has_no_warnings() -> None:
    """A file in which everything has its effect is read without a word."""
    assert read(WHOLE).warnings == ()


def test_server_and_storage(whole: Config) -> None:
    """Cerbos's keys of the server and of the disk driver are read, with durations as such."""
    assert whole.server.drain_timeout == datetime.timedelta(seconds=90)
    assert whole.server.uds_file_mode == 0o660
    assert whole.server.advanced.grpc.max_connection_age == datetime.timedelta(minutes=5)
    assert whole.server.advanced.grpc.max_concurrent_streams == 1024
    assert whole.server.tls is not None
    assert whole.server.tls.ca_cert == "ca.crt"
    assert whole.storage.disk.directory == "/policies"
    assert (whole.engine.default_scope, whole.engine.mode) == ("acme", "safe")


def test_identities(whole: Config) -> None:
    """Identities have names, key sets, and the leeway of their own or of all."""
    first, second = whole.ext_authz.identity
    assert (first.name, second.name) == ("idp", "friends")
    assert first.jwt.issuer == ("https://a/", "https://b/")
    assert first.jwt.audiences == ("api",)
    assert [each.header or each.cookie for each in first.jwt.sources] == ["authorization", "x-token", "sid"]
    assert whole.key_set(second).id == "partner"
    assert whole.leeway(first) == datetime.timedelta(seconds=2)
    assert whole.leeway(second) == datetime.timedelta(seconds=5)


def test_short_forms_of_routes(whole: Config) -> None:
    """``METHODS /path: allow`` is a route that asks no policy and nobody for a token."""
    health, internal = whole.ext_authz.routes[:2]
    assert (health.name, health.decision, health.is_anonymous) == ("GET|HEAD /healthz", "allow", True)
    assert (internal.name, internal.decision) == ("/internal", "deny")
    assert whole.ext_authz.identities(health) == ()


def test_a_route_in_full(whole: Config) -> None:
    """What a route says is at hand, compiled: its pattern, actions, attributes, answers, relaxations."""
    route = whole.ext_authz.routes[2]
    assert str(route.pattern.hosts[0]) == "api.example.com"
    assert route.pattern.headers == (("x-beta", None), ("x-version", "2"))
    assert route.pattern.methods is None
    assert [route.action_of(method).text for method in ("HEAD", "DELETE", "PATCH")] == [
        "read",
        "delete",
        "access",
    ]
    assert route.relaxed == {"path.encoded_slash"}
    assert route.resource is not None
    assert route.resource.attr.sources == ("expense",)
    assert route.resource.attr.slots["amount"].text == "body.?amount"
    assert [each.name for each in whole.ext_authz.identities(route)] == ["friends"]
    assert list(route.allow.headers) == ["x-authz-scope"]
    assert route.allow.remove_headers == ("authorization",)
    assert route.deny is not None
    assert (route.deny.status, list(route.deny.headers)) == (404, ["x-reason"])
    assert route.body.max_bytes == 1000


def test_a_route_accepts_every_identity_unless_it_says_which(whole: Config) -> None:
    """Without ``identity`` all are accepted, in the order of the file."""
    route = whole.ext_authz.routes[3]
    assert [each.name for each in whole.ext_authz.identities(route)] == ["idp", "friends"]
    assert (route.anonymous, route.is_anonymous) == ("allow", False)


def test_headers_that_a_route_sets_are_owned_everywhere(whole: Config) -> None:
    """What any route sets upstream is ours on all routes, beside what is listed."""
    assert whole.ext_authz.owned == {"x-authz-principal", "x-authz-scope"}


def test_limits_are_those_of_the_decoder(whole: Config) -> None:
    """The limits of the file are handed to the decoder, the others are its own."""
    assert whole.ext_authz.limits.request == request.Limits(headers=50)


def test_routes_are_matched_as_a_table() -> None:
    """What is loaded finds the routes of the file."""
    table = routes.RouteTable(read(WHOLE).config.ext_authz.routes)
    found = table.match(request.HttpRequest(target="/healthz"))
    assert isinstance(found, routes.Match)
    assert found.route.name == "GET|HEAD /healthz"


def test_nothing_can_be_changed(whole: Config) -> None:
    """A configuration does not change once it is read."""
    with pytest.raises(ValueError, match="frozen"):
        whole.server.workers = 3


@pytest.mark.parametrize(
    ("engine", "mode"),
    [
        ("{}", "safe"),
        ("{strictEvaluation: true}", "strict"),
        ("{strictEvaluation: false}", "lenient"),
        ("{evaluation: lenient}", "lenient"),
        ("{evaluation: strict, strictEvaluation: true}", "strict"),
    ],
)
def test_modes_of_evaluation(engine: str, mode: str) -> None:
    """Cerbos's switch keeps its meaning; who does not touch it gets the safe mode."""
    assert read(f"engine: {engine}").config.engine.mode == mode


@pytest.mark.parametrize(("block", "known"), [("{}", False), ("{runtimeAction: true}", True)])
def test_policies_may_read_the_action_where_the_file_says_so(block: str, known: bool) -> None:
    """`runtime.action` is not Cerbos's, and off unless asked for."""
    assert read(f"engine: {block}").config.engine.runtime_action is known


@pytest.mark.parametrize(
    ("block", "directory"),
    [
        ("{}", "/home/ann/.cache/extauthz"),
        ("{cache: {directory: /var/cache/policies}}", "/var/cache/policies"),
        ("{cache: {enabled: false, directory: /var/cache/policies}}", None),
    ],
)
def test_policies_are_kept_where_the_file_says(
    block: str, directory: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What policies compile to is kept in the user's directory for caches, elsewhere, or not at all."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    found = read(f"engine: {block}").config.engine.cache.settings
    assert (None if found is None else str(found.directory)) == directory


def test_a_cache_has_a_size() -> None:
    """The room of the cache can be set, and is never none at all."""
    found = read("engine: {cache: {maxBytes: 2000000}}").config.engine.cache.settings
    assert found is not None
    assert found.max_bytes == 2_000_000
    assert len(faults("engine: {cache: {maxBytes: 1}}")) == 1


def test_a_file_without_routes_denies_everything() -> None:
    """A file without routes is possible, allows nothing, and says so."""
    loaded = read("extAuthz: {}")
    assert loaded.config.ext_authz.routes == ()
    assert [str(warning) for warning in loaded.warnings] == [
        "test.yaml:1:11: there are no routes: every request will be denied"
    ]


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("", True),
        ("server: {httpListenAddr: ':3592'}", True),
        ("extAuthz: {}", False),
        ("pdp: {enabled: false}", False),
        ("pdp: {enabled: true}\nextAuthz: {}", True),
    ],
)
def test_who_is_served(text: str, served: bool) -> None:
    """A file of Cerbos's serves Cerbos's clients; one of ours does when it says so."""
    loaded = read(text)
    assert loaded.config.serves_pdp is served
    without_routes = "there are no routes: every request will be denied"
    told = [warning.message for warning in loaded.warnings]
    assert told == ([without_routes] if "extAuthz" in text or not served else [])


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", "lenient"),
        ("engine: {strictEvaluation: true}", "strict"),
        ("engine: {strictEvaluation: false}", "lenient"),
        ("engine: {evaluation: safe}", "safe"),
        ("engine: {evaluation: safe}\npdp: {evaluation: strict}", "strict"),
        ("pdp: {evaluation: safe}", "safe"),
    ],
)
def test_modes_of_evaluation_of_the_pdp(text: str, mode: str) -> None:
    """The API has Cerbos's default, follows the engine's choice, and may have its own."""
    assert read(text).config.pdp_evaluation == mode


@pytest.mark.parametrize("path", PDP_ONLY, ids=".".join)
def test_what_only_the_pdp_heeds_is_told(path: tuple[str | int, ...]) -> None:
    """A key of the API does nothing without the API, and that is said."""
    value: Any = {"cors": {}, "requestLimits": {}, "readTimeout": "1s"}.get(str(path[-1]), True)
    with_routes = _nested(path, value) | {"extAuthz": {"routes": [{"GET /": "allow"}]}}
    assert any(
        f"`{path[-1]}` has no effect here" in str(each) for each in read(yaml.safe_dump(with_routes)).warnings
    )
    served = with_routes | {"pdp": {"enabled": True}}
    assert not any("no effect" in str(each) for each in read(yaml.safe_dump(served)).warnings)


def test_signatures_that_are_not_looked_at_are_told() -> None:
    """Who switches verification off is told what that means."""
    (warning,) = read("auxData: {jwt: {disableVerification: true}}").warnings
    assert "anyone can make one" in warning.message


# --- warnings ---------------------------------------------------------------------------------------------


def _nested(path: tuple[str | int, ...], value: Any) -> Any:
    return {path[0]: _nested(path[1:], value)} if path else value


@pytest.mark.parametrize("path", NO_EFFECT, ids=".".join)
def test_what_has_no_effect_is_told(path: tuple[str | int, ...]) -> None:
    """A key of Cerbos's that changes nothing here is accepted with a warning, never silently."""
    value = _nested(path, "1s" if "advanced" in path else {} if path[0] == "server" else "x")
    if path[0] == "storage":
        value["storage"]["driver"] = "disk"
    messages = [warning.message for warning in read(yaml.safe_dump(value)).warnings]
    assert f"`{path[-1]}` has no effect here: {NO_EFFECT[path]}" in messages


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://id.example.com/jwks", True),
        ("https://id.example.com/jwks", False),
        ("http://127.0.0.1/jwks", False),
    ],
)
def test_keys_over_plain_http_are_told(url: str, told: bool) -> None:
    """Keys that travel without TLS past other machines are worth a warning."""
    keys = f'auxData: {{jwt: {{keySets: [{{id: a, remote: {{url: "{url}"}}}}]}}}}'
    warnings = read(keys + "\nextAuthz: {routes: [/: allow]}").warnings
    assert [warning.line for warning in warnings] == ([1] if told else [])


# --- tables that must agree with others -------------------------------------------------------------------


def test_every_relaxable_fault_can_be_relaxed() -> None:
    """The choices of ``normalize`` cover exactly the faults that may be accepted."""
    every = {
        name: field.annotation.__args__[1]
        for name, field in Normalize.model_fields.items()
        if field.annotation is not None
    }
    assert Normalize.model_construct(**every).relaxed == request.RELAXABLE


def test_denials_have_statuses_that_envoy_knows() -> None:
    """Envoy refuses an answer whose status its enum does not name."""
    assert frozenset(int(status) for status in StatusCode if status >= 300) == ENVOY_STATUS


# --- durations and environment ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("200ms", 0.2),
        ("1h2m3s4ms", 3723.004),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("0s", 0),
        ("0", 0),
        (0, 0),
    ],
)
def test_durations_are_written_as_in_go(text: object, seconds: float) -> None:
    """Numbers with units add up."""
    assert parse_duration(text) == datetime.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "10",
        10,
        1.5,
        "-1s",
        "1 s",
        "1s ",
        "1d",
        "1e3s",
        "\N{ARABIC-INDIC DIGIT ONE}s",
        True,
        False,
        None,
        [],
        "9999999h",
        "1s" * 99,
    ],
)
def test_other_durations_are_refused(text: object) -> None:
    """What Go would not read, what is negative, and what is absurd is no duration."""
    with pytest.raises(ValueError, match=r"duration|longer"):
        parse_duration(text)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s"]), st.integers(0, 59))
def test_parts_of_durations_add_up(count: int, unit: str, minutes: int) -> None:
    """A duration is the sum of its parts."""
    parts = parse_duration(f"{minutes}m"), parse_duration(f"{count}{unit}")
    assert parse_duration(f"{minutes}m{count}{unit}") == sum(parts, datetime.timedelta())


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${A}", "1"),
        ("x${A}y${B:z}", "x1yz"),
        ("${A:z}", "1"),
        ("${B:}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:z}", ""),
        ("${B:a:b}", "a:b"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$1"),
        ("$A costs $", "$A costs $"),
        ("${TRICKY}", "${A} $$"),
    ],
)
def test_the_environment_fills_texts(text: str, filled: str) -> None:
    """``${NAME}`` and ``${NAME:default}`` are filled once; ``$$`` is a dollar sign."""
    environment = {"A": "1", "EMPTY": "", "TRICKY": "${A} $$"}
    assert fill({"a": [text]}, environment) == ({"a": [filled]}, [])


@pytest.mark.parametrize("text", ["${B}", "${", "${}", "${1A}", "${A B}", "${A", "a${B}c"])
def test_what_cannot_be_filled_is_told(text: str) -> None:
    """A variable that is not set, or whose name has no end, is a fault at its place."""
    _, complaints = fill({"a": [text]}, {"A": "1"})
    assert [path for path, _ in complaints] == [("a", 0)]


def test_numbers_may_come_from_the_environment() -> None:
    """A filled text is read as what its key needs."""
    assert read("server: {workers: '${N}'}", N="3").config.server.workers == 3
    assert faults("server: {workers: '${N}'}", N="many") == ["test.yaml:1:19: must be a whole number"]


def test_a_missing_variable_gives_one_fault() -> None:
    """That the empty text in its place is wrong as well is not told."""
    assert len(faults("server: {grpcListenAddr: '${UNSET}'}")) == 1


def test_the_demo_is_right() -> None:
    """The configuration of the demo is read without faults and warnings."""
    loaded = load(TESTS.parent / "envoy" / "demo" / "extauthz.yaml", {})
    assert loaded.warnings == ()
    assert all(
        isinstance(slot, Slot)
        for route in loaded.config.ext_authz.routes
        for slot in route.allow.headers.values()
    )


# --- the reference ----------------------------------------------------------------------------------------


def _keys(model: type[Block], seen: set[type[Block]]) -> Iterator[str]:
    """Give every key of a block, and of the blocks in it."""
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield field.alias or name
        for block in _blocks(field.annotation):
            yield from _keys(block, seen)


def _blocks(annotation: Any) -> Iterator[type[Block]]:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _blocks(argument)


ADMIN = """
server:
  adminAPI:
    enabled: true
    adminCredentials: {{passwordHash: {hash}}}
    allowPlaintext: true
"""
SOON_GUESSED = base64.b64encode(bcrypt.hashpw(b"a password", bcrypt.gensalt(4))).decode()


def test_a_password_without_tls_is_told() -> None:
    """Who lets the password of the admin API come in the clear is warned, as of a hash of little cost."""
    loaded = read(ADMIN.format(hash=SOON_GUESSED))
    assert [fault.message for fault in loaded.warnings] == [
        "whoever gets this hash soon has the password: its cost is 4, 10 is usual",
        "the password of the admin API comes without TLS: whoever is on the way can read it",
    ]
    assert loaded.config.server.admin_api.credentials is not None


@pytest.mark.parametrize(
    "addresses",
    [
        "grpcListenAddr: localhost:1, httpListenAddr: '[::1]:2'",
        "grpcListenAddr: unix:/a, httpListenAddr: 127.1.2.3:4",
    ],
)
def test_a_password_on_the_loopback_needs_no_tls(addresses: str) -> None:
    """What no other machine can reach may be without TLS."""
    admin = f"adminAPI: {{enabled: true, adminCredentials: {{passwordHash: {made_hash('a password', 10)}}}}}"
    assert read(f"server: {{{addresses}, {admin}}}").warnings == ()


def test_credentials_say_nothing_when_the_api_is_off() -> None:
    """A configuration of Cerbos that has the admin API switched off is taken as it is."""
    loaded = read("server: {adminAPI: {enabled: false, adminCredentials: {passwordHash: whatever}}}")
    assert loaded.warnings == ()
    assert loaded.config.server.admin_api.credentials is None


def test_the_reference_has_every_key() -> None:
    """No key of a configuration is missing in ``docs/configuration.md``."""
    words = set(re.findall(r"\w+", (TESTS.parent / "docs" / "configuration.md").read_text(encoding="utf-8")))
    later = {"httpAdvanced", "file", "local", "kafka", *LATER_DRIVERS}
    named = {path[-1] for path in NO_EFFECT} | later
    missing = set(_keys(Config, set())) - words - named
    assert missing <= {
        *("accessLogsEnabled", "decisionLogsEnabled", "includeMetadataKeys"),  # other keys of `audit`
        *("excludeMetadataKeys", "decisionLogFilters"),
    }


def test_the_example_of_the_reference_is_right() -> None:
    """What the reference shows can be used as it stands."""
    text = (TESTS.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert read(example).warnings == ()


@pytest.mark.parametrize(
    ("place", "prefix"),
    [
        ({"header": "Authorization"}, "Bearer"),
        ({"header": "x-id-token"}, ""),
        ({"header": "x-id-token", "scheme": "Token"}, "Token"),
        ({"header": "authorization", "scheme": ""}, ""),
        ({"cookie": "sid"}, ""),
    ],
)
def test_a_token_has_a_scheme_where_one_is_usual(place: dict[str, str], prefix: str) -> None:
    """Without a scheme of its own, only ``authorization`` has ``Bearer`` before its token."""
    assert TokenFrom.model_validate(place).prefix == prefix
