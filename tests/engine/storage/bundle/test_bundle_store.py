"""What a store of bundles trusts, keeps and refuses."""

from __future__ import annotations

import datetime
import logging
from typing import TYPE_CHECKING, Any

import pytest

from engine import Engine, StoreError
from engine.storage import open_store
from engine.storage.bundle.last_good import RollbackError
from engine.storage.bundle.store import BundleStore
from tests.engine.storage.bundle.publisher import (
    CREATED,
    KEY,
    NAME,
    OTHER_KEY,
    OTHER_PUBLIC_KEY,
    PUBLIC_KEY,
    WebServer,
    bundle,
)
from tests.engine.storage.contract import allows, closed, policy

if TYPE_CHECKING:
    from pathlib import Path

    from engine.storage import Snapshot

PATH = "/expenses.bundle"
FILES = {"doc.yaml": policy()}


class Followed:
    """A web server with a bundle, and stores that follow it with one directory on disk."""

    def __init__(self, web: WebServer, ca: Path, cache: Path) -> None:
        self.web = web
        self.cache = cache
        self.settings: dict[str, Any] = {
            "url": f"{web.url}{PATH}",
            "name": NAME,
            "publicKeys": [{"data": PUBLIC_KEY}],
            "cacheDir": str(cache),
            "https": {"caCert": str(ca)},
        }

    def publish(self, data: bytes) -> None:
        """Put a bundle on the server."""
        self.web.files[PATH] = data

    def open(self, **settings: Any) -> BundleStore:
        """Start a store."""
        store = open_store("bundle", {**self.settings, **settings})
        assert isinstance(store, BundleStore)
        return store

    def start(self, **settings: Any) -> Snapshot:
        """Start a store, and return what it starts with."""
        with closed(self.open(**settings)) as store:
            return store.read()


@pytest.fixture
def followed(at_once: None, web: WebServer, certificate_files: tuple[Path, Path], tmp_path: Path) -> Followed:
    return Followed(web, certificate_files[0], tmp_path / "cache")


# --- the bundle on disk -----------------------------------------------------------------------------------


def test_a_start_without_the_source(followed: Followed) -> None:
    """The last good bundle on disk is used when the source is away at the start, and the store says so."""
    followed.publish(bundle(FILES, 3))
    followed.start()
    followed.web.stop()
    with closed(followed.open()) as store, Engine.from_store(store) as engine:
        assert allows(engine)
        assert engine.status.revision == "expenses#3"
        assert "cannot reach" in engine.notice
        assert engine.notice.endswith("; what was kept on disk is used")
        followed.web.start()
        assert engine.reload().ok
        assert engine.notice == ""


def test_the_bundle_on_disk_is_verified_again(followed: Followed) -> None:
    """Who can write to the disk puts nothing in force: what is there has to be signed, by a key of now."""
    followed.publish(bundle(FILES, 3))
    followed.start()
    (file,) = followed.cache.glob("*.bundle")
    good = file.read_bytes()
    followed.web.stop()
    for bad in (good[:-1], good.replace(b"read", b"edit"), bundle(FILES, 3, keys=(OTHER_KEY,)), b""):
        file.write_bytes(bad)
        with pytest.raises(StoreError, match="cannot reach"):
            followed.start()
    file.write_bytes(good)
    assert followed.start().revision == "expenses#3"
    with pytest.raises(StoreError, match="cannot reach"):
        followed.start(publicKeys=[{"data": OTHER_PUBLIC_KEY}])


def test_a_bad_bundle_at_the_start(followed: Followed) -> None:
    """When what the source offers may not be taken, the last good one is used; without one, nothing is."""
    bad = bundle(FILES, 4, keys=(OTHER_KEY,))
    followed.publish(bad)
    with pytest.raises(StoreError, match="no such key is trusted"):
        followed.start()
    assert list(followed.cache.glob("*.bundle")) == []
    followed.publish(bundle(FILES, 3))
    followed.start()
    followed.publish(bad)
    assert followed.start().revision == "expenses#3"


def test_a_directory_that_cannot_be_written(followed: Followed, tmp_path: Path) -> None:
    """Without a place for the last good bundle the start is refused: rollbacks could not be."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        StoreError, match=r"cannot write to `.*file/x`.*: set `cacheDir` to another directory"
    ):
        followed.open(cacheDir=str(tmp_path / "file" / "x"))


def test_what_cannot_be_kept_is_not_used(followed: Followed) -> None:
    """A bundle that cannot be kept on disk is not put in force; it is when it can be."""
    followed.publish(bundle(FILES, 1))
    with closed(followed.open()) as store:
        assert store.read().revision == "expenses#1"
        aside = followed.cache.with_name("aside")
        followed.cache.rename(aside)
        followed.publish(bundle(FILES, 2))
        for _ in range(2):
            with pytest.raises(StoreError, match="cannot keep the bundle"):
                store.read()
        aside.rename(followed.cache)
        assert store.read().revision == "expenses#2"


# --- rollbacks, freezes -----------------------------------------------------------------------------------


def test_an_older_bundle_is_refused(followed: Followed) -> None:
    """A lower sequence number is not taken, now and after a restart, nor downloaded again and again."""
    followed.publish(bundle(FILES, 5))
    with closed(followed.open()) as store:
        store.read()
        followed.publish(bundle(FILES, 4))
        for _ in range(3):
            with pytest.raises(RollbackError, match="offers bundle 4 of `expenses`, but 5 was in"):
                store.read()
        assert followed.web.answers == [200, 200, 304, 304]
        depths = []
        for _ in range(2):
            with pytest.raises(RollbackError) as raised:
                store.read()
            depths.append(len(raised.traceback))
        assert depths[0] == depths[1], "nothing piles up while a bundle is refused"
        followed.publish(bundle(FILES, 6))
        assert store.read().revision == "expenses#6"
    followed.publish(bundle(FILES, 5))
    assert followed.start().revision == "expenses#6"
    assert followed.start(allowRollback=True).revision == "expenses#5"
    assert followed.start().revision == "expenses#5"


def test_one_number_is_one_bundle(followed: Followed) -> None:
    """Another bundle with the same sequence number is refused, or replicas could differ without a trace."""
    followed.publish(bundle(FILES, 5))
    with closed(followed.open()) as store:
        before = store.read()
        followed.publish(bundle({}, 5))
        with pytest.raises(RollbackError, match="there are two bundles 5 of `expenses`"):
            store.read()
        followed.publish(bundle(FILES, 5, keys=(KEY, OTHER_KEY)))
        assert store.read() is before, "signed once more, but the same"


def test_processes_share_the_memory_of_numbers(followed: Followed) -> None:
    """What one worker has taken, another one does not go behind."""
    followed.publish(bundle(FILES, 5))
    with closed(followed.open()) as one, closed(followed.open()) as other:
        one.read()
        followed.publish(bundle(FILES, 6))
        other.read()
        followed.publish(bundle(FILES, 5))
        with pytest.raises(RollbackError):
            other.read()
        followed.publish(bundle({}, 5))
        with pytest.raises(RollbackError):
            one.read()


def test_an_old_bundle_is_told(followed: Followed) -> None:
    """With `maxAge`, a source that has stopped to move is noticed; without, any age is well."""
    followed.publish(bundle(FILES, 5))
    with closed(followed.open(maxAge=3600.0)) as store:
        store._now = lambda: CREATED + datetime.timedelta(minutes=59)
        store.read()
        assert store.notice() == ""
        store._now = lambda: CREATED + datetime.timedelta(hours=30)
        assert store.notice() == "the bundle was made 30.0 h ago, and `maxAge` is 1.0 h"
        followed.publish(bundle(FILES, 6, created=CREATED + datetime.timedelta(hours=30)))
        store.read()
        assert store.notice() == ""
    with closed(followed.open()) as store:
        store._now = lambda: CREATED + datetime.timedelta(days=3000)
        store.read()
        assert store.notice() == ""


# --- keys and names ---------------------------------------------------------------------------------------


def test_keys_can_be_rotated(followed: Followed) -> None:
    """With both keys pinned, bundles of either are taken, and the rollback memory goes on."""
    both = [{"data": PUBLIC_KEY}, {"data": OTHER_PUBLIC_KEY}]
    followed.publish(bundle(FILES, 5))
    assert followed.start(publicKeys=both).revision == "expenses#5"
    followed.publish(bundle(FILES, 6, keys=(OTHER_KEY,)))
    assert followed.start(publicKeys=both).revision == "expenses#6"
    assert followed.start(publicKeys=both[1:]).revision == "expenses#6"
    followed.publish(bundle(FILES, 5))
    assert followed.start(publicKeys=both).revision == "expenses#6"


def test_a_bundle_of_another_name_is_refused(followed: Followed) -> None:
    """Staging's bundle in production's place is refused."""
    followed.publish(bundle(FILES, name="staging"))
    with pytest.raises(StoreError, match="is one of `staging`, not of `expenses`"):
        followed.start()


# --- the web ----------------------------------------------------------------------------------------------


def test_what_is_known_is_not_downloaded_again(followed: Followed) -> None:
    """With ETags, an unchanged bundle costs a short answer; without, nothing is different but that."""
    followed.publish(bundle(FILES, 5))
    with closed(followed.open()) as store:
        before = store.read()
        assert store.read() is before
        assert followed.web.answers == [200, 304]
    followed.web.etags = False
    with closed(followed.open()) as store:
        before = store.read()
        assert store.read() is before
        assert followed.web.answers[2:] == [200, 200]


@pytest.mark.parametrize(
    ("access", "header"),
    [
        ({"bearerToken": "t0k3n"}, "Bearer t0k3n"),
        ({"username": "ann", "password": "s3cr3t"}, "Basic YW5uOnMzY3IzdA=="),
    ],
)
def test_the_server_is_told_who_asks(
    followed: Followed, access: dict[str, str], header: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A token or a password goes to the server, and into no message."""
    caplog.set_level(logging.DEBUG)
    followed.publish(bundle(FILES, 5))
    followed.web.authorization = header
    https = followed.settings["https"]
    assert followed.start(https={**https, **access}).revision == "expenses#5"
    followed.web.authorization = "something else"
    with (
        closed(followed.open(https={**https, **access}, cacheDir=f"{followed.cache}2")) as store,
        pytest.raises(StoreError, match="answers 401: the credentials do not suffice") as raised,
    ):
        store.read()
    told = str(raised.value) + caplog.text + repr(store.__dict__)
    assert not any(secret in told for secret in ("t0k3n", "s3cr3t", header))


def test_redirects(followed: Followed, certificate_files: tuple[Path, Path]) -> None:
    """They are followed, without the credentials to another origin, and never to an address without TLS."""
    other = WebServer(*certificate_files)
    try:
        other.files["/b"] = bundle(FILES, 5)
        followed.web.redirects[PATH] = f"{other.url}/b"
        followed.publish(b"")
        https = {**followed.settings["https"], "bearerToken": "t0k3n"}
        assert followed.start(https=https).revision == "expenses#5"
        assert followed.web.seen == [(PATH, "Bearer t0k3n")]
        assert other.seen == [("/b", "")]
        followed.web.redirects[PATH] = "http://policies.example.com/b"
        with (
            closed(followed.open(cacheDir=f"{followed.cache}2")) as store,
            pytest.raises(StoreError, match="must be an `https://` address"),
        ):
            store.read()
        followed.web.redirects[PATH] = f"{followed.web.url}{PATH}"
        with (
            closed(followed.open(cacheDir=f"{followed.cache}3")) as store,
            pytest.raises(StoreError, match="too many redirects"),
        ):
            store.read()
    finally:
        other.stop()


def test_a_server_that_nobody_vouches_for(followed: Followed) -> None:
    """A certificate of an unknown authority is refused."""
    followed.publish(bundle(FILES, 5))
    with pytest.raises(StoreError, match=r"cannot connect: .*certificate verify failed"):
        followed.start(https={})


def test_a_bundle_that_is_too_large(followed: Followed) -> None:
    """More than `maxBytes` is not taken in."""
    followed.publish(bundle({"a.yaml": bytes(5000)}, 5))
    with pytest.raises(StoreError, match="is larger than 4096 bytes"):
        followed.start(maxBytes=4096)


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uri": "x"}, "unknown setting `uri` of the bundle driver"),
        ({"url": ""}, "the bundle driver needs a `url`"),
        ({"name": ""}, "the bundle driver needs a `name`"),
        ({"publicKeys": []}, "needs `publicKeys`"),
        (
            {"url": "ftp://example.com/x", "https": None},
            "begins with `https://`, `oci://`, `s3://` or `gs://`",
        ),
        ({"url": "https:x"}, "begins with"),
        ({"url": "http://policies.example.com/x"}, "must be an `https://` address"),
        (
            {"url": "https://ann:s3cr3t@policies.example.com/x?t=s3cr3t"},
            "`https://policies.example.com/x`: user and",
        ),
        ({"url": "oci://registry.example.com", "https": None}, "must be like `oci://registry"),
        ({"url": "oci://registry.example.com/UPPER", "https": None}, "must be like `oci://registry"),
        (
            {"url": "oci://registry.example.com/a/b:main"},
            "`https` has no effect with a `url` that begins with `oci:`",
        ),
        ({"https": {"bearerToken": "a", "username": "b"}}, "not both"),
        ({"https": {"caCert": "/nowhere"}}, "cannot read the CA certificates `/nowhere`"),
        ({"url": "s3://bundles?region=x", "https": None}, "must name an object in `s3://bundles`"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(followed: Followed, settings: dict[str, Any], message: str) -> None:
    """Each is refused at once, in words without secrets."""
    with pytest.raises(StoreError, match=message) as raised:
        followed.open(**settings)
    assert "s3cr3t" not in str(raised.value)
