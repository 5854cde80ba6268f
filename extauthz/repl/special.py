"""``request``, ``runtime``, ``C``, ``V`` and ``G`` while someone sets them piece by piece.

They are kept as JSON documents, in the form of a CheckResources request; each change is checked as a whole,
so that the values behind ``P`` and ``R`` are always of the engine's types.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from engine.document import did_you_mean
from engine.model import AuxData, CheckInput, Principal, Resource, json_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.model import JsonValue

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "P": ("request", "principal"),
    "R": ("request", "resource"),
    "C": ("constants",),
    "V": ("variables",),
    "G": ("globals",),
}
"""Short names, and where they lead."""

ROOTS: Final = ("request", "runtime", "constants", "variables", "globals")

_TEXT, _TEXTS, _MAP = "a string", "a list of strings", "a map"
_PRINCIPAL = {"id": _TEXT, "roles": _TEXTS, "attr": _MAP, "policyVersion": _TEXT, "scope": _TEXT}
_RESOURCE = {"kind": _TEXT, "id": _TEXT, "attr": _MAP, "policyVersion": _TEXT, "scope": _TEXT}
_SHAPE: Final[Mapping[str, Any]] = {
    "request": {
        "principal": _PRINCIPAL,
        "resource": _RESOURCE,
        "auxData": {"jwt": _MAP, "jwts": _MAP},
    },
    "runtime": {"effectiveDerivedRoles": _TEXTS},
    "constants": _MAP,
    "variables": _MAP,
    "globals": _MAP,
}
"""The fields that each special variable has, and what they take; a map takes anything."""

_OTHER_SPELLING = {
    "policy_version": "policyVersion",
    "aux_data": "auxData",
    "effective_derived_roles": "effectiveDerivedRoles",
}


class SpecialError(Exception):
    """A value does not fit a special variable."""


def is_special(name: str) -> bool:
    """Tell whether *name* is a special variable, by its short or its long name."""
    return name in ALIASES or name in ROOTS


class Special:
    """The special variables as they are set now."""

    def __init__(self) -> None:
        self._documents: dict[str, Any] = {root: {} for root in ROOTS}

    def get(self, name: str) -> JsonValue:
        """Return the document behind a name, short or long; ``{}`` when nothing was set."""
        found: Any = self._documents
        for step in ALIASES.get(name, (name,)):
            found = found.get(step, {})
        return found

    def set(self, path: Sequence[str], value: JsonValue) -> None:
        """Set what *path* leads to (``("P", "attr", "region")``) to a JSON value.

        Raises:
            SpecialError: there is no such field, or the value is not of its type.

        """
        root, *steps = _canonical((*ALIASES.get(path[0], (path[0],)), *path[1:]))
        changed = _with(self._documents[root], steps, value, shown=".".join(path))
        _check(changed, _SHAPE[root], root)
        self._documents[root] = _renamed(changed, _SHAPE[root])

    @property
    def question(self) -> CheckInput:
        """What ``request`` is to the engine; the actions are empty."""
        request = self._documents["request"]
        aux_data = request.get("auxData", {})
        return CheckInput(
            _filled(Principal, {"id": "", "roles": ()}, request.get("principal", {})),
            _filled(Resource, {"kind": "", "id": ""}, request.get("resource", {})),
            (),
            AuxData(aux_data.get("jwt", {}), aux_data.get("jwts", {})),
        )

    @property
    def effective_derived_roles(self) -> list[str]:
        """What ``runtime.effectiveDerivedRoles`` says."""
        found: list[str] = self._documents["runtime"].get("effectiveDerivedRoles", [])
        return found


def _canonical(path: Sequence[str]) -> list[str]:
    """Spell the fields of the request the way its JSON does; names inside of maps stay as they are."""
    steps: list[str] = []
    shape: Any = _SHAPE
    for step in path:
        known = isinstance(shape, dict)
        steps.append(_OTHER_SPELLING.get(step, step) if known else step)
        shape = shape.get(steps[-1], _MAP) if known else _MAP
    return steps


def _with(document: Any, path: Sequence[str], value: JsonValue, *, shown: str) -> JsonValue:
    """Return a copy of *document* in which *path* leads to *value*; maps on the way are made."""
    if not path:
        return json_value(value)
    changed = copy.copy(document) if document else {}
    if not isinstance(changed, dict):
        raise SpecialError(f"`{shown}` cannot be set: what stands above it is not a map")
    changed[path[0]] = _with(changed.get(path[0]), path[1:], value, shown=shown)
    return changed


def _check(value: JsonValue, shape: Any, shown: str) -> None:
    if isinstance(shape, str):
        if not _FITS[shape](value):
            raise SpecialError(f"`{shown}` takes {shape}")
        return
    if not isinstance(value, dict):
        raise SpecialError(f"`{shown}` takes a map")
    for name, item in value.items():
        spelled = _OTHER_SPELLING.get(name, name)
        if spelled not in shape:
            hint = did_you_mean(name, shape) or f"there are {', '.join(shape)}"
            raise SpecialError(f"`{shown}` has no field `{name}` ({hint})")
        _check(item, shape[spelled], f"{shown}.{name}")


def _is_text(value: JsonValue) -> bool:
    return isinstance(value, str)


_FITS: Final[Mapping[str, Callable[[JsonValue], bool]]] = {
    _TEXT: _is_text,
    _TEXTS: lambda value: isinstance(value, list) and all(map(_is_text, value)),
    _MAP: lambda value: isinstance(value, dict),
}


def _renamed(value: Any, shape: Any) -> Any:
    if not isinstance(shape, dict):
        return value
    return {
        spelled: _renamed(item, shape[spelled])
        for spelled, item in ((_OTHER_SPELLING.get(name, name), item) for name, item in value.items())
    }


_ATTRIBUTES = {"policyVersion": "policy_version"}


def _filled(cls: Any, defaults: Mapping[str, Any], document: Mapping[str, JsonValue]) -> Any:
    given = {_ATTRIBUTES.get(name, name): value for name, value in document.items()}
    if "roles" in given:
        given["roles"] = tuple(given["roles"])
    return cls(**{**defaults, "attr": {}, **given})
