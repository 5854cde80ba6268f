"""Identities: credentials in, principals out, and no way around."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cel.values import Timestamp
from engine.model import Principal
from extauthz.facts import Facts
from extauthz.identity import (
    BEARER,
    REFUSALS,
    Identity,
    JwtIdentity,
    KeySetUnavailable,
    KeysWanted,
    PrincipalSlots,
    TokenPlace,
    TokenRules,
    Unauthenticated,
    cerbos_claims,
)
from extauthz.keysets import KeyFormat, KeySet, KeySetError, parse_keys
from extauthz.slots import MISSING, Scope, Slot, SlotError, Want, compile_slot
from tests.extauthz.key_server import (
    SECRET,
    Clock,
    base64url,
    jwks,
    private_key,
    public_jwk,
    secret_jwk,
    token,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from extauthz.identity import Identified
    from extauthz.request import HttpRequest

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "tokens.yaml").read_text())
NOW = 1_700_000_000.0
ISSUER = "https://id.example.com/"
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": "api", "sub": "alice", "roles": ["user"], "exp": NOW + 60}
RULES = TokenRules(
    (ISSUER, "https://id2.example.com"), ("api", "api2"), frozenset({"RS256", "PS256", "ES256", "EdDSA"})
)
PLACES = (BEARER, TokenPlace(header="X-Token", scheme=""), TokenPlace(cookie="sid"))
DOCUMENT = jwks("rsa", "ec", "ed", public_jwk("rsa-any", alg=None))


def claim(name: str) -> Slot:
    """Give the claim as it is, whatever it is."""
    return Slot(name, lambda facts: facts.claims.get(name, MISSING), frozenset({"claims"}))


PRINCIPAL = PrincipalSlots(claim("sub"), claim("roles"), {"region": claim("region"), "level": claim("level")})


@dataclass
class Request:
    """What identities read of a request; repeated headers told apart, or joined as Envoy joins them."""

    pairs: Iterable[tuple[str, str]]
    joined: bool = False
    _values: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._values = {}
        for name, value in self.pairs:
            self._values.setdefault(name, []).append(value)

    def header(self, name: str) -> str | None:
        values = self._values.get(name)
        return None if values is None else ("; " if name == "cookie" else ",").join(values)

    def header_values(self, name: str) -> tuple[str, ...]:
        value = self.header(name)
        if self.joined:
            return () if value is None else (value,)
        return tuple(self._values.get(name, ()))


def asking(*headers: tuple[str, str], joined: bool = False) -> Facts:
    return Facts(cast("HttpRequest", Request(headers, joined)))


def bearing(text: str) -> Facts:
    return asking(("authorization", f"Bearer {text}"))


class Fixed:
    """An origin that gives what the test put there."""

    place = "the test"

    def __init__(self, text: bytes | None) -> None:
        self.text = text
        self.reads = 0

    async def read(self, *, known: bool) -> bytes | None:
        self.reads += 1
        if self.text is None:
            raise KeySetError("gone")
        return self.text


LENIENT = KeyFormat(optional_alg=True)


def loaded(document: bytes = DOCUMENT, form: KeyFormat = LENIENT) -> KeySet:
    key_set = KeySet("idp", Fixed(document), form=form, clock=Clock())
    key_set.keys = parse_keys(document, form)
    key_set._attempted = key_set._clock()  # within the cool-down: an unknown kid is just unknown
    return key_set


def identity(
    rules: TokenRules = RULES,
    *,
    principal: PrincipalSlots = PRINCIPAL,
    key_set: KeySet | None = None,
    clock: Clock | None = None,
) -> Identity:
    clock = clock or Clock(NOW)
    entry = JwtIdentity(key_set or loaded(), rules, principal, places=PLACES, clock=clock)
    return Identity([entry], clock=clock)


WITH_SECRETS = TokenRules(RULES.issuers, RULES.audiences, RULES.algorithms | {"HS256"})


def identity_for(case: dict[str, Any]) -> Identity:
    if not case.get("secrets"):
        return identity()
    document = jwks("rsa", "ec", "ed", secret_jwk())
    return identity(WITH_SECRETS, key_set=loaded(document))


def token_of(case: dict[str, Any]) -> str:
    if "token" in case:
        return str(case["token"])
    claims = case.get("claims", {})
    body = claims if isinstance(claims, str) else {**CLAIMS, **claims}
    if "forge" in case:
        return forged(case["forge"], case.get("header", {}))
    return token(body, key=case.get("key", "rsa"), alg=case.get("alg", "RS256"), header=case.get("header"))


def forged(how: str, header: dict[str, Any]) -> str:
    """Make an HS256 token whose secret is something that everybody knows."""
    public = private_key("rsa").public_key()
    secret = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "modulus": public_jwk("rsa")["n"].encode(),
        "empty": b"",
    }[how]
    head = json.dumps({"alg": "HS256", "kid": "rsa", **header}).encode()
    message = f"{base64url(head)}.{base64url(json.dumps(CLAIMS).encode())}"
    return f"{message}.{base64url(hmac.digest(secret, message.encode(), hashlib.sha256))}"


def reason_of(identity: Identity, facts: Facts, *, anonymous_allowed: bool = False) -> str:
    with pytest.raises(Unauthenticated) as refused:
        identity.identify(facts, anonymous_allowed)
    return refused.value.reason


def named(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


# --- tokens -----------------------------------------------------------------------------------------------


@named(CASES["good"])
def test_good_token(case: dict[str, Any]) -> None:
    """A token that fulfils every rule gives its principal, the first time and when remembered."""
    who = identity_for(case)
    text = token_of(case)
    first, again = who.identify(bearing(text)), who.identify(bearing(text))
    assert (first.principal.id, first.principal.roles) == ("alice", ("user",))
    assert again is first


@named(CASES["bad"])
def test_bad_token(case: dict[str, Any]) -> None:
    """A token that breaks a rule is refused with the reason, every time, even where anonymous is allowed."""
    who = identity_for(case)
    text = token_of(case)
    assert reason_of(who, bearing(text)) == case["expect"]
    assert reason_of(who, bearing(text), anonymous_allowed=True) == case["expect"]


def test_every_reason_has_a_bad_token() -> None:
    """The tables leave no reason out but the size, which has a test of its own."""
    shown = {case["expect"] for case in CASES["bad"]} | {case.get("reason") for case in CASES["requests"]}
    assert set(REFUSALS) - shown == {"authn.too_large"}


def test_size_is_checked_before_anything_else() -> None:
    """A token of 64 KiB is refused for its size, whatever it is; one as long as the limit is looked into."""
    who = identity()
    assert reason_of(who, bearing("." * 65536)) == "authn.too_large"
    assert reason_of(who, bearing("a" * (RULES.max_bytes + 1))) == "authn.too_large"
    assert reason_of(who, bearing("a" * RULES.max_bytes)) == "authn.malformed"


def test_deep_claims_are_refused() -> None:
    """Claims nested deeper than 64 levels are refused, and thousands of levels do no harm."""
    who = identity()
    for depth in (65, 4000):
        body = json.dumps(CLAIMS)[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}"
        assert reason_of(who, bearing(token(body))) == "authn.malformed"


def test_changed_token_is_refused() -> None:
    """Whichever character of a good token is changed, it is good no longer."""
    who = identity()
    text = token(CLAIMS, key="ec", alg="ES256")
    assert who.identify(bearing(text)).principal.id == "alice"
    for place, character in enumerate(text):
        other = "A" if character != "A" else "B"
        with pytest.raises(Unauthenticated):
            who.identify(bearing(text[:place] + other + text[place + 1 :]))


def test_leeway_shifts_every_time() -> None:
    """The leeway goes for expiry, nbf and iat alike, and no further."""
    who = identity(TokenRules(RULES.issuers, RULES.audiences, RULES.algorithms, leeway=30))
    good = [{"exp": NOW - 29}, {"nbf": NOW + 30}, {"iat": NOW + 30}]
    bad = [{"exp": NOW - 30}, {"nbf": NOW + 31}, {"iat": NOW + 31}]
    assert [who.identify(bearing(token({**CLAIMS, **claims}))).principal.id for claims in good] == [
        "alice"
    ] * 3
    assert [reason_of(who, bearing(token({**CLAIMS, **claims}))) for claims in bad] == [
        "authn.expired",
        "authn.not_yet_valid",
        "authn.not_yet_valid",
    ]


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_required_claims(value: object) -> None:
    """A claim that the configuration requires must be there and hold something."""
    rules = TokenRules(RULES.issuers, RULES.audiences, RULES.algorithms, required_claims=("tenant",))
    who = identity(rules)
    assert who.identify(bearing(token({**CLAIMS, "tenant": 0}))).claims["tenant"] == 0
    assert reason_of(who, bearing(token({**CLAIMS, "tenant": value}))) == "authn.claims"


@pytest.mark.parametrize(
    ("issuers", "audiences", "algorithms"),
    [
        ((), ("a",), {"RS256"}),
        (("i",), (), {"RS256"}),
        (("i",), ("a",), set()),
        (("i",), ("a",), {"none"}),
        (("i",), ("a",), {"RS1"}),
    ],
)
def test_half_set_rules_are_refused(
    issuers: tuple[str, ...], audiences: tuple[str, ...], algorithms: set[str]
) -> None:
    """Without an issuer, an audience or a supported algorithm there are no rules to check tokens by."""
    with pytest.raises(ValueError, match="algorithm"):
        TokenRules(issuers, audiences, frozenset(algorithms))


def test_keys_without_id_fit_any_token() -> None:
    """PEM keys have no id: a token with or without one is tried with the keys that can do its algorithm."""
    pem = private_key("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    who = identity(key_set=loaded(pem, KeyFormat(pem=True)))
    for header in ({"kid": "whatever"}, {"kid": None}):
        assert who.identify(bearing(token(CLAIMS, header=header))).principal.id == "alice"
    assert reason_of(who, bearing(token(CLAIMS, key="rsa-other"))) == "authn.signature"


def test_token_without_kid_is_tried_with_few_keys() -> None:
    """A token without a kid is verified when few keys fit, and refused when trying them would cost much."""
    names = [f"ec-{number}" for number in range(9)]
    text = token(CLAIMS, key="ec-7", alg="ES256", header={"kid": None})
    assert identity(key_set=loaded(jwks(*names[:8]))).identify(bearing(text)).principal.id == "alice"
    assert reason_of(identity(key_set=loaded(jwks(*names))), bearing(text)) == "authn.unknown_key"


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
@settings(deadline=None, max_examples=300)
def test_random_texts_never_verify(text: str) -> None:
    """Whatever stands in the header, the answer is a refusal and nothing else."""
    with pytest.raises(Unauthenticated):
        RANDOM.identify(bearing(text))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["none", "RS256", "ES256", "HS256", "EdDSA"]) | JSON,
        "kid": st.sampled_from(["rsa", "ec", "ed"]) | JSON,
        **dict.fromkeys(("typ", "cty", "crit", "jwk", "jku"), JSON),
    },
)
BODIES = st.fixed_dictionaries({}, optional=dict.fromkeys(("iss", "aud", "sub", "exp", "roles"), JSON)).map(
    lambda claims: {**CLAIMS, **claims}
)


@given(HEADERS, BODIES, st.binary(max_size=300))
@settings(deadline=None, max_examples=150)
def test_random_forgeries_never_verify(
    header: dict[str, Any], claims: dict[str, Any], signature: bytes
) -> None:
    """Tokens with any header, any claims and a made-up signature are refused, and nothing else happens."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    with pytest.raises(Unauthenticated):
        RANDOM.identify(bearing(".".join(map(base64url, parts))))


@given(BODIES)
@settings(deadline=None, max_examples=100)
def test_random_claims_with_a_good_signature(claims: dict[str, Any]) -> None:
    """Claims of any shape, properly signed, give a principal as promised or a refusal."""
    facts = bearing(token(claims, key="ed", alg="EdDSA"))
    try:
        found = RANDOM.identify(facts)
    except Unauthenticated:
        return
    assert found.principal.id
    assert all(isinstance(role, str) and role for role in found.principal.roles)
    assert facts.claims == found.claims


RANDOM = identity()


# --- requests ---------------------------------------------------------------------------------------------

TOKENS = {"T": token(CLAIMS), "B": token({**CLAIMS, "sub": "bob"}), "X": "not.a.token!"}


def headers_of(case: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, _with_tokens(value)) for name, value in case["headers"]]


def _with_tokens(value: str) -> str:
    return re.sub(r"(?<![A-Za-z])[TBX](?![A-Za-z])", lambda found: TOKENS[found[0]], value)


@pytest.mark.parametrize("joined", [False, True], ids=["header_map", "headers"])
@named(CASES["requests"])
def test_requests(case: dict[str, Any], joined: bool) -> None:
    """The credentials of a request are found in the configured order; two at one place are nobody's."""
    who = identity()
    for _ in range(2):  # the second time with a memory
        facts = asking(*headers_of(case), joined=joined)
        if "id" in case:
            assert who.identify(facts).principal.id == case["id"]
        else:
            assert reason_of(who, facts) == case["reason"]


def test_two_headers_of_other_schemes() -> None:
    """Where a gateway tells repeated headers apart, two of them are ambiguous whatever they hold."""
    headers = ("authorization", "Basic YTpi"), ("authorization", "Negotiate YTpi")
    assert reason_of(identity(), asking(*headers), anonymous_allowed=True) == "authn.ambiguous_credentials"


@named([case for case in CASES["requests"] if "reason" in case])
def test_anonymous(case: dict[str, Any]) -> None:
    """Who sends no credential is anonymous where that is allowed; who sends a bad one is refused."""
    facts = asking(*headers_of(case))
    if case.get("anonymous"):
        found = identity().identify(facts, anonymous_allowed=True)
        assert (found.anonymous, found.principal.id, found.claims, facts.claims) == (
            True,
            "anonymous",
            {},
            {},
        )
    elif case["reason"] != "authn.missing":
        assert reason_of(identity(), facts, anonymous_allowed=True) == case["reason"]


def test_challenge() -> None:
    """Each refusal has a challenge of RFC 6750; without credentials it names no error; realms are quoted."""
    who = Identity([JwtIdentity(loaded(), RULES, PRINCIPAL)], realm='say "hi" \\ bye')
    challenges = []
    for facts in (asking(), bearing('x" realm="evil')):
        with pytest.raises(Unauthenticated) as refused:
            who.identify(facts)
        challenges.append(refused.value.www_authenticate)
    realm = r'Bearer realm="say \"hi\" \\ bye"'
    description = 'error="invalid_token", error_description="the token is malformed"'
    assert challenges == [realm, f"{realm}, {description}"]


def test_realm_must_be_printable() -> None:
    """A realm cannot break out of its header."""
    with pytest.raises(ValueError, match="printable"):
        Identity([], realm="a\r\nset-cookie: b")


def test_no_identities() -> None:
    """Without any identity configured everybody is anonymous, or refused."""
    who = Identity([], anonymous=Principal("guest", ("guest",)))
    assert who.identify(bearing("x"), anonymous_allowed=True).principal.id == "guest"
    assert reason_of(who, bearing("x")) == "authn.missing"


# --- several identities -----------------------------------------------------------------------------------


def two_issuers() -> Identity:
    other = TokenRules(("https://other.example.com",), ("api",), frozenset({"ES256"}))
    first = JwtIdentity(loaded(jwks("rsa")), RULES, PRINCIPAL, clock=Clock(NOW))
    staff = PrincipalSlots(claim("sub"), Slot("staff", lambda _: ["staff"]), {})
    places = (BEARER, TokenPlace(header="x-staff", scheme=""))
    return Identity(
        [first, JwtIdentity(loaded(jwks("ec")), other, staff, places=places, clock=Clock(NOW))],
        clock=Clock(NOW),
    )


def test_the_issuer_chooses_among_identities() -> None:
    """Where two identities share a place, the token's issuer says whose it is; only that one verifies it."""
    who = two_issuers()
    theirs = {**CLAIMS, "iss": "https://other.example.com"}
    assert who.identify(bearing(token(CLAIMS))).principal.roles == ("user",)
    assert who.identify(bearing(token(theirs, key="ec", alg="ES256"))).principal.roles == ("staff",)
    assert reason_of(who, bearing(token({**CLAIMS, "iss": "https://x"}))) == "authn.issuer"
    assert reason_of(who, bearing(token(CLAIMS, alg="RS512"))) == "authn.algorithm"
    assert reason_of(who, bearing(token(theirs, key="rsa", header={"kid": "ec"}))) == "authn.algorithm"
    assert reason_of(who, bearing(token(CLAIMS, key="ec", alg="ES256"))) == "authn.unknown_key"


def test_a_remembered_token_is_good_only_where_it_came_in() -> None:
    """A token that was good at one place is verified anew at another, which may not accept it."""
    who = two_issuers()
    text = token(CLAIMS)
    assert who.identify(bearing(text)).principal.id == "alice"
    assert reason_of(who, asking(("x-staff", text))) == "authn.issuer"
    assert reason_of(who, asking(("x-staff", f"Bearer {text}"))) == "authn.malformed"


# --- principals -------------------------------------------------------------------------------------------


def test_principal_of_claims() -> None:
    """Attributes are JSON values, numbers as floats, absent ones left out; each role is told once."""
    claims = {**CLAIMS, "level": 3, "roles": ["b", "a", "b"]}
    found = identity().identify(bearing(token(claims)))
    assert found.principal == Principal("alice", ("b", "a"), {"level": 3.0})
    assert isinstance(found.principal.attr["level"], float)
    assert found.claims["level"] == 3.0


def test_principal_of_more_than_claims() -> None:
    """A principal that depends on the request is made for each request, with the remembered claims."""
    host = Slot("host", lambda facts: facts.request.header("host"), frozenset({"headers"}))
    who = identity(principal=PrincipalSlots(claim("sub"), claim("roles"), {"host": host}))
    text = token(CLAIMS)
    for name in ("a.example.com", "b.example.com"):
        facts = asking(("authorization", f"Bearer {text}"), ("host", name))
        found = who.identify(facts)
        assert (found.principal.id, found.principal.attr) == ("alice", {"host": name})
        assert facts.claims["sub"] == "alice"


def test_principal_of_the_time() -> None:
    """A principal that depends on the time of day is not remembered with the token."""
    slot = compile_slot({"expr": "now() > timestamp('2030-01-01T00:00:00Z')"}, Scope.IDENTITY, Want.VALUE)
    who = identity(principal=PrincipalSlots(claim("sub"), claim("roles"), {"late": slot}))
    text = token(CLAIMS)
    for year, late in ((2029, False), (2031, True)):
        facts = bearing(text)
        facts.now = Timestamp.parse(f"{year}-06-01T00:00:00Z")
        assert who.identify(facts).principal.attr == {"late": late}


def test_policy_version_and_scope() -> None:
    """Policy version and scope come from slots too; nothing is the empty text, other types are refused."""
    slots = PrincipalSlots(claim("sub"), claim("roles"), {}, policy_version=claim("v"), scope=claim("tenant"))
    who = identity(principal=slots)
    found = who.identify(bearing(token({**CLAIMS, "tenant": "acme"})))
    assert (found.principal.policy_version, found.principal.scope) == ("", "acme")
    assert reason_of(who, bearing(token({**CLAIMS, "tenant": ["acme"]}))) == "authn.claims"


def test_a_slot_that_fails() -> None:
    """A slot without a value refuses the token if it looks at claims only; else the request is at fault."""
    claims = compile_slot({"claim": "nope"}, Scope.IDENTITY, Want.VALUE)
    who = identity(principal=PrincipalSlots(claim("sub"), claim("roles"), {"x": claims}))
    assert reason_of(who, bearing(token(CLAIMS))) == "authn.claims"
    header = compile_slot({"header": "x-tenant"}, Scope.IDENTITY, Want.VALUE)
    who = identity(principal=PrincipalSlots(claim("sub"), claim("roles"), {"x": header}))
    with pytest.raises(SlotError, match="x-tenant"):
        who.identify(bearing(token(CLAIMS)))


def test_principal_of_a_configuration() -> None:
    """Slots as a configuration has them: nested claims, defaults, expressions."""
    text = compile_slot({"claim": "realm_access.roles"}, Scope.IDENTITY, Want.TEXTS)
    slots = PrincipalSlots(
        compile_slot({"claim": "sub"}, Scope.IDENTITY, Want.NAME),
        text,
        {
            "region": compile_slot({"claim": "region", "default": "nowhere"}, Scope.IDENTITY, Want.VALUE),
            "manager": compile_slot({"expr": "claims.level > 2.0"}, Scope.IDENTITY, Want.VALUE),
        },
    )
    claims = {**CLAIMS, "realm_access": {"roles": ["user", "admin"]}, "level": 3}
    found = identity(principal=slots).identify(bearing(token(claims)))
    assert found.principal == Principal("alice", ("user", "admin"), {"region": "nowhere", "manager": True})


def test_claims_as_cerbos_shows_them() -> None:
    """Policies see `aud` as a list and times as RFC 3339 texts; a time beyond the calendar is left out."""
    claims = {"aud": "api", "exp": 1.7e9, "nbf": 1.7e9 + 0.9, "iat": 1e300, "x": 1.0}
    assert cerbos_claims(claims) == {
        "aud": ["api"],
        "exp": "2023-11-14T22:13:20Z",
        "nbf": "2023-11-14T22:13:20Z",
        "x": 1.0,
    }
    found = identity().identify(bearing(token(CLAIMS)))
    assert found.aux_data.jwt["aud"] == ["api"]
    assert found.claims["aud"] == "api"


# --- memory -----------------------------------------------------------------------------------------------


def counted(who: Identity) -> list[int]:
    """Count verifications."""
    entry = who._entrances[0].entries[0]
    verify, calls = entry.verify, [0]

    def counting(text: str) -> Any:
        calls[0] += 1
        return verify(text)

    entry.verify = counting
    return calls


def test_a_token_is_verified_once() -> None:
    """A good token is verified once, however often it comes; a bad one is never remembered."""
    who = identity()
    calls = counted(who)
    text = token(CLAIMS)
    for _ in range(5):
        who.identify(bearing(text))
    assert calls == [1]
    for _ in range(3):
        reason_of(who, bearing("a.b.c"))
    assert calls == [4]


def test_a_remembered_token_expires() -> None:
    """A remembered token is refused from the second on in which it expires."""
    clock = Clock(NOW)
    who = identity(clock=clock)
    text = token(CLAIMS)
    clock.now = NOW + 59.9
    assert who.identify(bearing(text)).principal.id == "alice"
    clock.now = NOW + 60
    assert reason_of(who, bearing(text)) == "authn.expired"


def test_a_remembered_token_goes_with_its_key() -> None:
    """When a key leaves its set, the tokens it verified are refused at once; those of others stay good."""
    key_set = loaded()
    who = identity(key_set=key_set)
    calls = counted(who)
    first, second = bearing(token(CLAIMS)), bearing(token(CLAIMS, key="ec", alg="ES256"))
    for facts in (first, second):
        who.identify(facts)
    key_set.keys = parse_keys(jwks("ec", "ed"))
    assert reason_of(who, first) == "authn.unknown_key"
    assert who.identify(second).principal.id == "alice"
    assert calls == [3]


def test_a_kid_given_to_another_key_drops_its_tokens() -> None:
    """When a kid names another key, tokens that the key of before verified are refused."""
    key_set = loaded()
    who = identity(key_set=key_set)
    facts = bearing(token(CLAIMS))
    who.identify(facts)
    key_set.keys = parse_keys(jwks(public_jwk("rsa-other", kid="rsa")))
    assert reason_of(who, facts) == "authn.signature"


def test_memory_is_bounded() -> None:
    """More tokens than the limit push out those that were not used for long, never one in use."""
    who = Identity(
        [JwtIdentity(loaded(), RULES, PRINCIPAL, clock=Clock(NOW))], max_remembered=20, clock=Clock(NOW)
    )
    calls = counted(who)
    used = bearing(token(CLAIMS, key="ed", alg="EdDSA"))
    for number in range(60):
        who.identify(bearing(token({**CLAIMS, "n": number}, key="ed", alg="EdDSA")))
        who.identify(used)
    assert calls == [61]
    assert len(who._entrances[0].memory) <= 20


# --- keys that are not at hand ----------------------------------------------------------------------------


async def identify(who: Identity, facts: Facts, fetches: int = 3) -> Identified:
    """Do as the authorizer does."""
    for _ in range(fetches):
        try:
            return who.identify(facts)
        except KeysWanted as wanted:
            await wanted.fetch()
    raise AssertionError("it wants keys for ever")


async def test_keys_are_fetched_on_demand() -> None:
    """Before any keys are loaded, and for a key id that is new, the caller is asked to fetch first."""
    clock = Clock()
    origin = Fixed(jwks("rsa"))
    who = identity(key_set=KeySet("idp", origin, clock=clock))
    assert (await identify(who, bearing(token(CLAIMS)))).principal.id == "alice"
    clock.now += 31
    origin.text = jwks("rsa", "ec")
    assert (await identify(who, bearing(token(CLAIMS, key="ec", alg="ES256")))).principal.id == "alice"
    assert origin.reads == 2


async def test_no_keys_at_all_is_our_failure() -> None:
    """When no keys could ever be had, tokens are neither good nor bad."""
    who = identity(key_set=KeySet("idp", Fixed(None), clock=Clock()))
    with pytest.raises(KeySetUnavailable) as failure:
        await identify(who, bearing(token(CLAIMS)))
    assert (failure.value.reason, failure.value.key_set_id) == ("keys.unavailable", "idp")
    with pytest.raises(Unauthenticated):
        who.identify(bearing("garbage"))


async def test_a_strangers_token_makes_us_fetch_nothing() -> None:
    """An unknown key id in a token of another issuer, or with another algorithm, is not worth a fetch."""
    origin = Fixed(jwks("rsa"))
    who = identity(key_set=KeySet("idp", origin, clock=Clock()))
    for text in (token({**CLAIMS, "iss": "https://x"}), token(CLAIMS, alg="RS512"), "e30.e30.", "a.b.c"):
        with pytest.raises(Unauthenticated):
            await identify(who, bearing(text))
    assert origin.reads == 0


def test_secrets_are_not_shown() -> None:
    """Neither keys nor refusals show key material or tokens when printed."""
    keys = parse_keys(jwks(secret_jwk()))
    assert base64.urlsafe_b64encode(SECRET).decode()[:16] not in repr(keys)
    assert repr(SECRET)[2:20] not in repr(keys)
    text = token(CLAIMS, key="rsa-other", header={"kid": "rsa"})
    with pytest.raises(Unauthenticated) as refused:
        identity().identify(bearing(text))
    shown = f"{refused.value!r} {refused.value} {refused.value.www_authenticate} {refused.value.detail}"
    assert not any(part in shown for part in text.split("."))
