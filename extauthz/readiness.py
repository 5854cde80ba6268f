"""Whether this process can answer, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Component:
    """One part that has to work before requests may come: policies, a key set, the gRPC port."""

    name: str
    ready: bool
    detail: str = ""
    """Why it is not ready, or what a person may want to know although it is."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of every part at one moment."""

    components: tuple[Component, ...] = ()

    @property
    def ready(self) -> bool:
        """True when every part is ready."""
        return all(component.ready for component in self.components)

    def document(self) -> dict[str, object]:
        """Write the body of ``/readyz``: parts in order, details only where there is one."""
        return {
            "ready": self.ready,
            "components": [
                {"name": part.name, "ready": part.ready, **({"detail": part.detail} if part.detail else {})}
                for part in self.components
            ],
        }


class Readiness(Protocol):
    """Tells the state now. It is called often and must neither wait nor raise."""

    def __call__(self) -> Status:
        """Return the state now."""
        ...
