"""What is wrong with broken policies: our faults and those of the real Cerbos's ``compile`` command.

Kinds, files, messages, lines, columns and paths are compared. Where Cerbos tells less on purpose, we may tell
more, and only there:

- it stops reading a file at the first value of a wrong shape;
- it does not compile as long as a file cannot be read, or an import or ancestor is missing;
- it stops compiling a policy when the policy, an import or an ancestor has a fault of certain kinds;
- it gives no place for a field that is missing.

Differences in wording stand in ``tests/conformance/compile_divergences.yaml``.
``COMPILE_ERRORS_SEED`` asks for other cases than those of every day.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from engine import PolicyError, Settings
from engine.compile import IMPORT_NOT_FOUND
from engine.document import PARSE_ERROR, VALIDATION_ERROR, json_path
from engine.engine import Loader
from engine.library import DUPLICATE_DEFINITION, MISSING_POLICY, SCOPE_PERMISSIONS
from engine.storage.disk import DiskStore
from tests.differential.broken_policies import COMPILING, READING, Case, broken, dumped, valid_set
from tests.differential.oracle import cerbos_binary, compile_policies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from engine.document import Fault
    from tests.differential.broken_policies import Break

SEED = int(os.environ.get("COMPILE_ERRORS_SEED", "7"))
BATCH = 20
"""How many sets are looked at in one run of Cerbos, which takes longer to start than to compile them."""

READING_BATCHES = range(8)
COMPILING_BATCHES = range(7)


class Told(NamedTuple):
    """One fault, in the form in which both sides are compared; what a kind does not have is empty."""

    kind: str
    file: str
    message: str
    line: int = 0
    column: int = 0
    path: str = ""

    @property
    def case(self) -> int:
        """The number of the set that it is about."""
        found = re.search(r"_(\d+)", f"{self.file} {self.message}")
        return int(found[1]) if found else -1


# -- Cerbos ------------------------------------------------------------------------------------------------


def _placed(kind: str, file: str, message: str, position: Mapping[str, Any] | None) -> Told:
    place = position or {}
    return Told(kind, file, message, place.get("line", 0), place.get("column", 0), place.get("path", ""))


def _load_failure(found: Mapping[str, Any]) -> Iterator[Told]:
    yield _placed("unreadable", found["file"], found["error"], found.get("error_details", {}).get("position"))


def _duplicate(found: Mapping[str, Any]) -> Iterator[Told]:
    message = f"{found['policy']} as in {found['other_file']}"
    yield Told(
        DUPLICATE_DEFINITION, found["file"], message, found["position"]["line"], found["position"]["column"]
    )


def _missing_import(found: Mapping[str, Any]) -> Iterator[Told]:
    message = f"{found['import_kind']} {found['import_name']}"
    yield _placed(IMPORT_NOT_FOUND, found["importing_file"], message, found["position"])


def _missing_scope(found: Mapping[str, Any]) -> Iterator[Told]:
    for key in found["descendants"]:
        yield Told(MISSING_POLICY, "", f"{found['missing_policy']} for {key}")


def _conflict(found: Mapping[str, Any]) -> Iterator[Told]:
    yield Told(SCOPE_PERMISSIONS, "", found.get("scope", ""))


_READ: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Told]]] = {
    "load_failures": _load_failure,
    "duplicate_defs": _duplicate,
    "missing_imports": _missing_import,
    "missing_scope_details": _missing_scope,
    "scope_permissions_conflicts": _conflict,
}


def cerbos_says(directory: Path) -> tuple[bool, list[Told]]:
    """Return whether Cerbos got as far as compiling, and what it found."""
    run = compile_policies(directory, "--output=json", "--skip-tests")
    answer = json.loads(run.stdout) if run.stdout.strip() else {}
    assert run.returncode == 0 or answer, run.stderr[-2000:]
    problems = answer.get("lintErrors", {})
    found = [told for name, read in _READ.items() for one in problems.get(name, []) for told in read(one)]
    assert found or not problems.keys() - {"disabled_defs"}, problems
    errors = answer.get("compileErrors", {}).get("errors", [])
    found += [
        _placed(error["error"], error["file"], error["description"], error.get("position"))
        for error in errors
    ]
    return not problems.keys() - {"disabled_defs"}, found


# -- we ----------------------------------------------------------------------------------------------------


def we_say(directory: Path) -> list[Told]:
    """Return what we find."""
    try:
        Loader(Settings(schema_enforcement="reject")).table(DiskStore(directory).read())
    except PolicyError as error:
        return [_told(fault) for fault in error.faults]
    return []


def _told(fault: Fault) -> Told:
    if fault.kind in (PARSE_ERROR, VALIDATION_ERROR, ""):
        whole = fault.message.startswith("invalid document")
        path = json_path(fault.path) if fault.path or whole else ""
        return Told("unreadable", fault.file, fault.message, fault.line, fault.column, path)
    if fault.kind in _SAID:
        kind, message = fault.kind, _SAID[fault.kind](fault)
        if kind in (MISSING_POLICY, SCOPE_PERMISSIONS):
            return Told(kind, "", message)
        path = json_path(fault.path) if kind == IMPORT_NOT_FOUND else ""
        return Told(kind, fault.file, message, fault.line, fault.column, path)
    path = json_path(fault.path) if fault.line else ""
    return Told(fault.kind, fault.file, fault.message, fault.line, fault.column, path)


def _said_duplicate(fault: Fault) -> str:
    found = re.fullmatch(r"duplicate definition of (.*), first defined in (.*)", fault.message)
    assert found, fault
    return f"{found[1]} as in {found[2]}"


def _said_import(fault: Fault) -> str:
    found = re.fullmatch(r"(.*) import ['\"](.*)['\"] cannot be found", fault.message)
    assert found, fault
    return f"{found[1].lower()} {found[2]}"


def _said_ancestor(fault: Fault) -> str:
    missing = fault.message.removeprefix('Missing ancestor policy "').removesuffix('"')
    return f"{missing} for {fault.hint.partition(' needs it')[0]}"


def _said_permissions(fault: Fault) -> str:
    return fault.message.partition('"')[2].partition('"')[0]


_SAID: Mapping[str, Callable[[Fault], str]] = {
    DUPLICATE_DEFINITION: _said_duplicate,
    IMPORT_NOT_FOUND: _said_import,
    MISSING_POLICY: _said_ancestor,
    SCOPE_PERMISSIONS: _said_permissions,
}
PHASE_ONE = frozenset(("unreadable", *_SAID))


# -- comparing ---------------------------------------------------------------------------------------------


def differences(
    theirs: Sequence[Told], ours: Sequence[Told], *, compiled: bool
) -> tuple[list[Told], list[Told]]:
    """Return what only Cerbos says, and what only we say although Cerbos had looked at it as well."""
    placeless = {told[:3] for told in theirs if told.kind == "unreadable" and not told.line}
    said = {told._replace(line=0, column=0, path="") if told[:3] in placeless else told for told in ours}
    wanted = set(theirs)
    extra = {told for told in said - wanted if compiled or told.kind in PHASE_ONE}
    stopped_files = {told.file for told in wanted & said if told.kind == "unreadable"}
    stopped_cases = {told.case for told in wanted & said if told.kind not in PHASE_ONE}
    extra = {
        told
        for told in extra
        if not (told.kind == "unreadable" and told.file in stopped_files)
        and not (told.kind not in PHASE_ONE and told.case in stopped_cases)
    }
    return sorted(wanted - said), sorted(extra)


def write(directory: Path, cases: Iterable[Case]) -> None:
    """Write the files of all cases to one store."""
    for case in cases:
        for name, text in case.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def compare(directory: Path, cases: Sequence[Case]) -> bool:
    """Compare what both sides say of *cases*; returns whether Cerbos got as far as compiling."""
    write(directory, cases)
    compiled, theirs = cerbos_says(directory)
    missed, extra = differences(theirs, we_say(directory), compiled=compiled)
    breaks = {case.number: case.breaks for case in cases}
    told = [
        *(f"only Cerbos: {told} after {breaks.get(told.case)}" for told in missed),
        *(f"only we: {told} after {breaks.get(told.case)}" for told in extra),
    ]
    assert not told, "\n".join(told)
    return compiled


def cases_of(batch: int, breaks: tuple[Break, ...]) -> list[Case]:
    """Return one batch of broken sets."""
    return [broken(SEED, number, breaks) for number in range(batch * BATCH, (batch + 1) * BATCH)]


def test_the_sets_are_valid(tmp_path: Path) -> None:
    """Before they are broken, nothing is wrong with the sets, for Cerbos as for us."""
    import random  # noqa: PLC0415 - only the styles of writing are random here

    rng = random.Random(SEED)  # noqa: S311 - for variety
    cases = [
        Case(number, {path: dumped(rng, path, value) for path, value in valid_set(number).items()})
        for number in range(5)
    ]
    write(tmp_path, cases)
    assert cerbos_says(tmp_path) == (True, [])
    assert we_say(tmp_path) == []


@pytest.mark.parametrize("batch", READING_BATCHES)
def test_policies_that_cannot_be_read(batch: int, tmp_path: Path) -> None:
    """Unreadable files, duplicates, missing imports and ancestors are told as Cerbos tells them."""
    cerbos_binary()
    assert not compare(tmp_path, cases_of(batch, READING)), "nothing was broken"


@pytest.mark.parametrize("batch", COMPILING_BATCHES)
def test_policies_that_do_not_compile(batch: int, tmp_path: Path) -> None:
    """Faults of expressions, definitions, roles, outputs and schemas are told as Cerbos tells them."""
    cerbos_binary()
    cases = cases_of(batch, COMPILING)
    if compare(tmp_path / "all", cases):
        return
    # Some break made a set unreadable, which kept Cerbos from compiling the others.
    readable = [case for case in cases if not _is_unreadable(tmp_path / str(case.number), case)]
    assert compare(tmp_path / "readable", readable)


def _is_unreadable(directory: Path, case: Case) -> bool:
    write(directory, [case])
    return any(told.kind in PHASE_ONE for told in we_say(directory))
