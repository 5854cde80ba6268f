"""One mistake a file: what the author is told, and where.

The first lines of each file in ``tests/broken/policies`` hold the faults expected, each after ``#!``; those
of a JSON file, which has no comments, stand in :data:`JSON_FAULTS`. A ``*`` in an expected fault stands for
what the checker lists.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

from engine import PolicyError, Settings, Snapshot
from engine.engine import Loader

FOLDER = Path(__file__).resolve().parents[1] / "broken/policies"
FILES = {path.name: path for path in sorted(FOLDER.iterdir())}
JSON_FAULTS = {"json_policy.json": ['2:62: mapping key "version" already defined at [2:40]']}


def expected(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return JSON_FAULTS.get(path.name) or [line[3:] for line in lines if line.startswith("#! ")]


def found(path: Path) -> list[str]:
    try:
        Loader(Settings()).table(Snapshot({path.name: path.read_bytes()}))
    except PolicyError as error:
        return [str(fault).removeprefix(f"{path.name}:").strip() for fault in error.faults]
    return []


@pytest.mark.parametrize("name", FILES)
def test_broken_policy(name: str) -> None:
    """The file is refused with exactly these faults, in the order of their places."""
    told, wanted = found(FILES[name]), expected(FILES[name])
    assert wanted, "the file does not say what is wrong with it"
    assert len(told) == len(wanted), told
    for one, pattern in zip(told, wanted, strict=True):
        assert one == pattern or fnmatch.fnmatchcase(one, pattern.replace("[", "[[]")), one
