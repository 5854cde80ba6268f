"""What is wrong with policies, sorted as Cerbos sorts it: the store first (lint), then each policy (compile).

Cerbos ends after the first of the two; people are shown both here. The JSON forms are those of
``cerbos compile --output=json``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.compile import IMPORT_NOT_FOUND, UNKNOWN_DERIVED_ROLE
from engine.document import PARSE_ERROR, VALIDATION_ERROR, json_path
from engine.library import DUPLICATE_DEFINITION, MISSING_POLICY, SCOPE_PERMISSIONS
from engine.load import PolicyError, load_policy
from extauthz.compiling.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.document import Fault
    from engine.policy import Policy
    from engine.storage import Snapshot

LOAD_KINDS = {"": 0, PARSE_ERROR: 1, VALIDATION_ERROR: 2}
"""Kinds of faults that keep a file from being read, and their numbers in Cerbos's JSON."""

LINT_KINDS = frozenset(
    (*LOAD_KINDS, DUPLICATE_DEFINITION, IMPORT_NOT_FOUND, MISSING_POLICY, SCOPE_PERMISSIONS)
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A fault with its place in Cerbos's sense and an excerpt of the source."""

    fault: Fault
    line: int
    column: int
    excerpt: str

    def position(self) -> dict[str, Any] | None:
        """Write the place as JSON, ``None`` when it is the whole file."""
        if not self.line:
            return None
        path = json_path(self.fault.path) if self.fault.path else ""
        return {"line": self.line, "column": self.column} | ({"path": path} if path else {})


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A policy that another file has defined before."""

    at: Placed
    policy: str
    other_file: str


@dataclass(frozen=True, slots=True)
class MissingImport:
    """An import of something that is not there."""

    at: Placed
    policy: str
    kind: str
    """``derived roles``, ``variables`` or ``constants``."""

    name: str


@dataclass(frozen=True, slots=True)
class MissingScope:
    """A policy that has to be there because of others in scopes below."""

    policy: str
    descendants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disabled:
    """A policy that is switched off: no fault, but often the reason of one."""

    file: str
    policy: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problems:
    """Everything that is wrong with a store."""

    load_failures: tuple[Placed, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    missing_imports: tuple[MissingImport, ...] = ()
    missing_scopes: tuple[MissingScope, ...] = ()
    conflicts: tuple[str, ...] = ()
    """Scopes whose policies do not agree on what an allow means."""

    disabled: tuple[Disabled, ...] = ()
    compile_errors: tuple[Placed, ...] = ()

    @property
    def lint(self) -> bool:
        """Tell whether there is anything that Cerbos finds before it compiles."""
        return any(
            (self.load_failures, self.duplicates, self.missing_imports, self.missing_scopes, self.conflicts)
        )

    def to_json(self) -> dict[str, Any]:
        """Write what Cerbos writes: what is wrong with the store, or else with the policies."""
        if self.lint:
            return {"lintErrors": _lint_json(self)}
        return {"compileErrors": {"errors": [_compile_error_json(error) for error in self.compile_errors]}}


def problems_of(error: PolicyError, snapshot: Snapshot) -> Problems:
    """Sort the faults of a store."""
    source = _Source(snapshot)
    by_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in error.faults:
        by_kind[fault.kind].append(fault)
    imports = by_kind[IMPORT_NOT_FOUND]
    compiled = [
        fault
        for fault in error.faults
        if fault.kind not in LINT_KINDS and not (imports and fault.kind == UNKNOWN_DERIVED_ROLE)
    ]
    return Problems(
        load_failures=tuple(source.placed(fault) for kind in LOAD_KINDS for fault in by_kind[kind]),
        duplicates=tuple(source.duplicate(fault) for fault in by_kind[DUPLICATE_DEFINITION]),
        missing_imports=tuple(source.missing_import(fault) for fault in imports),
        missing_scopes=tuple(source.missing_scopes(by_kind[MISSING_POLICY])),
        conflicts=tuple(dict.fromkeys(_quoted(fault.message) for fault in by_kind[SCOPE_PERMISSIONS])),
        disabled=tuple(source.disabled()),
        compile_errors=tuple(map(source.placed, compiled)),
    )


class _Source:
    """The files of a store, and the policies of those that can be read."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._texts = {path: content.decode(errors="replace") for path, content in snapshot.files.items()}
        self._policies = dict(_readable(snapshot.files))

    def placed(self, fault: Fault) -> Placed:
        text = self._texts.get(fault.file, "")
        line, column = fault.line, fault.column
        return Placed(fault, line, column, excerpt(text, line, column))

    def duplicate(self, fault: Fault) -> Duplicate:
        policy = self._policies[fault.file]
        first = next(file for file in sorted(self._policies) if self._policies[file].key == policy.key)
        placed = self.placed(fault)
        line, column = self._root(fault.file)
        return Duplicate(Placed(fault, line, column, placed.excerpt), policy.key, first)

    def missing_import(self, fault: Fault) -> MissingImport:
        policy = self._policies[fault.file]
        kind = "derived roles" if "importDerivedRoles" in fault.path else str(fault.path[1])
        name = policy.document.source_text(fault.path) or ""
        return MissingImport(self.placed(fault), policy.key, kind, name)

    def missing_scopes(self, faults: Iterable[Fault]) -> Iterable[MissingScope]:
        found: dict[str, list[str]] = defaultdict(list)
        for fault in faults:
            found[_quoted(fault.message)].append(self._policies[fault.file].key)
        return [MissingScope(policy, tuple(sorted(found[policy]))) for policy in sorted(found)]

    def disabled(self) -> Iterable[Disabled]:
        off = [file for file, policy in sorted(self._policies.items()) if policy.disabled]
        return [Disabled(file, self._policies[file].key, *self._root(file)) for file in off]

    def _root(self, file: str) -> tuple[int, int]:
        """Return where Cerbos places a policy as a whole: at the first colon of a block mapping."""
        line, column = self._policies[file].document.place(())
        text = self._texts[file].splitlines()[line - 1]
        if text[column - 1 : column] == "{":
            return line, column
        return line, text.find(":", column - 1) + 1


def _readable(files: Mapping[str, bytes]) -> Iterable[tuple[str, Policy]]:
    for path, content in files.items():
        try:
            policy = load_policy(content, path)
        except PolicyError:
            continue
        if policy is not None:
            yield path, policy


def _quoted(message: str) -> str:
    """Return what a message quotes."""
    found = re.search('"([^"]*)"', message)
    return found[1] if found else message


# -- Cerbos's JSON -----------------------------------------------------------------------------------------


def _lint_json(found: Problems) -> dict[str, Any]:
    members: dict[str, list[dict[str, Any]]] = {
        "duplicate_defs": [
            {
                "file": duplicate.at.fault.file,
                "other_file": duplicate.other_file,
                "policy": duplicate.policy,
                "position": duplicate.at.position(),
            }
            for duplicate in found.duplicates
        ],
        "load_failures": [_load_failure_json(failure) for failure in found.load_failures],
        "missing_imports": [
            {
                "importing_file": missing.at.fault.file,
                "desc": f"cannot find {missing.kind} '{missing.name}' imported by policy {missing.policy}",
                "importing_policy": missing.policy,
                "import_kind": missing.kind,
                "import_name": missing.name,
                "position": missing.at.position(),
                "context": missing.at.excerpt,
            }
            for missing in found.missing_imports
        ],
        "disabled_defs": [
            {
                "file": policy.file,
                "policy": policy.policy,
                "position": {"line": policy.line, "column": policy.column},
            }
            for policy in found.disabled
        ],
        "missing_scope_details": [
            {"missing_policy": missing.policy, "descendants": list(missing.descendants)}
            for missing in found.missing_scopes
        ],
        "scope_permissions_conflicts": [{"scope": scope} for scope in found.conflicts],
    }
    return {name: entries for name, entries in members.items() if entries}


def _load_failure_json(failure: Placed) -> dict[str, Any]:
    fault = failure.fault
    details = {
        "kind": LOAD_KINDS[fault.kind],
        "position": failure.position(),
        "message": fault.message,
        "context": failure.excerpt,
    }
    set_details = {name: value for name, value in details.items() if value}
    return {"file": fault.file, "error": fault.message, "error_details": set_details}


def _compile_error_json(error: Placed) -> dict[str, Any]:
    fault = error.fault
    members = {
        "file": fault.file,
        "error": fault.kind,
        "description": fault.message,
        "position": error.position(),
        "context": error.excerpt,
    }
    return {name: value for name, value in members.items() if value}
