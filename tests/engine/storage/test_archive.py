"""Policies in an archive, and archives that nobody should use."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from engine import Engine
from engine.storage import Store, StoreError, Watchable, open_store
from engine.verify import suite_files
from tests.engine.storage.contract import POLICY, FilesContract, allows, policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


def zipped(contents: Mapping[str, bytes]) -> bytes:
    """Pack files as `zip -r` does, with members for directories."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted({path.rpartition("/")[0] for path in contents} - {""}):
            archive.mkdir(path)
        for path, content in contents.items():
            archive.writestr(path, content)
    return packed.getvalue()


def tarred(contents: Mapping[str, bytes]) -> bytes:
    """Pack files as `tar -C directory -c .` does."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        root = tarfile.TarInfo("./")
        root.type = tarfile.DIRTYPE
        archive.addfile(root)
        for path, content in contents.items():
            info = tarfile.TarInfo(f"./{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


PACKED: Mapping[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "policies.zip": zipped,
    "policies.tar": tarred,
    "policies.tgz": lambda contents: gzip.compress(tarred(contents)),
    "policies.tar.gz": lambda contents: gzip.compress(tarred(contents)),
    "policies.GZ": lambda contents: gzip.compress(tarred(contents)),
}


class Packer:
    """Replaces an archive by a new one, by renaming."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contents: dict[str, bytes] = {}
        self._replace()

    def put(self, path: str, content: bytes) -> None:
        """Pack anew with a file more."""
        self.together({path: content})

    def remove(self, path: str) -> None:
        """Pack anew without a file."""
        del self._contents[path]
        self._replace()

    def together(self, contents: Mapping[str, bytes]) -> None:
        """Pack anew with many files."""
        self._contents.update(contents)
        self._replace()

    def open(self) -> Store:
        """Open the archive as the disk driver does."""
        return open_store("disk", {"directory": str(self.path), "watchForChanges": True})

    def go_away(self) -> None:
        """Remove the archive."""
        self.path.unlink()

    def come_back(self) -> None:
        """Pack it again."""
        self._replace()

    def _replace(self) -> None:
        new = self.path.with_name("new")
        new.write_bytes(PACKED[self.path.name](self._contents))
        new.replace(self.path)


@pytest.fixture
def changer(tmp_path: Path) -> Packer:
    return Packer(tmp_path / "policies.tgz")


@pytest.fixture
def store(changer: Packer) -> Iterator[Store]:
    store = changer.open()
    yield store
    store.close()


class TestTgz(FilesContract):
    """An archive keeps the contract of all stores."""

    unreachable = r"cannot read `.*policies\.\w+`: No such file or directory"


class TestZip(FilesContract):
    """And so does a zip archive."""

    unreachable = r"cannot read `.*policies\.\w+`: No such file or directory"

    @pytest.fixture
    def changer(self, tmp_path: Path) -> Packer:
        return Packer(tmp_path / "policies.zip")


@pytest.mark.parametrize("name", PACKED)
def test_archives_by_their_names(tmp_path: Path, name: str) -> None:
    """The name tells what kind of archive it is; it is loaded, and never watched."""
    packer = Packer(tmp_path / name)
    packer.put("deep/doc.yaml", POLICY)
    assert not isinstance(packer.open(), Watchable)
    with Engine.from_directory(packer.path, watch=True) as engine:
        assert allows(engine)


def test_a_directory_may_be_called_like_an_archive(tmp_path: Path) -> None:
    """A directory is a directory, whatever its name."""
    (tmp_path / "policies.zip").mkdir()
    (tmp_path / "policies.zip" / "doc.yaml").write_bytes(POLICY)
    store = open_store("disk", {"directory": str(tmp_path / "policies.zip")})
    assert list(store.read().files) == ["doc.yaml"]


def test_suites_are_found_as_in_a_directory(tmp_path: Path) -> None:
    """Suites in all folders, hidden ones too, and fixtures right in `testdata`."""
    paths = [
        *("a_test.yaml", "deep/b_test.json", ".hidden/c_test.yml", "deep/testdata/principals.yaml"),
        *("testdata/d_test.yaml", "testdata/deep/principals.yaml", "testdata/other.yaml", "doc.yaml"),
    ]
    contents = dict.fromkeys(paths, b"name: x\n")
    directory = tmp_path / "policies"
    for path in paths:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(contents[path])
    (tmp_path / "policies.zip").write_bytes(zipped(contents))
    assert suite_files(tmp_path / "policies.zip") == suite_files(directory)


# --- hostile archives -------------------------------------------------------------------------------------

NAMES = {
    "../doc.yaml": "leads out of the archive",
    "a/../../doc.yaml": "leads out of the archive",
    "/etc/doc.yaml": "is an absolute path",
    "C:/doc.yaml": "is an absolute path",
    "c:doc.yaml": "is an absolute path",
    "a\\doc.yaml": "has a backslash in its name",
    "..\\doc.yaml": "has a backslash in its name",
    "a//doc.yaml": "is no path",
    "a/./doc.yaml": "is no path",
    "a\ndoc.yaml": "is no path",
    "a/" * 64 + "doc.yaml": "is nested too deep",
}


def refused(path: Path, archive: bytes) -> str:
    """Return why an archive is not used, without its path."""
    path.write_bytes(archive)
    with pytest.raises(StoreError) as error:
        open_store("disk", {"directory": str(path)}).read()
    assert str(path) in str(error.value)
    return str(error.value).replace(f"`{path}`", "it")


@pytest.mark.parametrize(("name", "reason"), NAMES.items())
@pytest.mark.parametrize("kind", ["policies.zip", "policies.tar"])
def test_names_that_lead_elsewhere(tmp_path: Path, kind: str, name: str, reason: str) -> None:
    """One such member, even if it is no policy, and nothing of the archive is used."""
    for member in (name, name.replace(".yaml", ".txt")):
        packed = io.BytesIO()
        if kind.endswith("zip"):
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr("good.yaml", POLICY)
                archive.writestr(member, POLICY)
        else:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                for each in ("good.yaml", member):
                    info = tarfile.TarInfo(each)
                    info.size = len(POLICY)
                    tar.addfile(info, io.BytesIO(POLICY))
        told = refused(tmp_path / kind, packed.getvalue())
        assert told.startswith("the archive it is refused: `")
        assert told.endswith(f"` {reason}")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_tar(tmp_path: Path, kind: bytes) -> None:
    """Only files and directories are members."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("doc.yaml")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert "`doc.yaml` is a " in refused(tmp_path / "policies.tar", packed.getvalue())


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_zip(tmp_path: Path, kind: int) -> None:
    """The same for zip, where a link is a file with a mark."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        info = zipfile.ZipInfo("doc.yaml")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    told = refused(tmp_path / "policies.zip", packed.getvalue())
    assert told == "the archive it is refused: `doc.yaml` is a link or a device"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path: Path) -> None:
    """Which of the two would count is nobody's to guess; nor what is a file and a directory."""
    for second in ("doc.yaml", "./doc.yaml"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("doc.yaml", POLICY)
            archive.writestr(second, policy("doc", "all"))
        told = refused(tmp_path / "policies.zip", packed.getvalue())
        assert told == f"the archive it is refused: `{second}` is there twice"
    told = refused(tmp_path / "policies.tar", tarred({"a.yaml": POLICY, "a.yaml/b.yaml": POLICY}))
    assert told == "the archive it is refused: `a.yaml` is a file and a directory"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """What a name means must not depend on who reads it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("grüße.yaml"))
    assert "not UTF-8" in refused(tmp_path / "policies.tar", packed.getvalue())
    latin = zipped({"grueze.yaml": POLICY}).replace(b"grueze", b"gr\x81\xe1ze")
    assert "has a name that is not UTF-8" in refused(tmp_path / "policies.zip", latin)


def test_encrypted_members(tmp_path: Path) -> None:
    """There is nobody to ask for a password."""
    packed = bytearray(zipped({"doc.yaml": POLICY}))
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    told = refused(tmp_path / "policies.zip", bytes(packed))
    assert told == "the archive it is refused: `doc.yaml` is encrypted"


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    """Each faulty member has its reason, as far as a message can hold them."""
    told = refused(tmp_path / "policies.tar", tarred({f"../{n}.yaml": POLICY for n in range(12)}))
    assert told.count("leads out of the archive") == 10
    assert told.endswith("; and 2 more")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are bounded: of one member, of all, of what is unpacked, and the number of members."""
    large = b"#" * (4 * 1024 * 1024 + 1)
    for name in ("policies.zip", "policies.tgz"):
        assert "`a.yaml` has more than 4 MiB" in refused(tmp_path / name, PACKED[name]({"a.yaml": large}))
    monkeypatch.setattr("engine.storage.archive.MAX_TOTAL", 3 * 1024 * 1024)
    many = {f"{number}.yaml": large[: 1024 * 1024] for number in range(4)}
    assert "its files are more than 3 MiB together" in refused(tmp_path / "policies.zip", zipped(many))
    packed = gzip.compress(tarred({"notes.txt": large}))
    assert "it unpacks to more than 3 MiB" in refused(tmp_path / "policies.tgz", packed)
    monkeypatch.setattr("engine.storage.archive.MAX_MEMBERS", 3)
    few = dict.fromkeys(many, POLICY)
    assert "more than 3 members" in refused(tmp_path / "policies.zip", zipped(few))
    monkeypatch.setattr("engine.storage.archive.MAX_ARCHIVE", 100)
    assert "no file of at most" in refused(tmp_path / "policies.tar", tarred(few))


def test_sizes_in_headers_count_for_nothing(tmp_path: Path) -> None:
    """A member that says it is small and is not is found out while it is read."""
    large = b"#" * (6 * 1024 * 1024)
    packed = bytearray(zipped({"a.yaml": large}))
    directory = packed.index(b"PK\x01\x02")
    for place in (22, directory + 24):  # the uncompressed size, in the member's header and in the directory
        packed[place : place + 4] = (100).to_bytes(4, "little")
    refused(tmp_path / "policies.zip", bytes(packed))


@pytest.mark.parametrize("name", PACKED)
def test_a_part_of_an_archive_is_none(tmp_path: Path, name: str) -> None:
    """A half-written archive is an error wherever it ends, between two members too."""
    whole = PACKED[name]({f"{number}.yaml": policy(f"kind{number}", "x" * 700) for number in range(6)})
    end = len(whole.rstrip(b"\0"))  # zeros fill up the last block of a tar archive
    for length in {*range(0, end, 512), *range(1, end, 101)}:
        assert "broken or not whole" in refused(tmp_path / name, whole[:length])


def test_a_damaged_member_is_noticed(tmp_path: Path) -> None:
    """What is no header in the middle of a tar archive is not its end."""
    whole = bytearray(tarred({f"{number}.yaml": policy(f"kind{number}") for number in range(6)}))
    at = whole.index(b"./3.yaml")
    whole[at : at + 4] = b"oops"
    assert "broken or not whole" in refused(tmp_path / "policies.tar", bytes(whole))
