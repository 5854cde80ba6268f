"""The cache on disk: what it gives back, and above all what it does not."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from engine.artefacts import cache as module
from engine.artefacts.cache import Cache, CacheError, CacheSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EDITION, OTHER = b"e" * 32, b"o" * 32
ONE, TWO = b"1" * 32, b"2" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> Cache:
    return Cache(CacheSettings(folder), EDITION)


def known(cache: Cache, *keys: bytes) -> list[bytes | None]:
    """Return what the cache knows of each of *keys*."""
    packs = cache.read()
    found = [next((got for pack in packs if (got := pack.get(key)) is not None), None) for key in keys]
    return [None if each is None else bytes(each) for each in found]


def the_pack(folder: Path) -> Path:
    (found,) = folder.glob("*.pack")
    return found


def test_what_was_written_is_read(cache: Cache) -> None:
    """Artefacts come back byte for byte, an empty one too; what was not written is not known."""
    cache.write({ONE: b"first", TWO: b""})
    assert known(cache, ONE, TWO, b"3" * 32) == [b"first", b"", None]


def test_packs_add_up(cache: Cache, folder: Path) -> None:
    """What two processes write is there together, and is put together on request."""
    cache.write({ONE: b"first"})
    cache.write({TWO: b"second"})
    assert known(cache, ONE, TWO) == [b"first", b"second"]
    names = tuple(pack.name for pack in cache.read())
    cache.write({ONE: b"first", TWO: b"second"}, instead_of=names)
    assert known(cache, ONE, TWO) == [b"first", b"second"]
    assert the_pack(folder)


def test_it_is_for_its_owner_only(cache: Cache, folder: Path) -> None:
    """Directory and files are made so that nobody else can use them, whatever the umask is."""
    before = os.umask(0)
    try:
        cache.write({ONE: b"first"})
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert the_pack(folder).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o705, 0o711])
def test_a_directory_that_others_can_use_is_refused(cache: Cache, folder: Path, mode: int) -> None:
    """Where somebody else might have written, nothing is read, and nothing is written."""
    cache.write({ONE: b"first"})
    folder.chmod(mode)
    with pytest.raises(CacheError, match="can be used by other users"):
        cache.read()
    with pytest.raises(CacheError, match="can be used by other users"):
        cache.write({TWO: b"second"})


def test_a_directory_of_another_user_is_refused(
    cache: Cache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is somebody else's is not used, whatever its mode."""
    cache.write({ONE: b"first"})
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(CacheError, match="belongs to another user"):
        cache.read()


def test_a_link_is_not_followed(cache: Cache, folder: Path, tmp_path: Path) -> None:
    """The directory may not be a link, nor may a pack, nor have a second name somewhere else."""
    cache.write({ONE: b"first"})
    pack = the_pack(folder)
    away = tmp_path / "away"
    pack.rename(away)
    pack.symlink_to(away)
    assert known(cache, ONE) == [None]
    os.link(away, pack)
    assert known(cache, ONE) == [None]
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.raises(CacheError, match="cannot open"):
        cache.read()


def test_a_pack_that_others_can_write_is_not_read(cache: Cache, folder: Path) -> None:
    """Not even inside of a private directory is a file taken that is not private."""
    cache.write({ONE: b"first"})
    the_pack(folder).chmod(0o620)
    assert known(cache, ONE) == [None]


def test_what_is_no_file_is_not_read(cache: Cache, folder: Path) -> None:
    """A pipe in the place of a pack holds nobody up."""
    cache.write({ONE: b"first"})
    pack = the_pack(folder)
    pack.unlink()
    os.mkfifo(pack, 0o600)
    assert known(cache, ONE) == [None]


@pytest.mark.parametrize("place", [0, 30, 60, 100, 118, -1])
def test_a_damaged_pack_is_not_read(
    cache: Cache, folder: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One bit is enough: nothing of the pack is used, and it is removed."""
    cache.write({ONE: b"first", TWO: b"second"})
    pack = the_pack(folder)
    content = bytearray(pack.read_bytes())
    content[place] ^= 1
    pack.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert known(cache, ONE, TWO) == [None, None]
    assert not list(folder.glob("*.pack"))


def test_a_pack_that_is_cut_off_is_not_read(cache: Cache, folder: Path) -> None:
    """However much of a pack is there, if it is not all of it, nothing of it is used."""
    cache.write({ONE: b"first", TWO: b"second"})
    pack = the_pack(folder)
    content = pack.read_bytes()
    for size in range(len(content)):
        pack.write_bytes(content[:size])
        pack.chmod(0o600)
        assert known(cache, ONE, TWO) == [None, None], size


def test_another_edition_knows_nothing(cache: Cache, folder: Path) -> None:
    """A pack is of no use to another version, not even when it is called as one of its own."""
    cache.write({ONE: b"first"})
    other = Cache(CacheSettings(folder), OTHER)
    assert known(other, ONE) == [None]
    the_pack(folder).rename(folder / f"{OTHER.hex()[:16]}-0.pack")
    assert known(other, ONE) == [None]


def test_it_takes_no_more_room_than_it_may(folder: Path) -> None:
    """The packs that were of no use for the longest time go first; one that is too large is not written."""
    cache = Cache(CacheSettings(folder, max_bytes=5_000), EDITION)
    for number in range(5):
        cache.write({bytes([number]) * 32: b"x" * 1_500})
        newest = max(folder.glob("*.pack"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number + 1, number + 1))
    assert sum(path.stat().st_size for path in folder.glob("*.pack")) <= 5_000
    assert known(cache, *(bytes([number]) * 32 for number in (0, 1))) == [None, None]
    assert known(cache, bytes([4]) * 32) == [b"x" * 1_500]
    with pytest.raises(CacheError, match="more than"):
        cache.write({ONE: b"x" * 6_000})


def test_what_a_process_left_unfinished_is_removed(cache: Cache, folder: Path) -> None:
    """A process that was killed while it wrote leaves nothing for ever, and nothing that is read."""
    cache.write({ONE: b"first"})
    left, under_way = folder / "left.part", folder / "now.part"
    left.write_bytes(b"x")
    under_way.write_bytes(b"x")
    os.utime(left, (1, 1))
    cache.write({TWO: b"second"})
    assert not left.exists()
    assert under_way.exists()


def test_a_read_only_directory_can_be_read(cache: Cache, folder: Path) -> None:
    """A cache that was filled when an image was built serves containers that may not write."""
    cache.write({ONE: b"first"})
    folder.chmod(0o500)
    try:
        assert known(cache, ONE) == [b"first"]
    finally:
        folder.chmod(0o700)


def test_a_place_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The error says where and why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot open `.*/file/cache`: Not a directory"):
        Cache(CacheSettings(tmp_path / "file" / "cache"), EDITION).read()


def test_processes_that_write_at_once_do_not_meet(folder: Path) -> None:
    """Of many that write and read at the same time, each reads only what is whole, and nothing is lost."""
    keys: Mapping[int, bytes] = {number: bytes([number]) * 32 for number in range(12)}

    def work(number: int) -> None:
        mine = Cache(CacheSettings(folder), EDITION)
        mine.write({keys[number]: bytes([number]) * 50_000})
        for pack in mine.read():
            for other, key in keys.items():
                found = pack.get(key)
                assert found is None or bytes(found) == bytes([other]) * 50_000

    threads = [threading.Thread(target=work, args=(number,)) for number in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert None not in known(Cache(CacheSettings(folder), EDITION), *keys.values())


def test_one_process_at_a_time_does_the_work_of_many(cache: Cache, folder: Path) -> None:
    """Whoever comes second waits, and is told so; whoever comes alone does not."""
    waited: list[bool] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with Cache(CacheSettings(folder), EDITION).alone() as was_held_up:
            waited.append(was_held_up)

    thread = threading.Thread(target=second)
    with cache.alone() as was_held_up:
        assert was_held_up is False
        thread.start()
        assert entered.wait(10)
        time.sleep(0.2)  # nothing can be waited for: the second must *not* get in
        assert waited == []
    thread.join(10)
    assert waited == [True]


def test_nobody_is_waited_for_without_end(
    cache: Cache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs while it holds the lock holds up others for a limited time."""
    monkeypatch.setattr(module, "WAIT", 0.1)
    with cache.alone(), Cache(CacheSettings(folder), EDITION).alone() as was_held_up:
        assert was_held_up is True
