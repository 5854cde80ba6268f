"""Policies in a directory."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from engine.storage import StoreError, open_store
from engine.storage.disk import DiskStore
from tests.engine.storage.contract import POLICY, Calls, FilesContract, WatchedContract

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


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
