"""The format of bundles: what is signed is what comes out, and nothing else comes out."""

from __future__ import annotations

import base64
import datetime
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from engine.storage import StoreError
from engine.storage.bundle.format import (
    DOMAIN,
    BundleError,
    key_ids,
    open_bundle,
    unverified_manifest,
    write_bundle,
)
from engine.storage.bundle.keys import (
    by_id,
    key_id,
    pinned,
    private_key,
    private_pem,
    public_keys,
    public_pem,
)
from tests.engine.storage.bundle.publisher import (
    CREATED,
    KEY,
    NAME,
    OTHER_KEY,
    OTHER_PUBLIC_KEY,
    PUBLIC_KEY,
    bundle,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = {"b.yaml": b"two", "a/b.json": b"{}", "empty.yaml": b"", "a.yaml": b"one\x00\xff"}
TRUSTED = by_id([KEY.public_key()])


def signed(manifest: bytes, payload: bytes = b"", domain: bytes = DOMAIN) -> bytes:
    """Make a bundle of any manifest, with a good signature."""
    signature = base64.b64encode(KEY.sign(domain + manifest)).decode()
    head = f"extauthz-bundle/1\ned25519 {key_id(KEY.public_key())} {signature}\nmanifest {len(manifest)}\n"
    return head.encode() + manifest + payload


def manifest(**changes: Any) -> bytes:
    """Write a manifest without files."""
    usual = {
        "format": 1,
        "name": NAME,
        "sequence": 1,
        "version": "",
        "created": "2026-11-28T16:00:00Z",
        "files": [],
    }
    return json.dumps({**usual, **changes}).encode()


def entry(path: str, size: Any = 0, digest: Any = "e3b0c442" * 8) -> dict[str, Any]:
    return {"path": path, "size": size, "sha256": digest}


def test_what_is_written_is_read() -> None:
    """All that was put in comes out, with what the bundle says of itself."""
    opened = open_bundle(bundle(FILES, 7, version="v1.2"), TRUSTED, NAME)
    assert dict(opened.files) == FILES
    assert opened.manifest.sequence == 7
    assert opened.manifest.created == CREATED
    assert opened.manifest.revision == "expenses#7 (v1.2)"
    assert opened.signed_by == (key_id(KEY.public_key()),)


def test_the_same_makes_the_same_bytes() -> None:
    """The order of files and of keys changes nothing."""
    first = bundle(FILES, keys=(KEY, OTHER_KEY))
    assert bundle(dict(reversed(FILES.items())), keys=(OTHER_KEY, KEY)) == first


def test_every_byte_counts() -> None:
    """A bundle with any byte changed, cut off or added is refused."""
    data = bundle({"a.yaml": b"one"})
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(BundleError):
            open_bundle(changed, TRUSTED, NAME)
        with pytest.raises(BundleError):
            open_bundle(data[:at], TRUSTED, NAME)
    with pytest.raises(BundleError, match="the contents are 4 bytes, the list says 3"):
        open_bundle(data + b"\n", TRUSTED, NAME)


@given(st.binary(max_size=200))
def test_anything_is_refused_in_words(data: bytes) -> None:
    """Whatever the bytes are, the answer is an error of ours."""
    for text in (data, b"extauthz-bundle/1\n" + data):
        with pytest.raises(BundleError):
            open_bundle(text, TRUSTED, NAME)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_manifest_is_refused_in_words(text: str) -> None:
    """Whatever was signed, only a manifest is one."""
    with pytest.raises(BundleError):
        open_bundle(signed(text.encode()), TRUSTED, NAME)


def test_another_key_does_not_count() -> None:
    """A signature of a key that is not trusted is none, however good it is."""
    with pytest.raises(BundleError, match=r"signed by `[0-9a-f]{16}`, and no such key is trusted here"):
        open_bundle(bundle(FILES, keys=(OTHER_KEY,)), TRUSTED)


def test_a_key_cannot_borrow_a_name() -> None:
    """A signature under the id of a trusted key has to be made with that key."""
    ours, theirs = key_id(KEY.public_key()).encode(), key_id(OTHER_KEY.public_key()).encode()
    forged = bundle(FILES, keys=(OTHER_KEY,)).replace(theirs, ours)
    with pytest.raises(BundleError, match=f"the signature of key `{ours.decode()}` is not good"):
        open_bundle(forged, TRUSTED)


def test_keys_can_be_rotated() -> None:
    """With two signatures, those who trust the old key and those who trust the new one are served."""
    data = bundle(FILES, keys=(KEY, OTHER_KEY))
    for key in (KEY, OTHER_KEY):
        assert open_bundle(data, by_id([key.public_key()])).signed_by == (key_id(key.public_key()),)
    assert set(key_ids(data)) == set(by_id([KEY.public_key(), OTHER_KEY.public_key()]))


def test_a_signature_for_something_else_does_not_fit() -> None:
    """What the key signed without the domain in front is no signature of a bundle."""
    with pytest.raises(BundleError, match="is not good"):
        open_bundle(signed(manifest(), domain=b""), TRUSTED)


def test_another_name_is_refused() -> None:
    """A bundle of staging is none of production, although the same key signed it."""
    with pytest.raises(BundleError, match="is one of `staging`, not of `expenses`"):
        open_bundle(bundle(FILES, name="staging"), TRUSTED, NAME)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": "1"},
        {"name": ""},
        {"name": "../x"},
        {"name": "a\n"},
        {"sequence": 0},
        {"sequence": -1},
        {"sequence": 1.5},
        {"sequence": True},
        {"sequence": 2**53},
        {"created": "yesterday"},
        {"created": 0},
        {"version": "\x1b[31m"},
        {"version": 1},
        {"more": 1},
        {"files": {}},
        {"files": [{}]},
        {"files": [entry("a.yaml", -1)]},
        {"files": [entry("a.yaml", True)]},
        {"files": [entry("a.yaml", 10**12)]},
        {"files": [entry("a.yaml", 0, "")]},
        {"files": [entry("a.yaml", 0, "A" * 64)]},
        {"files": [entry("b.yaml"), entry("a.yaml")]},
        {"files": [entry("a.yaml"), entry("a.yaml")]},
        {"files": [entry("")]},
        {"files": [entry("/etc/passwd")]},
        {"files": [entry("../a.yaml")]},
        {"files": [entry("a/../../b.yaml")]},
        {"files": [entry("a//b.yaml")]},
        {"files": [entry("./a.yaml")]},
        {"files": [entry("a\\b.yaml")]},
        {"files": [entry("a\x00.yaml")]},
        {"files": [entry("a\n.yaml")]},
        {"files": [entry("\u202ea.yaml")]},
        {"files": [entry("a" * 2000)]},
    ],
    ids=str,
)
def test_a_manifest_is_read_strictly(changes: dict[str, Any]) -> None:
    """Even what is signed has to be right in every part."""
    with pytest.raises(BundleError):
        open_bundle(signed(manifest(**changes)), TRUSTED)
    assert open_bundle(signed(manifest()), TRUSTED).files == {}


@pytest.mark.parametrize(
    "head",
    [
        b"extauthz-bundle/1\nmanifest 1\n",
        b"extauthz-bundle/1\n" + b"ed25519 0123456789abcdef " + b"A" * 86 + b"==\nmanifest 99999999999\n",
        b"extauthz-bundle/1\n" + (b"ed25519 0123456789abcdef " + b"A" * 86 + b"==\n") * 9 + b"manifest 1\n",
        b"extauthz-bundle/1\r\ned25519 0123456789abcdef " + b"A" * 86 + b"==\r\nmanifest 1\r\n",
    ],
)
def test_a_head_is_read_strictly(head: bytes) -> None:
    """No signature, a manifest without end, nine signatures and other line ends are no bundle."""
    with pytest.raises(BundleError, match="this is not a bundle"):
        open_bundle(head + b"{}", TRUSTED)


def test_a_later_format_is_told_apart() -> None:
    """Who is too old for a bundle is told so."""
    with pytest.raises(BundleError, match="a format that this version of extauthz does not know"):
        open_bundle(bundle(FILES).replace(b"bundle/1", b"bundle/2", 1), TRUSTED)


def test_nothing_is_parsed_before_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a good signature, no JSON is read and no file is looked at."""

    def never(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr("engine.storage.bundle.format.parse_manifest", never)
    monkeypatch.setattr("engine.storage.bundle.format.unpacked", never)
    data = bundle_with_other_signature()
    with pytest.raises(BundleError, match="no such key"):
        open_bundle(data, TRUSTED)


def bundle_with_other_signature() -> bytes:
    return signed(manifest()).replace(
        key_id(KEY.public_key()).encode(), key_id(OTHER_KEY.public_key()).encode()
    )


@pytest.mark.parametrize(
    "wrong",
    [{"name": "a b"}, {"sequence": 0}, {"version": "\n"}, {"contents": {"../a.yaml": b""}}, {"keys": ()}],
    ids=str,
)
def test_what_could_not_be_read_is_not_written(wrong: dict[str, Any]) -> None:
    """A bundle that readers would refuse is not made."""
    usual: dict[str, Any] = {
        "contents": FILES,
        "keys": (KEY,),
        "name": NAME,
        "sequence": 1,
        "created": datetime.datetime.now(datetime.UTC),
    }
    with pytest.raises(BundleError):
        write_bundle(**{**usual, **wrong})


# --- keys -------------------------------------------------------------------------------------------------


def test_keys_are_those_of_openssl(tmp_path: Path) -> None:
    """A key that OpenSSL made signs, and OpenSSL's own check of the signature says that it is good."""
    file = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", file], check=True)  # noqa: S603, S607 - the system's own
    key = private_key(file.read_bytes(), "it")
    data = bundle(FILES, keys=(key,))
    text = json.dumps(
        json.loads(unverified_manifest(data).document()), indent=1, sort_keys=True, ensure_ascii=False
    )
    (tmp_path / "signed").write_bytes(DOMAIN + text.encode() + b"\n")
    (tmp_path / "signature").write_bytes(base64.b64decode(data.split(b"\n")[1].split(b" ")[2]))
    (tmp_path / "public.pem").write_bytes(public_pem(key.public_key()))
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "public.pem",
        "-rawin",
        "-in",
        "signed",
        "-sigfile",
        "signature",
    ]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)  # noqa: S603 - the same
    assert "Signature Verified Successfully" in done.stdout


def test_public_keys_in_each_form(tmp_path: Path) -> None:
    """A file may hold several keys; text may be PEM or one line of base64."""
    file = tmp_path / "keys.pem"
    file.write_bytes(b"# ours\n" + public_pem(KEY.public_key()) + public_pem(OTHER_KEY.public_key()))
    both = by_id([KEY.public_key(), OTHER_KEY.public_key()])
    assert pinned([{"file": str(file)}]).keys() == both.keys()
    assert pinned([{"data": PUBLIC_KEY}, {"data": OTHER_PUBLIC_KEY}]).keys() == both.keys()
    assert pinned([{"data": public_pem(KEY.public_key()).decode()}]).keys() == TRUSTED.keys()


ANOTHER_KIND = ec.generate_private_key(ec.SECP256R1()).public_key()
EC_PEM = ANOTHER_KIND.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: pinned([]), "needs `publicKeys`"),
        (lambda: pinned([{"file": "/nowhere/key.pem"}]), "cannot read the public key `/nowhere/key.pem`"),
        (lambda: public_keys(b"", "it"), "it holds no public key"),
        (lambda: public_keys(b"%%%", "it"), "it holds no public key: it must be PEM, or base64"),
        (lambda: public_keys(b"AAAA", "it"), "it holds no public key"),
        (lambda: public_keys(private_pem(KEY), "it"), "it holds no public key"),
        (lambda: public_keys(EC_PEM, "it"), "it holds a key that is not of Ed25519"),
        (lambda: private_key(public_pem(KEY.public_key()), "it"), "it holds no private key"),
        (lambda: private_key(private_pem(KEY, b"secret"), "it"), "is encrypted: give its password"),
        (
            lambda: private_key(private_pem(KEY, b"secret"), "it", b"wrong"),
            "it holds no private key that can be read",
        ),
        (lambda: private_key(private_pem(KEY), "it", b"secret"), "is not encrypted"),
    ],
)
def test_keys_that_cannot_be_used(read: Callable[[], object], message: str) -> None:
    """What is no key, or one of another kind, is an error that says which."""
    with pytest.raises(StoreError, match=message) as raised:
        read()
    assert "secret" not in str(raised.value)


def test_an_encrypted_key_can_be_used() -> None:
    """With its password, it is a key like any other."""
    key = private_key(private_pem(KEY, b"secret"), "it", b"secret")
    assert key_id(key.public_key()) == key_id(KEY.public_key())
