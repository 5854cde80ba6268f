"""What is known when a plan is made: all but most of the resource."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from engine.cel import EvaluationError, Timestamp
from engine.cel.records import readers
from engine.cel.runtime import record
from engine.expressions import CONSTANTS, GLOBALS, RECORDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.cel import RecordValue
    from engine.model import JsonValue
    from engine.plan.model import PlanInput
    from engine.rules import Namespace

_READERS = readers(RECORDS)


class Unknown:
    """The class of :data:`UNKNOWN`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()
"""What stands for a value that only the resource will have."""


class Found(NamedTuple):
    """A value, and how many of the names after the first it took to find it."""

    value: object
    used: int = 0


NOT_KNOWN = Found(UNKNOWN)


class Known:
    """The values of one plan for the expressions of one policy."""

    __slots__ = ("_action", "_values", "now", "resource")

    def __init__(
        self,
        question: PlanInput,
        action: str,
        constants: Namespace,
        globals_: Namespace,
        now: Timestamp,
    ) -> None:
        self.now = now
        self._action = action
        self.resource: Mapping[str, object] = {
            "kind": question.resource.kind,
            "scope": question.resource.scope.removeprefix("."),
        }
        self._values: dict[str, object] = {
            "P": _record("cerbos.Principal", _principal(question)),
            "aux_data": _record("cerbos.AuxData", question.aux_data),
            **dict.fromkeys(CONSTANTS, constants),
            **dict.fromkeys(GLOBALS, globals_),
            "attr": question.resource.attr,
        }

    def find(self, name: str, path: Sequence[str | None]) -> Found:
        """Return what the variable *name* with the selections of *path* is; ``None`` is a computed key.

        Of the resource, kind, scope and the attributes that the question gives are known.

        Raises:
            EvaluationError: there is no such variable when a plan is made.

        """
        if name == "R":
            return self._of_resource(path)
        if name == "request":
            return self._of_request(path)
        if name == "runtime" and path[:1] == ["action"]:
            return Found(self._action, 1)
        if name in self._values and name not in INTERNAL:
            return Found(self._values[name])
        raise EvaluationError(f"no such attribute(s): {name}")

    def _of_request(self, path: Sequence[str | None]) -> Found:
        part = path[0] if path else None
        if part == "resource":
            found = self._of_resource(path[1:])
            return found if found.value is UNKNOWN else Found(found.value, found.used + 1)
        name = PARTS.get(part or "")
        return NOT_KNOWN if name is None else Found(self._values[name], 1)

    def _of_resource(self, path: Sequence[str | None]) -> Found:
        attributes: Mapping[str, JsonValue] = self._values["attr"]  # type: ignore[assignment] # put there above
        match list(path[:2]):
            case [("kind" | "scope") as field, *_]:
                return Found(self.resource[field], 1)
            case ["attr", str(key)] if key in attributes:
                return Found(attributes[key], 2)
        return NOT_KNOWN


class Nothing(Known):
    """Knows nothing: what is constant needs no question."""

    __slots__ = ()

    def __init__(self) -> None:
        self.now = Timestamp(0)

    def find(self, name: str, path: Sequence[str | None]) -> Found:
        """Find nothing."""
        return NOT_KNOWN


INTERNAL = frozenset({"attr", "aux_data"})
PARTS = {"principal": "P", "auxData": "aux_data", "aux_data": "aux_data"}


def _principal(question: PlanInput) -> object:
    principal = question.principal
    return principal._replace(scope=principal.scope.removeprefix("."))


def _record(name: str, value: object) -> RecordValue:
    return record(name, _READERS[name], value)
