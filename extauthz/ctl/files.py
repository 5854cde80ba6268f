"""What ``put`` sends: policies and schemas in files, directories and archives.

Everything is read and checked before anything is sent, and sent in an order in which each call leaves a store
that compiles: what others import first, scopes from the root downwards.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engine import policy_messages
from engine.document import DocumentError, Fault, parse
from engine.load import PolicyError, load_document
from engine.policy_messages import NotAPolicyError
from engine.storage import StoreError
from engine.storage.archive import is_archive, read_archive
from engine.storage.tree import SCHEMAS, counts, is_schema
from extauthz.ctl.connection import CtlError
from extauthz.pdp.admin_messages import Policy, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

MAX_FILE: Final = 4 * 1024 * 1024
"""Of one file: a call cannot hold more."""
AT_A_TIME: Final = 100
"""Policies or schemas in one call: a rule of the API."""
BYTES_AT_A_TIME: Final = 3 * 1024 * 1024
"""Of one call; servers take 4 MiB unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file: its path inside of what was named, what messages call it, and its content."""

    path: str
    name: str
    content: bytes


class BrokenFilesError(CtlError):
    """Files that cannot be put; *faults* say why, each with its place."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(map(str, self.faults)))


# --- policies ---------------------------------------------------------------------------------------------


def read_policies(paths: Sequence[Path], *, recursive: bool) -> list[Policy]:
    """Read policies, sorted for sending.

    Raises:
        BrokenFilesError: with all that is wrong with any of them.
        CtlError: something cannot be read.

    """
    read: dict[str, tuple[str, tuple[int, int], Policy]] = {}
    faults: list[Fault] = []
    for found in _all(paths, counts_as_policy, recursive=recursive):
        try:
            read_policy = _policy(found)
        except (PolicyError, DocumentError) as error:
            faults.extend(error.faults)
            continue
        if read_policy is None:
            continue
        key, order, policy = read_policy
        if key in read:
            faults.append(Fault(found.name, 0, 0, f"`{key}` is in `{read[key][0]}` as well"))
        read[key] = found.name, order, policy
    if faults:
        raise BrokenFilesError(faults)
    return [policy for _, _, policy in sorted(read.values(), key=lambda each: each[1])]


def counts_as_policy(path: str) -> bool:
    """Tell whether a file of a tree holds a policy."""
    return counts(path) and not is_schema(path)


def _policy(found: Found) -> tuple[str, tuple[int, int], Policy] | None:
    """Return a policy, its key, and what it is sorted by; None for a file with nothing but comments."""
    document = parse(found.content, found.name)
    value = document.value  # which loading lets go of
    if value is None:
        return None
    policy = load_document(document)
    try:
        message = policy_messages.from_json(value)
    except NotAPolicyError as error:
        raise PolicyError([Fault(found.name, 0, 0, str(error))]) from None
    coordinates = policy_messages.coordinates(message)
    depth = coordinates.scope.count(".") + 1 if coordinates.scope else 0
    return policy.key, (_ORDER[coordinates.kind], depth), Policy(policy_messages.encode(message))


_ORDER: Final = {
    "EXPORT_CONSTANTS": 0,
    "EXPORT_VARIABLES": 0,
    "DERIVED_ROLES": 1,
    "ROLE": 2,
    "PRINCIPAL": 2,
    "RESOURCE": 2,
}
"""A policy imports only what has a lower number."""


# --- schemas ----------------------------------------------------------------------------------------------


def read_schemas(paths: Sequence[Path], *, recursive: bool) -> list[Schema]:
    """Read JSON Schemas; the id of one is its path inside of what was named, or below ``_schemas`` there.

    Raises:
        BrokenFilesError: with all that is wrong with any of them.
        CtlError: something cannot be read.

    """
    read: dict[str, tuple[str, bytes]] = {}
    faults: list[Fault] = []
    for found in _all(paths, lambda path: path.lower().endswith(".json"), recursive=recursive, schemas=True):
        try:
            json.loads(found.content)
        except ValueError as error:
            faults.append(Fault(found.name, 0, 0, f"is no JSON: {error}"))
        if found.path in read:
            told = f"`{found.path}` is in `{read[found.path][0]}` as well"
            faults.append(Fault(found.name, 0, 0, told))
        read[found.path] = found.name, found.content
    if faults:
        raise BrokenFilesError(faults)
    return [Schema(path, content) for path, (_, content) in sorted(read.items())]


# --- files, directories, archives -------------------------------------------------------------------------


def _all(
    paths: Sequence[Path], wanted: Callable[[str], bool], *, recursive: bool, schemas: bool = False
) -> Iterator[Found]:
    for path in paths:
        files = list(_under(path, wanted, recursive=recursive))
        below = [each for each in files if each.path.startswith(f"{SCHEMAS}/")]
        if schemas and below:
            files = [Found(each.path.removeprefix(f"{SCHEMAS}/"), each.name, each.content) for each in below]
        yield from files


def _under(path: Path, wanted: Callable[[str], bool], *, recursive: bool) -> Iterator[Found]:
    if path.is_dir():
        yield from _in_directory(path, wanted, recursive=recursive)
    elif is_archive(path):
        yield from _in_archive(path, wanted)
    else:  # named by hand: wanted whatever it is called
        yield Found(path.name, str(path), _content(path))


def _in_directory(directory: Path, wanted: Callable[[str], bool], *, recursive: bool) -> Iterator[Found]:
    try:
        files = sorted(directory.rglob("*") if recursive else directory.glob("*"))
    except OSError as error:
        raise CtlError(f"cannot read `{error.filename or directory}`: {error.strerror}") from None
    for file in files:
        path = file.relative_to(directory).as_posix()
        hidden = any(part.startswith(".") for part in path.split("/"))
        if not hidden and wanted(path) and file.is_file():
            yield Found(path, str(file), _content(file))


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise CtlError(f"cannot read `{file}`: {error.strerror}") from None
    return _bounded(content, str(file))


def _bounded(content: bytes, name: str) -> bytes:
    if len(content) > MAX_FILE:
        raise CtlError(f"`{name}` is larger than {MAX_FILE} bytes")
    return content


def _in_archive(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Found]:
    """Read an archive as the store of archives does: in memory, and as a whole or not at all."""
    try:
        files = read_archive(archive)
    except StoreError as error:
        raise CtlError(str(error)) from None
    for path, content in files.items():
        if wanted(path):
            yield Found(path, f"{archive}:{path}", content)


# --- calls ------------------------------------------------------------------------------------------------


def in_calls(items: Sequence[Policy | Schema]) -> Iterator[tuple[Policy | Schema, ...]]:
    """Split what is to be sent, so that each call keeps to the limits of a server."""
    waiting: list[Policy | Schema] = []
    size = 0
    for item in items:
        if waiting and (len(waiting) == AT_A_TIME or size + len(item.definition) > BYTES_AT_A_TIME):
            yield tuple(waiting)
            waiting, size = [], 0
        waiting.append(item)
        size += len(item.definition)
    if waiting:
        yield tuple(waiting)


# --- exporting --------------------------------------------------------------------------------------------


def write_tree(target: Path, files: dict[str, bytes]) -> None:
    """Write files to a directory, or to an archive if *target* is called like one.

    Raises:
        CtlError: it cannot be written, or a name would lead out of it.

    """
    for path in files:
        if path.startswith("/") or ".." in path.split("/") or "\0" in path or "\\" in path:
            raise CtlError(f"the server calls something `{path}`, which is not a path inside of a directory")
    try:
        if is_archive(target):
            _write_archive(target, files)
        else:
            for path, content in files.items():
                file = target / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
    except OSError as error:
        raise CtlError(f"cannot write `{error.filename or target}`: {error.strerror}") from None


def _write_archive(target: Path, files: dict[str, bytes]) -> None:
    """Write an archive aside and put it in place when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        if target.name.lower().endswith(".zip"):
            with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as zipped:
                for path, content in files.items():
                    zipped.writestr(path, content)
        else:
            with tarfile.open(part, "w" if target.name.lower().endswith(".tar") else "w:gz") as tarred:
                for path, content in files.items():
                    member = tarfile.TarInfo(path)
                    member.size = len(content)
                    tarred.addfile(member, io.BytesIO(content))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
