"""Where suites and fixtures are: the files of a directory that tests are made of.

Unlike policies, suites are found in every folder, hidden ones included, as in Cerbos. Links to files are
followed where they stay inside the directory, links to folders are not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.document import MAX_BYTES
from engine.storage.archive import is_archive, read_archive
from engine.verify.loading import FIXTURE_FILES, TEST_DATA, is_suite_file

if TYPE_CHECKING:
    from collections.abc import Iterator


def suite_files(directory: str | os.PathLike[str]) -> dict[str, bytes]:
    """Return the suites and fixtures under *directory*, or in an archive: path (with ``/``) to content.

    Raises:
        OSError: something cannot be read.
        StoreError: an archive is refused.

    """
    if is_archive(directory):
        files = read_archive(directory)
        return {path: files[path] for path in sorted(files) if _is_of_a_suite(path)}
    root = Path(directory).resolve(strict=True)
    return {path: _content(root / path) for path in _walk(root, "") if _is_inside(root, root / path)}


def _is_of_a_suite(path: str) -> bool:
    """Tell by its path whether a file is a suite or a fixture, as walking through folders would."""
    *folders, name = path.split("/")
    if TEST_DATA not in folders:
        return is_suite_file(name)
    return folders.index(TEST_DATA) == len(folders) - 1 and name in FIXTURE_FILES


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from (
                _fixtures(entry, path) if entry.name == TEST_DATA else _walk(Path(entry.path), f"{path}/")
            )
        elif is_suite_file(entry.name) and entry.is_file():
            yield path


def _fixtures(folder: os.DirEntry[str], path: str) -> Iterator[str]:
    with os.scandir(folder.path) as entries:
        yield from (
            f"{path}/{entry.name}" for entry in entries if entry.name in FIXTURE_FILES and entry.is_file()
        )


def _is_inside(root: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
