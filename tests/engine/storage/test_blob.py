"""Policies in buckets: of a real server that speaks S3, and of an emulator of Google Cloud Storage."""

from __future__ import annotations

import itertools
import json
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import httpx
import obstore
import pytest
from obstore.store import S3Store

from engine import Engine, StoreError
from engine.document import MAX_BYTES
from engine.storage import Store, open_store
from engine.storage.blob import BlobStore
from tests.engine.storage.bundle.publisher import NAME, PUBLIC_KEY, bundle
from tests.engine.storage.contract import (
    Changer,
    FilesContract,
    LookingContract,
    RetryingContract,
    WatchedContract,
    actions,
    allows,
    closed,
    eventually,
    policy,
    reading,
)
from tests.engine.storage.peers import binary
from tests.engine.storage.processes import ServerProcess, required

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from engine.storage.bucket import Listed

BUCKET = "policies"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret-key"}


class BucketChanger:
    """Changes objects, and lets the server go away."""

    def __init__(self, server: ServerProcess, settings: dict[str, Any], directory: Path) -> None:
        self.server = server
        self.settings = settings
        self.directory = directory
        self._opened = 0

    def put(self, path: str, content: bytes) -> None:
        """Upload an object."""
        raise NotImplementedError

    def remove(self, path: str) -> None:
        """Delete an object."""
        raise NotImplementedError

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Upload objects one after the other: a bucket knows no other way."""
        for path, content in contents.items():
            self.put(path, content)

    def open(self, **settings: Any) -> Store:
        """Open a store that knows nothing of earlier ones."""
        self._opened += 1
        work = str(self.directory / f"work{self._opened}")
        return open_store("blob", {**self.settings, "workDir": work, **settings})

    def go_away(self) -> None:
        """Stop the server."""
        self.server.stop()

    def come_back(self) -> None:
        """Start it again."""
        self.server.start()


class S3Changer(BucketChanger):
    """A bucket of an S3 server."""

    def __init__(self, server: ServerProcess, settings: dict[str, Any], directory: Path) -> None:
        super().__init__(server, settings, directory)
        self.client = S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{server.port}",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            region="us-east-1",
        )

    def put(self, path: str, content: bytes) -> None:
        """Upload an object."""
        obstore.put(self.client, f"team/{path}", content)

    def remove(self, path: str) -> None:
        """Delete an object."""
        obstore.delete(self.client, f"team/{path}")


@pytest.fixture
def changer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Changer]:
    program = required(binary("versitygw"))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "s3"
    (root / BUCKET).mkdir(parents=True)
    server = ServerProcess(
        lambda port: [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(root)],
        tmp_path / "versitygw.log",
        {
            "ROOT_ACCESS_KEY": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "ROOT_SECRET_KEY": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        },
    )
    options = f"region=us-east-1&endpoint=127.0.0.1:{server.port}&use_path_style=true&disable_https=true"
    settings = {
        "bucket": f"s3://{BUCKET}?{options}",
        "prefix": "team",
        "updatePollInterval": 0.1,
    }
    yield S3Changer(server, settings, tmp_path)
    server.stop()


@pytest.fixture
def store(changer: S3Changer) -> Iterator[Store]:
    store = changer.open()
    yield store
    store.close()


class TestBlobStore(FilesContract, WatchedContract, LookingContract, RetryingContract):
    """The blob store keeps the contract of all stores, but for what no bucket can do."""

    unreachable = r"`s3://policies` cannot be reached: Connection refused"

    def test_each_state_is_a_whole_one(self, store: Store, changer: Changer) -> None:
        """A bucket changes object by object: readers get a state that it was in between two changes."""
        kinds = [f"kind{number}" for number in range(8)]

        def change(number: int) -> None:
            changer.together({f"{kind}.yaml": policy(kind, f"state{number}") for kind in kinds})

        change(0)
        with reading(store) as read:
            for number in range(1, 12):
                change(number)
                seen = len(read)
                eventually(lambda seen=seen: len(read) > seen)  # type: ignore[misc]  # bound to this round
            eventually(lambda: set(read[-1].values()) == {"state11"})
        for state in read:
            numbers = [int(state[kind].removeprefix("state")) for kind in kinds]
            assert numbers == sorted(numbers, reverse=True), "objects were uploaded in this order"
            assert numbers[0] - numbers[-1] <= 1


# --- what is downloaded, what is kept ---------------------------------------------------------------------


class Downloads:
    """Counts what a store asks a bucket for."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        assert isinstance(store, BlobStore)
        self.paths: list[str] = []
        self.instead: dict[str, Callable[[], object]] = {}
        """What happens just before an object is read."""
        bucket = store._bucket
        read = bucket.read

        def counted(path: str, etag: str, max_bytes: int) -> bytes:
            self.paths.append(path)
            self.instead.pop(path, lambda: None)()
            return read(path, etag, max_bytes)

        monkeypatch.setattr(bucket, "read", counted)


def test_only_changed_objects_are_downloaded(changer: S3Changer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has its ETag of before is not asked for again, nor by the next process with the same `workDir`."""
    changer.together({f"{number}.yaml": policy(f"kind{number}") for number in range(5)})
    changer.put("notes.txt", b"not looked at")
    settings = {"workDir": str(changer.directory / "shared")}
    with closed(changer.open(**settings)) as store:
        downloads = Downloads(store, monkeypatch)
        store.read()
        assert sorted(downloads.paths) == [f"{number}.yaml" for number in range(5)]
        changer.put("3.yaml", policy("kind3", "edit"))
        store.read()
        store.read()
        assert downloads.paths[5:] == ["3.yaml"]
    changer.put("4.yaml", policy("kind4", "edit"))
    with closed(changer.open(**settings)) as store:
        downloads = Downloads(store, monkeypatch)
        assert len(store.read().files) == 5
        assert downloads.paths == ["4.yaml"]


def test_an_object_that_changes_while_it_is_read(changer: S3Changer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an object is another one than was listed, or is gone, the bucket is listed again."""
    changer.together({"a.yaml": policy("a"), "b.yaml": policy("b"), "c.yaml": policy("c")})
    with closed(changer.open()) as store:
        downloads = Downloads(store, monkeypatch)
        downloads.instead["a.yaml"] = lambda: changer.put("a.yaml", policy("a", "edit"))
        downloads.instead["b.yaml"] = lambda: changer.remove("b.yaml")
        assert actions(store.read().files) == {"a": "edit", "c": "read"}


def test_a_change_after_the_listing_is_seen(changer: S3Changer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that comes while others are downloaded belongs to the state: without it there was none."""
    changer.put("a.yaml", policy("a"))
    with closed(changer.open()) as store:
        downloads = Downloads(store, monkeypatch)
        downloads.instead["a.yaml"] = lambda: changer.put("b.yaml", policy("b"))
        assert actions(store.read().files) == {"a": "read", "b": "read"}


def test_a_bucket_that_never_rests(changer: S3Changer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is different each time is given up after some listings."""
    changer.put("a.yaml", policy("a"))
    with closed(changer.open()) as store:
        assert isinstance(store, BlobStore)
        listing = store._bucket.listing
        numbers = itertools.count()

        def moving() -> Iterator[Listed]:
            changer.put(f"new{next(numbers)}.yaml", policy("b"))
            return listing()

        monkeypatch.setattr(store._bucket, "listing", moving)
        monkeypatch.setattr("engine.storage.blob.PAUSE", 0.001)
        with pytest.raises(StoreError, match="`s3://policies` keeps changing while it is read"):
            store.read()


def test_a_start_without_the_bucket(changer: S3Changer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last whole state in `workDir` is used when the bucket does not answer at the start; it is said."""
    changer.put("doc.yaml", policy())
    settings = {"workDir": str(changer.directory / "shared")}
    with closed(changer.open(**settings)) as store:
        store.read()
    changer.go_away()
    with closed(changer.open(**settings)) as store, Engine.from_store(store) as engine:
        assert allows(engine)
        assert engine.notice.startswith("`s3://policies` cannot be reached: ")
        assert engine.notice.endswith("; what was kept on disk is used")
        changer.come_back()
        downloads = Downloads(store, monkeypatch)
        assert engine.reload().ok
        assert engine.notice == ""
        assert downloads.paths == [], "what was kept is not asked for again"
    changer.go_away()
    with closed(changer.open(**settings, startFromWorkDir=False)) as store, pytest.raises(StoreError):
        store.read()
    with closed(changer.open(**settings, prefix="other")) as store, pytest.raises(StoreError):
        store.read()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data.replace(b"read", b"edit"), lambda _: b""]
)
def test_a_damaged_state_is_not_used(changer: S3Changer, damage: Callable[[bytes], bytes]) -> None:
    """What is in `workDir` is used as it was written, or not at all."""
    changer.put("doc.yaml", policy())
    settings = {"workDir": str(changer.directory / "shared")}
    with closed(changer.open(**settings)) as store:
        store.read()
    (file,) = (changer.directory / "shared").glob("*.state")
    file.write_bytes(damage(file.read_bytes()))
    with closed(changer.open(**settings)) as store:
        assert actions(store.read().files) == {"doc": "read"}
    changer.go_away()
    file.write_bytes(damage(file.read_bytes()))
    with closed(changer.open(**settings)) as store, pytest.raises(StoreError):
        store.read()


# --- no, and no answer ------------------------------------------------------------------------------------


def test_a_refusal_is_believed(changer: S3Changer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that answers and refuses is not away: what is kept is not used, and no secret is told."""
    changer.put("doc.yaml", policy())
    settings = {"workDir": str(changer.directory / "shared")}
    with closed(changer.open(**settings)) as store:
        store.read()
    gone = changer.settings["bucket"].replace("s3://policies", "s3://nowhere")
    with (
        closed(changer.open(**settings, bucket=gone)) as store,
        pytest.raises(StoreError, match="`s3://nowhere` cannot be listed: it answers 404 NoSuchBucket"),
    ):
        store.read()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wr0ng-secret")
    with (
        closed(changer.open(**settings)) as store,
        pytest.raises(StoreError, match="cannot be listed: it answers 403 SignatureDoesNotMatch") as raised,
    ):
        store.read()
    assert "wr0ng" not in str(raised.value)
    assert "AKIA" not in str(raised.value)


def test_a_server_that_hangs_is_given_up(changer: S3Changer) -> None:
    """No answer within `requestTimeout` is no answer."""
    changer.put("doc.yaml", policy())
    changer.server.pause()
    began = time.monotonic()
    with (
        closed(changer.open(requestTimeout=0.3)) as store,
        pytest.raises(StoreError, match="cannot be reached"),
    ):
        store.read()
    assert time.monotonic() - began < 20


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bukket": "x"}, "unknown setting `bukket` of the blob driver"),
        ({"bucket": ""}, "the blob driver needs a `bucket`"),
        ({"bucket": "policies"}, "the `bucket` must be like `s3://name"),
        ({"bucket": "azblob://policies"}, "the `bucket` must be like `s3://name"),
        ({"bucket": "s3://policies/team"}, "what is behind it is the `prefix`"),
        ({"bucket": "s3://policies?regoin=x"}, "unknown option `regoin` in the `bucket`"),
        (
            {"bucket": "gs://policies", "prefix": "a/../b"},
            "the `prefix` of the blob driver is absolute, or has",
        ),
        ({"bucket": "gs://policies?region=x"}, "unknown option `region` in the `bucket`"),
        (
            {"bucket": "s3://policies?use_path_style=maybe"},
            "the option `use_path_style` in the `bucket` must be",
        ),
        ({"bucket": "s3://policies?endpoint=ftp://x"}, "the `endpoint` of `s3://policies` must be a host"),
        ({"bucket": "s3://k3y:s3cr3t@policies"}, "the `bucket` must be like"),
        ({"bucket": "s3://policies?region=x", "caCert": "/nowhere"}, "cannot read the CA certificates"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """Each is refused at once."""
    with pytest.raises(StoreError, match=message) as raised:
        open_store("blob", {"workDir": str(tmp_path), **settings})
    assert "s3cr3t" not in str(raised.value)


# --- Google -----------------------------------------------------------------------------------------------


class GoogleChanger(BucketChanger):
    """A bucket of the emulator."""

    client = httpx.Client(trust_env=False, verify=False)  # noqa: S501 - there is no TLS

    def put(self, path: str, content: bytes) -> None:
        """Upload an object."""
        self.upload(f"team/{path}", content)

    def upload(self, name: str, content: bytes) -> None:
        """Upload an object of any name."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        self.ask("POST", f"/upload/storage/v1/b/{BUCKET}/o?{query}", content)

    def remove(self, path: str) -> None:
        """Delete an object."""
        name = urllib.parse.quote(f"team/{path}", safe="")
        self.ask("DELETE", f"/storage/v1/b/{BUCKET}/o/{name}")

    def ask(self, method: str, path: str, body: bytes | None = None) -> None:
        """Speak Google's JSON API, which the store does not."""
        response = self.client.request(method, f"http://127.0.0.1:{self.server.port}{path}", content=body)
        assert response.is_success, response.text


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleChanger]:
    program = required(binary("fake-gcs-server"))
    root = tmp_path / "gcs"
    root.mkdir()
    server = ServerProcess(
        lambda port: [
            *(program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
            *("-backend", "filesystem", "-filesystem-root", str(root), "-public-host", f"127.0.0.1:{port}"),
        ],
        tmp_path / "gcs.log",
    )
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{server.port}")
    settings = {"bucket": f"gs://{BUCKET}", "prefix": "team", "updatePollInterval": 0.1}
    changer = GoogleChanger(server, settings, tmp_path)
    changer.ask("POST", "/storage/v1/b?project=test", json.dumps({"name": BUCKET}).encode())
    yield changer
    server.stop()


class TestBlobStoreOfGoogle(FilesContract, WatchedContract, LookingContract, RetryingContract):
    """The blob store keeps the contract with Google Cloud Storage too."""

    unreachable = r"`gs://policies` cannot be reached: Connection refused"

    @pytest.fixture
    def changer(self, google: GoogleChanger) -> GoogleChanger:
        return google

    @pytest.fixture
    def store(self, google: GoogleChanger) -> Iterator[Store]:
        with closed(google.open()) as store:
            yield store

    @pytest.fixture(autouse=True)
    def _hundreds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Thousands are for S3: the emulator takes some milliseconds for an object."""
        monkeypatch.setattr("tests.engine.storage.contract.THOUSANDS", 300)

    def test_each_state_is_a_whole_one(self, store: Store, changer: Changer) -> None:
        """What the driver does for that is tested with S3; here a state is what was uploaded last."""
        changer.together({"a.yaml": policy("a"), "b.yaml": policy("b")})
        assert actions(store.read().files) == {"a": "read", "b": "read"}


@pytest.fixture
def any_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleChanger]:
    """Give a bucket that takes objects of any name, as Google's does."""
    program = required(binary("fake-gcs-server"))
    server = ServerProcess(
        lambda port: [
            *(program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
            *("-backend", "memory", "-public-host", f"127.0.0.1:{port}"),
        ],
        tmp_path / "gcs.log",
    )
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{server.port}")
    changer = GoogleChanger(server, {"bucket": f"gs://{BUCKET}", "prefix": "team"}, tmp_path)
    changer.ask("POST", "/storage/v1/b?project=test", json.dumps({"name": BUCKET}).encode())
    changer.put("doc.yaml", policy())
    yield changer
    server.stop()


@pytest.mark.parametrize(
    "name",
    [
        "team/../evil.yaml",
        "team//etc/evil.yaml",
        "team/./evil.yaml",
        "team/a\\..\\evil.yaml",
        "team/evil\x00.yaml",
        "team/evil\n.yaml",
        "team/evil\u202e.yaml",
    ],
    ids=ascii,
)
def test_hostile_names_are_refused(any_names: GoogleChanger, name: str) -> None:
    """An object with a name that is no plain path puts nothing in force: a fault, or no state at all."""
    with closed(any_names.open()) as store, Engine.from_store(store) as engine:
        any_names.upload(name, policy("evil"))
        any_names.put("doc.yaml", policy("doc", "edit"))
        told = engine.reload()
        assert not told.ok
        assert str(told.faults[0]).isprintable()
        assert allows(engine)
        assert not allows(engine, kind="evil")


def test_an_object_that_is_too_large(any_names: GoogleChanger) -> None:
    """A policy larger than any may be is a fault, and is not downloaded."""
    any_names.put("huge.yaml", bytes(MAX_BYTES + 1))
    with closed(any_names.open()) as store:
        (fault,) = store.read().faults
    assert str(fault) == f"huge.yaml: the object is larger than {MAX_BYTES} bytes"


def test_too_many_objects(any_names: GoogleChanger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix with more objects than a tree of policies can have is refused."""
    monkeypatch.setattr("engine.storage.bucket.MAX_OBJECTS", 3)
    for number in range(3):
        any_names.put(f"{number}.txt", b"")
    with (
        closed(any_names.open()) as store,
        pytest.raises(StoreError, match="has more than 3 objects to look at"),
    ):
        store.read()


def test_too_much_in_all(any_names: GoogleChanger, monkeypatch: pytest.MonkeyPatch) -> None:
    """All policies together have a limit too."""
    monkeypatch.setattr("engine.storage.blob.MAX_TOTAL", 100)
    with (
        closed(any_names.open()) as store,
        pytest.raises(StoreError, match="bytes, more than 100"),
    ):
        store.read()


# --- bundles in buckets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_bundle_in_a_bucket(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A bundle may be an object, and is downloaded when it is another one."""
    changer: BucketChanger = request.getfixturevalue("changer" if kind == "s3" else "any_names")
    query = urllib.parse.urlsplit(changer.settings["bucket"]).query
    settings = {
        "url": f"{kind}://{BUCKET}/team/expenses.bundle?{query}",
        "name": NAME,
        "publicKeys": [{"data": PUBLIC_KEY}],
        "cacheDir": str(tmp_path / "cache"),
    }
    with closed(open_store("bundle", settings)) as store:
        with pytest.raises(StoreError):
            store.read()
        changer.put("expenses.bundle", bundle({"doc.yaml": policy()}, 1))
        before = store.read()
        assert before.revision == "expenses#1"
        assert store.read() is before
        changer.put("expenses.bundle", bundle({"doc.yaml": policy()}, 2))
        assert store.read().revision == "expenses#2"
