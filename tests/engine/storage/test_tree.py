"""Which files of a tree count."""

from __future__ import annotations

import pytest

from engine.storage.tree import counts, faults_of, snapshot_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.yaml", True),
        ("deep/er/B.YML", True),
        ("a.json", True),
        ("a_test.yaml", False),
        ("A_TEST.JSON", False),
        (".hidden.yaml", False),
        (".hidden/a.yaml", False),
        ("deep/testdata/a.yaml", False),
        ("testdata.yaml", True),
        ("_schemas/person.txt", True),
        ("_schemas/.git/person.json", False),
        ("deep/_schemas/a.yaml", False),
        ("bar_schemas/a.yml", True),
        ("notes.txt", False),
    ],
)
def test_what_counts(path: str, expected: bool) -> None:
    """Policies by their names, schemas by their place, nothing that is hidden or made for tests."""
    assert counts(path) is expected


def test_misplaced_schemas_are_told_once() -> None:
    """Each `_schemas` folder that is not under the root is one fault; one that nobody looks into is none."""
    paths = [
        "b/_schemas/x.json",
        "b/_schemas/deep/_schemas/y.json",
        "a/_schemas/z.json",
        ".git/_schemas/w.json",
    ]
    assert [fault.file for fault in faults_of(paths)] == ["a/_schemas", "b/_schemas"]


def test_a_snapshot_keeps_what_has_not_changed() -> None:
    """Equal content keeps its object, the order is that of the paths, schemas stand apart."""
    before = snapshot_of({"b.yaml": b"one", "_schemas/s.json": b"{}"})
    after = snapshot_of(
        {"b.yaml": b"o" + b"ne", "a.yaml": b"two", "_schemas/s.json": b"{" + b"}", "notes.txt": b""},
        before,
        revision="7",
    )
    assert list(after.files) == ["a.yaml", "b.yaml"]
    assert after.files["b.yaml"] is before.files["b.yaml"]
    assert after.schemas["_schemas/s.json"] is before.schemas["_schemas/s.json"]
    assert after.revision == "7"
