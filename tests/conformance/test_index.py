"""Cerbos's index corpus: which files of a directory count, and what is wrong with them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engine import PolicyError, Settings
from engine.compile import IMPORT_NOT_FOUND
from engine.document import PARSE_ERROR, VALIDATION_ERROR, json_path
from engine.engine import Loader
from engine.library import DUPLICATE_DEFINITION, MISSING_POLICY
from engine.storage.disk import DiskStore
from tests.conformance.suite import corpus, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.document import Fault

CORPUS = "cerbos/index"


def cases() -> Iterator[tuple[str, Any]]:
    for path in sorted(corpus(CORPUS).glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


def faults_of(files: dict[str, str], root: Path) -> tuple[Fault, ...]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    try:
        Loader(Settings()).table(DiskStore(root).read())
    except PolicyError as error:
        return error.faults
    return ()


@pytest.mark.parametrize("case", parameters(CORPUS, cases()))
def test_index(case: dict[str, Any], tmp_path: Path) -> None:
    """Unreadable files, duplicates, missing imports and missing ancestors are reported, and nothing else."""
    faults = faults_of(case["files"], tmp_path)
    want = case.get("wantErrList", {})
    failures = want.get("loadFailures", [])
    placed = {failure["file"] for failure in failures if "position" in failure["errorDetails"]}
    assert load_failures(faults, placed) == set(map(wanted_failure, failures))
    duplicates = {(fault.file, fault.line) for fault in faults if fault.kind == DUPLICATE_DEFINITION}
    # Cerbos places a block mapping at its first colon, and we at its first key: only the line is compared.
    assert duplicates == {
        (found["file"], found["position"]["line"]) for found in want.get("duplicateDefs", [])
    }
    imports = {
        (fault.file, fault.line, fault.column, json_path(fault.path))
        for fault in faults
        if fault.kind == IMPORT_NOT_FOUND
    }
    assert imports == {
        (found["importingFile"], *(found["position"][key] for key in ("line", "column", "path")))
        for found in want.get("missingImports", [])
    }
    missing = {fault.message for fault in faults if fault.kind == MISSING_POLICY}
    assert missing == {
        f'Missing ancestor policy "{found["missingPolicy"]}"' for found in want.get("missingScopeDetails", [])
    }


def load_failures(faults: tuple[Fault, ...], placed: set[str]) -> set[tuple[str, str, int]]:
    """Return what could not be read; where Cerbos gives no place, ours is left out."""
    kinds = (PARSE_ERROR, VALIDATION_ERROR, "")
    return {
        (fault.file, fault.message, fault.line if fault.file in placed else 0)
        for fault in faults
        if fault.kind in kinds
    }


def wanted_failure(failure: dict[str, Any]) -> tuple[str, str, int]:
    return failure["file"], failure["error"], failure["errorDetails"].get("position", {}).get("line", 0)
