"""Files that are there as a whole or not at all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from engine.storage import StoreError
from engine.storage.atomic import cache_directory, locked, prepared, read_bounded, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A file is replaced in one step, and is for its owner only."""
    file = tmp_path / "state"
    write_atomically(file, b"one")
    write_atomically(file, b"two")
    assert read_bounded(file, 3) == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_a_write_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there stays, and nothing is left behind."""
    file = tmp_path / "state"
    write_atomically(file, b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"two")
    assert file.read_bytes() == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_reading_is_bounded(tmp_path: Path) -> None:
    """Nothing there is nothing; too much is an error."""
    assert read_bounded(tmp_path / "nowhere", 10) is None
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(StoreError, match="larger than 10 bytes"):
        read_bounded(tmp_path / "large", 10)
    with pytest.raises(StoreError, match="cannot read"):
        read_bounded(tmp_path, 10)


def test_a_directory_is_swept(tmp_path: Path) -> None:
    """What a killed process left half written is taken away, and nothing else."""
    (tmp_path / ".state.abc.part").write_bytes(b"half")
    (tmp_path / "state").write_bytes(b"whole")
    prepared(tmp_path, "workDir")
    assert sorted(each.name for each in tmp_path.iterdir()) == [".lock", "state"]


def test_a_lock_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds the lock and hangs makes an error, not another one that hangs."""
    monkeypatch.setattr("engine.storage.atomic.LOCK_PATIENCE", 0.05)
    with locked(tmp_path), pytest.raises(StoreError, match="another process keeps it locked"):
        prepared(tmp_path, "workDir")
    prepared(tmp_path, "workDir")


def test_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow the XDG specification: a relative path in the variable does not count."""
    monkeypatch.setenv("HOME", "/home/ann")
    for value, expected in (
        ("/var/cache", "/var/cache"),
        ("here", "/home/ann/.cache"),
        ("", "/home/ann/.cache"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_directory("blob") == f"{expected}/extauthz/blob"
