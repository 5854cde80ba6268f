"""Policies in a directory."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from engine.document import MAX_BYTES
from engine.storage import Snapshot, StoreError, open_store
from engine.storage.disk import DiskStore, contents
from tests.engine.storage.contract import POLICY, Calls, FilesContract, WatchedContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Directory:
    """Changes the files of a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._states = 0

    def put(self, path: str, content: bytes) -> None:
        """Write a file."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def remove(self, path: str) -> None:
        """Delete a file."""
        (self.root / path).unlink()

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Do as Kubernetes does: links to files in a folder that is itself a link, which is replaced."""
        self._states += 1
        state = self.root / f"..{self._states}"
        state.mkdir()
        for name, content in contents.items():
            (state / name).write_bytes(content)
        new = self.root / "..new"
        new.symlink_to(state.name)
        new.replace(self.root / "..data")
        for name in contents:
            if not (self.root / name).is_symlink():
                (self.root / name).unlink(missing_ok=True)
                (self.root / name).symlink_to(f"..data/{name}")

    def open(self) -> DiskStore:
        """Open the directory once more."""
        return DiskStore(self.root)

    def go_away(self) -> None:
        """Move the directory away."""
        self.root.rename(self.root.with_name("away"))

    def come_back(self) -> None:
        """Move it back."""
        self.root.with_name("away").rename(self.root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "policies"
    root.mkdir()
    return root


@pytest.fixture
def changer(root: Path) -> Directory:
    return Directory(root)


@pytest.fixture
def store(root: Path) -> Iterator[DiskStore]:
    store = DiskStore(root)
    yield store
    store.close()


class TestDiskStore(FilesContract, WatchedContract):
    """The disk store keeps the contract of all stores."""

    unreachable = r"cannot read `.*policies`: No such file or directory"


def test_small_files_take_little_memory(store: DiskStore, changer: Directory) -> None:
    """What is read is not held in a mapping of its own for each file: a page, and there are not many."""
    for number in range(500):
        changer.put(f"{number}.yaml", POLICY)
    before = mappings()
    assert len(store.read().files) == 500
    assert mappings() < before + 100


def mappings() -> int:
    """Return how many mappings of memory this process has."""
    return Path("/proc/self/maps").read_text().count("\n")


def test_a_file_that_has_grown_is_read_as_a_whole(tmp_path: Path) -> None:
    """The size that a file was said to have is where reading starts from, not where it ends."""
    file = tmp_path / "a.yaml"
    file.write_bytes(POLICY)
    assert contents(file, 0) == contents(file, len(POLICY) - 1) == contents(file, 2 * len(POLICY)) == POLICY
    file.write_bytes(bytes(MAX_BYTES + 2))
    assert len(contents(file, MAX_BYTES + 2)) == MAX_BYTES + 1


def test_what_is_as_before_is_the_same_object(store: DiskStore, changer: Directory) -> None:
    """A reading that finds nothing new hands out the mapping of the one before; not when a file is new."""
    changer.put("a.yaml", POLICY)
    changer.put("b.yaml", POLICY)
    changer.put("_schemas/a.json", b"{}")
    first = store.read()
    changer.put("b.yaml", POLICY)
    second = store.read()
    assert second.files is first.files
    assert second.schemas is first.schemas
    changer.put("c.yaml", POLICY)
    assert [*store.read().files] == ["a.yaml", "b.yaml", "c.yaml"]
    changer.remove("c.yaml")
    assert store.read() == first


def test_a_file_being_written_is_waited_for(store: DiskStore, changer: Directory) -> None:
    """A file that is written in steps is read when the steps are over."""
    changer.put("a.yaml", POLICY)
    store.read()
    steps = [POLICY[:n] for n in range(10, len(POLICY), 10)] + [POLICY.replace(b"doc", b"new")]

    def write_slowly() -> None:
        for step in steps:
            changer.put("a.yaml", step)
            time.sleep(0.01)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    time.sleep(0.03)
    found = store.read().files["a.yaml"]
    thread.join()
    assert found == steps[-1]


def test_a_file_that_was_emptied_is_given_time(store: DiskStore, changer: Directory) -> None:
    """Editors empty a file before they fill it; the moment in between is not a state."""
    changer.put("a.yaml", POLICY)
    store.read()
    changer.put("a.yaml", b"")
    timer = threading.Timer(0.2, lambda: changer.put("a.yaml", POLICY + b"# more\n"))
    timer.start()
    assert store.read().files["a.yaml"] == POLICY + b"# more\n"
    timer.join()


def test_a_file_that_stays_empty_is_empty(store: DiskStore, changer: Directory) -> None:
    """After a while an empty file is what it is."""
    changer.put("a.yaml", POLICY)
    store.read()
    changer.put("a.yaml", b"")
    assert store.read().files["a.yaml"] == b""


def test_a_directory_that_never_rests_is_an_error(
    store: DiskStore, changer: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When changes do not end, there is no state to hand out."""
    monkeypatch.setattr("engine.storage.disk.PATIENCE", 3)
    changer.put("a.yaml", POLICY)
    store.read()
    future = time.time_ns() + 10**6
    monkeypatch.setattr("engine.storage.disk.time.time_ns", lambda: future)
    changer.put("a.yaml", POLICY + b"#")
    with pytest.raises(StoreError, match="keeps changing"):
        store.read()


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """The message names the directory and the reason."""
    with pytest.raises(StoreError, match=r"cannot read `.*gone`: No such file or directory"):
        DiskStore(tmp_path / "gone").read()


def test_links_to_files_are_followed_and_links_to_directories_are_not(root: Path, changer: Directory) -> None:
    """So that a Kubernetes ConfigMap, which is links into a hidden directory, is read once."""
    changer.put("..2026/a.yaml", POLICY)
    (root / "..data").symlink_to("..2026")
    (root / "a.yaml").symlink_to("..data/a.yaml")
    (root / "dir.yaml").symlink_to("..2026")
    (root / "loop").symlink_to(".")
    store = DiskStore(root)
    assert dict(store.read().files) == {"a.yaml": POLICY}
    changer.put("..2027/a.yaml", POLICY + b"#")
    (root / "..tmp").symlink_to("..2027")
    (root / "..tmp").rename(root / "..data")
    assert dict(store.read().files) == {"a.yaml": POLICY + b"#"}


def test_what_is_no_file_is_left_out(root: Path, store: DiskStore) -> None:
    """A named pipe with a policy's name would block the reader for ever."""
    os.mkfifo(root / "pipe.yaml")
    (root / "folder.yaml").mkdir()
    assert dict(store.read().files) == {}


def test_schemas_may_be_a_link_to_a_directory(root: Path, store: DiskStore) -> None:
    """In a Kubernetes volume every folder is a link; schemas are found behind the one that holds them."""
    (root / "..2026" / "_schemas").mkdir(parents=True)
    (root / "..2026" / "_schemas" / "expense.json").write_text("{}")
    (root / "..data").symlink_to("..2026")
    (root / "_schemas").symlink_to("..data/_schemas")
    (root / "..2026" / "_schemas" / "_schemas").symlink_to("..")  # leads round in circles
    assert dict(store.read().schemas) == {"_schemas/expense.json": b"{}"}


def test_a_dangling_link_is_an_error(root: Path, store: DiskStore) -> None:
    """A policy that is named but is not there is not silently left out."""
    (root / "a.yaml").symlink_to("nowhere.yaml")
    with pytest.raises(StoreError, match=r"a\.yaml"):
        store.read()


def test_a_replaced_directory_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another directory takes the place of the watched one, its changes are noticed."""
    monkeypatch.setattr("engine.storage.disk.LOOK_AROUND", 0.3)
    root = tmp_path / "policies"
    root.mkdir()
    calls = Calls()
    store = DiskStore(root)
    store.watch(calls)
    time.sleep(0.5)
    root.rename(tmp_path / "old")
    root.mkdir()
    before = calls.count
    calls.wait_for_more_than(before)
    time.sleep(1)
    before = calls.count
    (root / "a.yaml").write_bytes(POLICY)
    calls.wait_for_more_than(before)
    assert store.read().files["a.yaml"] == POLICY
    store.close()


def test_settings(tmp_path: Path) -> None:
    """The driver takes Cerbos's settings, and no others."""
    store = open_store("disk", {"directory": str(tmp_path), "watchForChanges": True})
    assert dict(store.read().files) == {}
    with pytest.raises(StoreError, match="needs a `directory`"):
        open_store("disk", {})
    with pytest.raises(StoreError, match="unknown setting `dir`"):
        open_store("disk", {"dir": "x"})
    with pytest.raises(StoreError, match=r"unknown storage driver `dsk` .*did you mean `disk`"):
        open_store("dsk", {})


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Follower:
    """Reads a watched store whenever it says that something may have changed."""

    def __init__(self, store: DiskStore) -> None:
        self.store = store
        self.seen: Snapshot | None = None
        self.error: StoreError | None = None
        self.readings = 0

    def __call__(self) -> None:
        try:
            self.seen = self.store.read()
        except StoreError as error:
            self.error = error
        self.readings += 1

    def sees(self, expected: Snapshot, seconds: float = 20.0) -> bool:
        """Wait until the state is as *expected*, order and all."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen = self.seen
            if seen == expected and seen is not None and list(seen.files) == list(expected.files):
                return True
            time.sleep(0.01)
        return False


def _replace(folder: Path, path: Path) -> None:
    """Write beside the file and move it there, as editors do."""
    beside = path.with_name(f".{path.name}.swp")
    beside.write_bytes(POLICY + b"# moved\n")
    beside.rename(path)


def _add_folder(folder: Path, path: Path) -> None:
    made = folder / f"more{len(list(folder.iterdir()))}"
    made.mkdir()
    (made / "b.yaml").write_bytes(POLICY)


def _remove_folder(folder: Path, path: Path) -> None:
    for each in folder.glob("more*"):
        shutil.rmtree(each)


def _link(folder: Path, path: Path) -> None:
    (folder / ".hidden").mkdir(exist_ok=True)
    (folder / ".hidden/real.yaml").write_bytes(POLICY)
    if not (folder / "linked.yaml").is_symlink():
        (folder / "linked.yaml").symlink_to(folder / ".hidden/real.yaml")


def _change_what_a_link_leads_to(folder: Path, path: Path) -> None:
    _link(folder, path)
    (folder / ".hidden/real.yaml").write_bytes(POLICY + os.urandom(8).hex().encode())


EDITS: tuple[Callable[[Path, Path], object], ...] = (
    lambda folder, path: path.write_bytes(POLICY + os.urandom(8).hex().encode()),
    lambda folder, path: path.write_bytes(POLICY + b"# the same\n"),
    lambda folder, path: path.unlink(missing_ok=True),
    lambda folder, path: (folder / "notes.txt").write_bytes(os.urandom(8)),
    lambda folder, path: (folder / "_schemas/person.json").write_bytes(os.urandom(8)),
    _replace,
    _add_folder,
    _remove_folder,
    _link,
    _change_what_a_link_leads_to,
)


@pytest.mark.parametrize("seed", range(3))
def test_who_follows_a_directory_sees_what_a_newcomer_would(tmp_path: Path, seed: int) -> None:
    """After any change, the state of a watched store is that of one that looks for the first time."""
    (tmp_path / "_schemas").mkdir()
    (tmp_path / "deep").mkdir()
    paths = [tmp_path / name for name in ("a.yaml", "deep/b.yaml", "deep/c.json")]
    for path in paths:
        path.write_bytes(POLICY)
    random = Random(seed)  # noqa: S311 - for variety
    store = DiskStore(tmp_path)
    follower = Follower(store)
    follower()
    store.watch(follower)
    try:
        for _ in range(12):
            random.choice(EDITS)(tmp_path, random.choice(paths))
            if not follower.sees(DiskStore(tmp_path).read()):
                assert follower.seen == DiskStore(tmp_path).read()
    finally:
        store.close()
    assert follower.error is None


def _lists(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that grows whenever the whole directory is gone through."""
    times: list[None] = []
    whole = store._list

    def noting() -> Any:
        times.append(None)
        return whole()

    monkeypatch.setattr(store, "_list", noting)
    return times


def test_a_written_file_is_looked_at_alone_and_all_files_when_there_is_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reading after a change does not go through the directory; one follows that does."""
    monkeypatch.setattr("engine.storage.disk.LOOK_AROUND", 1.0)
    (tmp_path / "a.yaml").write_bytes(POLICY)
    store = DiskStore(tmp_path)
    follower = Follower(store)
    follower()
    times = _lists(store, monkeypatch)
    store.watch(follower)
    try:
        wait_for(lambda: follower.readings == 2)  # the first look, whatever was seen
        assert len(times) == 1
        changed = POLICY + b"# changed\n"
        (tmp_path / "a.yaml").write_bytes(changed)
        assert follower.sees(Snapshot({"a.yaml": changed}))
        assert len(times) == 1
        wait_for(lambda: len(times) == 2)
    finally:
        store.close()


def test_what_the_watch_has_missed_is_seen_when_there_is_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of which only a part was noticed is complete soon after, though the reading takes its time."""
    monkeypatch.setattr("engine.storage.disk.LOOK_AROUND", 0.5)
    monkeypatch.setattr("engine.storage.disk.SLICE", 1)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_bytes(POLICY)
    store = DiskStore(tmp_path)
    follower = Follower(store)
    follower()
    monkeypatch.setattr(store, "_files_among", lambda _: frozenset({"a.yaml"}))
    store.watch(follower)
    try:
        for name in "ab":
            (tmp_path / f"{name}.yaml").write_bytes(POLICY + b"# changed\n")
        changed = POLICY + b"# changed\n"
        assert follower.sees(Snapshot({"a.yaml": changed, "b.yaml": changed}))
    finally:
        store.close()


def test_whoever_asks_for_a_reading_gets_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the watch's own thread relies on what the watch has seen."""
    (tmp_path / "a.yaml").write_bytes(POLICY)
    store = DiskStore(tmp_path)
    store.read()
    store._written = frozenset({"a.yaml"})
    (tmp_path / "b.yaml").write_bytes(POLICY)
    assert sorted(store.read().files) == ["a.yaml", "b.yaml"]
