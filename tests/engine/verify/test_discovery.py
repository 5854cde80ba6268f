"""Which files of a directory tests are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.verify import suite_files

if TYPE_CHECKING:
    from pathlib import Path


def test_suites_and_fixtures_are_found(tmp_path: Path) -> None:
    """Suites anywhere, hidden folders included; fixtures in ``testdata`` by their names; nothing else."""
    wanted = (
        "a_test.yaml",
        "x/b_test.yml",
        ".h/c_test.json",
        "x/UP_TEST.YAML",
        "testdata/principals.yaml",
        "x/testdata/aux_data.json",
    )
    others = (
        "policy.yaml",
        "x/testdata/other.yaml",
        "x/testdata/d_test.yaml",
        "y/resources.yaml",
        "test.yaml",
    )
    for path in (*wanted, *others):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    assert suite_files(tmp_path) == {path: path.encode() for path in wanted}


def test_links_stay_inside(tmp_path: Path) -> None:
    """A link to a suite inside of the directory is followed, one that leads out or to a folder is not."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "o_test.yaml").write_text("secret")
    (inside / "sub/real_test.yaml").write_text("suite")
    (inside / "link_test.yaml").symlink_to("sub/real_test.yaml")
    (inside / "out_test.yaml").symlink_to("../outside/o_test.yaml")
    (inside / "folder").symlink_to("sub")
    assert suite_files(inside) == {"link_test.yaml": b"suite", "sub/real_test.yaml": b"suite"}
