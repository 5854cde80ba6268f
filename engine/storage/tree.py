"""Which files of a tree count, the same for every store that holds a tree of files.

The rule is Cerbos's (``internal/storage/index``): ``.yaml``, ``.yml`` and ``.json`` files, without those that
are hidden, called ``*_test.*``, or in a directory that is hidden or called ``testdata``. ``_schemas`` under
the root holds JSON Schemas, whatever their names; anywhere else it is a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.document import Fault
from engine.storage import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EXTENSIONS = (".yaml", ".yml", ".json")
TEST_SUFFIXES = tuple(f"_test{extension}" for extension in EXTENSIONS)
SCHEMAS = "_schemas"
TEST_DATA = "testdata"
MISPLACED_SCHEMAS = f"{SCHEMAS} directory must be under the root of the storage directory"


def is_policy_file(name: str) -> bool:
    """Tell whether a file of this name holds a policy, and not a test suite or something else."""
    lower = name.lower()
    return lower.endswith(EXTENSIONS) and not lower.endswith(TEST_SUFFIXES) and not name.startswith(".")


def is_schema(path: str) -> bool:
    """Tell whether a path of the store is one of its JSON Schemas."""
    return path.startswith(f"{SCHEMAS}/")


def enters(name: str, path: str) -> bool:
    """Tell whether a directory is looked into; *path* is its path in the store, *name* the last part."""
    return name != TEST_DATA and not name.startswith(".") and not is_misplaced(name, path)


def is_misplaced(name: str, path: str) -> bool:
    """Tell whether a directory is one for schemas that does not stand under the root."""
    return name == SCHEMAS and path != SCHEMAS and not is_schema(path)


def counts(path: str) -> bool:
    """Tell whether the file at *path* (with ``/``) is to be read: policies, and what schemas may need."""
    *directories, name = path.split("/")
    within = ""
    for directory in directories:
        within = f"{within}/{directory}" if within else directory
        if not enters(directory, within):
            return False
    return is_schema(path) or is_policy_file(name)


def faults_of(paths: Iterable[str]) -> tuple[Fault, ...]:
    """Return what is wrong with a tree as such, sorted by path; *paths* are all its files."""
    misplaced = {
        "/".join(parts[: depth + 1])
        for path in paths
        for parts in (path.split("/")[:-1],)
        for depth, name in enumerate(parts)
        if is_misplaced(name, "/".join(parts[: depth + 1]))
        and all(enters(each, "/".join(parts[: at + 1])) for at, each in enumerate(parts[:depth]))
    }
    return tuple(Fault(path, 0, 0, MISPLACED_SCHEMAS) for path in sorted(misplaced))


def snapshot_of(
    contents: Mapping[str, bytes], before: Snapshot | None = None, revision: str = ""
) -> Snapshot:
    """Make the state of a store of a whole tree of files.

    What does not count may be in *contents*, and is left out. A file whose content is as in *before* keeps
    its object. The order is that of the paths.
    """
    known = {} if before is None else {**before.files, **before.schemas}
    kept = {
        path: known[path] if known.get(path) == contents[path] else contents[path]
        for path in sorted(contents)
        if counts(path)
    }
    schemas = {path: content for path, content in kept.items() if is_schema(path)}
    files = {path: content for path, content in kept.items() if path not in schemas}
    return Snapshot(files, schemas, faults_of(contents), revision)
