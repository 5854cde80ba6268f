"""One store over another one: real ones, whose places are taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine import Engine, StoreError
from engine.storage import open_store
from engine.storage.overlay import Breaker, OverlayStore
from tests.engine.storage.bundle.publisher import NAME, PUBLIC_KEY, WebServer, bundle, certificate
from tests.engine.storage.contract import (
    FilesContract,
    LookingContract,
    WatchedContract,
    actions,
    allows,
    closed,
    eventually,
    policy,
)
from tests.engine.storage.test_disk import Directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.storage import Store
    from tests.engine.storage.contract import Changer

PATH = "/expenses.bundle"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.storage.following.FIRST_DELAY", 0.01)


class Places:
    """A web server with a bundle, that lets everybody read, over a directory that lets everybody edit."""

    def __init__(self, directory: Path) -> None:
        cert, key = certificate(directory / "tls")
        self.web = WebServer(cert, key)
        self.sequence = 0
        self.files = directory / "policies"
        self.files.mkdir()
        self.publish("read")
        self.write("edit")
        self._directory = directory
        self.bundle = {
            "url": f"{self.web.url}{PATH}",
            "name": NAME,
            "publicKeys": [{"data": PUBLIC_KEY}],
            "updatePollInterval": 0.05,
            "https": {"caCert": str(cert)},
        }
        self._opened = 0

    def publish(self, action: str) -> None:
        """Let everybody do *action*, says the base."""
        self.sequence += 1
        files = {"doc.yaml": policy("doc", action), "base.yaml": policy("base")}
        self.web.files[PATH] = bundle(files, self.sequence)

    def write(self, action: str) -> None:
        """Let everybody do *action*, says the fallback."""
        (self.files / "doc.yaml").write_bytes(policy("doc", action))
        (self.files / "fallback.yaml").write_bytes(policy("fallback"))

    def open(self, **settings: Any) -> OverlayStore:
        """Open an overlay that knows nothing of earlier ones."""
        self._opened += 1
        drivers = {
            "bundle": {**self.bundle, "cacheDir": str(self._directory / f"cache{self._opened}")},
            "disk": {"directory": str(self.files), "watchForChanges": True},
        }
        usual = {"baseDriver": "bundle", "fallbackDriver": "disk", "drivers": drivers}
        store = open_store("overlay", {**usual, **settings})
        assert isinstance(store, OverlayStore)
        return store


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    found = Places(tmp_path)
    yield found
    found.web.stop()


# --- the breaker ------------------------------------------------------------------------------------------


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def is_open(breaker: Breaker) -> bool:
    return breaker.is_open


def asks_base(breaker: Breaker) -> bool:
    return breaker.asks_base


def test_failures_in_a_row_open_it(clock: Clock) -> None:
    """As many failures as the threshold, without a success in between, open it; then the base has a rest."""
    breaker = Breaker(3, 100, 60, clock)
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
        assert asks_base(breaker)
    breaker.failed()
    assert is_open(breaker)
    assert not asks_base(breaker)


def test_failures_of_long_ago_do_not_count(clock: Clock) -> None:
    """Only failures within the window are counted together."""
    breaker = Breaker(3, 100, 60, clock)
    for _ in range(10):
        breaker.failed()
        clock.now += 51
    assert not is_open(breaker)
    clock.now -= 40
    breaker.failed()
    assert is_open(breaker)


def test_the_base_is_tried_again(clock: Clock) -> None:
    """After a while the base may be asked once: a failure is a rest more, a success the end of it."""
    breaker = Breaker(1, 100, 60, clock)
    breaker.failed()
    clock.now += 60
    assert is_open(breaker)
    assert asks_base(breaker)
    breaker.failed()
    assert not asks_base(breaker)
    clock.now += 60
    breaker.succeeded()
    assert not is_open(breaker)


# --- which store is in force ------------------------------------------------------------------------------


def test_the_base_is_in_force(places: Places) -> None:
    """While the base can be read, the fallback has no say, and the revision tells whose the state is."""
    with closed(places.open()) as store:
        found = store.read()
        assert actions(found.files) == {"doc": "read", "base": "read"}
        assert found.revision == "bundle expenses#1"
        assert store.notice() == ""


def test_a_failing_base_is_a_failure_until_it_has_failed_often(places: Places) -> None:
    """Below the threshold what is in force stays; at the threshold the fallback is in force, as a whole."""
    with closed(places.open(fallbackErrorThreshold=3)) as store, Engine.from_store(store) as engine:
        places.web.stop()
        for _ in range(2):
            told = engine.reload()
            assert "cannot reach" in str(told.faults[0])
            assert allows(engine, "read")
            assert told.revision == "bundle expenses#1"
        assert engine.reload().ok
        assert (allows(engine, "read"), allows(engine, "edit")) == (False, True)
        assert (allows(engine, kind="base"), allows(engine, kind="fallback")) == (False, True)
        assert engine.status.revision == "disk"
        assert "the fallback `disk` is in force, as the base `bundle` fails: cannot" in engine.notice


def test_the_base_comes_back(places: Places) -> None:
    """When the base can be read again and its rest is over, it is in force with what is there now."""
    with closed(places.open(fallbackErrorThreshold=1)) as store:
        clock = Clock()
        store._breaker.clock = clock
        store.read()
        places.web.stop()
        assert store.read().revision == "disk"
        places.web.start()
        places.publish("approve")
        assert store.read().revision == "disk", "the base still rests"
        clock.now += 60
        found = store.read()
        assert found.revision == "bundle expenses#2"
        assert actions(found.files) == {"doc": "approve", "base": "read"}
        assert store.notice() == ""


def test_changes_of_the_fallback_count_while_it_is_in_force(places: Places) -> None:
    """The fallback is a store like any other: what changes in it is followed."""
    with (
        closed(places.open(fallbackErrorThreshold=1)) as store,
        Engine.from_store(store, watch=True) as engine,
    ):
        places.web.stop()
        eventually(lambda: allows(engine, "edit"))
        places.write("approve")
        eventually(lambda: allows(engine, "approve"))
        assert engine.status.revision == "disk"


def test_it_falls_back_and_returns_by_itself(places: Places) -> None:
    """Nobody has to do anything: a base that is away long enough is replaced until it is there again."""
    overlay = places.open(fallbackErrorThreshold=3, fallbackErrorWindow=1.5, baseRetryInterval=0.3)
    with closed(overlay) as store, Engine.from_store(store, watch=True) as engine:
        assert allows(engine, "read")
        places.web.stop()
        eventually(lambda: allows(engine, "edit"))
        places.web.start()
        places.publish("approve")
        eventually(lambda: allows(engine, "approve"))
        assert engine.status.revision == "bundle expenses#2"
        assert not allows(engine, kind="fallback")


# --- the start --------------------------------------------------------------------------------------------


def test_a_start_without_the_base(places: Places) -> None:
    """With the base down at the start, the fallback serves at once."""
    places.web.stop()
    with closed(places.open()) as store:
        assert actions(store.read().files) == {"doc": "edit", "fallback": "read"}
        assert "the fallback `disk` is in force" in store.notice()


def test_a_start_without_the_fallback(places: Places) -> None:
    """With the fallback down at the start, nobody misses it."""
    places.files.rename(places.files.with_name("away"))
    with closed(places.open()) as store:
        assert actions(store.read().files) == {"doc": "read", "base": "read"}
        assert store.notice() == ""


def test_a_start_without_either(places: Places) -> None:
    """With both down the start is refused, with both reasons."""
    places.web.stop()
    places.files.rename(places.files.with_name("away"))
    with (
        closed(places.open()) as store,
        pytest.raises(
            StoreError, match=r"base `bundle`: cannot reach .*; fallback `disk`: cannot read `.*policies`"
        ),
    ):
        store.read()


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "disk"}, "unknown setting `base` of the overlay driver"),
        ({"baseDriver": ""}, "needs a `baseDriver`"),
        ({"fallbackDriver": ""}, "needs a `fallbackDriver`"),
        ({"fallbackDriver": "bundle"}, "must be two drivers"),
        ({"fallbackDriver": "overlay"}, "must be two drivers, and no overlay"),
        ({"fallbackDriver": "dsk"}, "unknown storage driver `dsk`"),
        ({"drivers": {}}, "the bundle driver needs a `url`"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(places: Places, settings: dict[str, Any], message: str) -> None:
    """Each is refused at once, those of the two drivers too."""
    with pytest.raises(StoreError, match=message):
        places.open(**settings)


# --- the contract -----------------------------------------------------------------------------------------


class BaseDirectory(Directory):
    """A directory over one that is never there."""

    def open(self) -> Store:  # type: ignore[override]  # another kind of store of the same directory
        """Open an overlay whose fallback has nothing to give."""
        drivers = {
            "disk": {"directory": str(self.root)},
            "sqlite3": {"dsn": f"file:{self.root.parent / 'nowhere' / 'x.sqlite'}?mode=ro"},
        }
        return open_store("overlay", {"baseDriver": "disk", "fallbackDriver": "sqlite3", "drivers": drivers})


class TestOverlayStore(FilesContract, WatchedContract, LookingContract):
    """The overlay store keeps the contract of all stores when its base does."""

    has_revision = True
    unreachable = r"base `disk`: cannot read `.*policies`.*; fallback `sqlite3`: "

    def test_revision(self, store: Store, changer: Changer) -> None:
        """The revision says whose the state is, here of a store that has no names for its states."""
        changer.put("a.yaml", policy("a"))
        assert store.read().revision == "disk"

    @pytest.fixture
    def changer(self, tmp_path: Path) -> BaseDirectory:
        root = tmp_path / "policies"
        root.mkdir()
        return BaseDirectory(root)

    @pytest.fixture
    def store(self, changer: BaseDirectory) -> Iterator[Store]:
        store = changer.open()
        yield store
        store.close()
