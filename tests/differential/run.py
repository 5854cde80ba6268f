"""Runs comparisons: generated policy sets, each asked many generated questions, by several configurations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from engine import Engine
from tests.differential.compare import Difference, differences
from tests.differential.policies import policy_set
from tests.differential.requests import request
from tests.differential.shrink import Case
from tests.differential.sides import Configuration, asking_cerbos, ours, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GLOBALS = {"limit": 10, "place": "test"}

CONFIGURATIONS = (
    Configuration("lenient", globals=GLOBALS),
    Configuration("strict", evaluation="strict", globals=GLOBALS),
    Configuration(
        "lenient scopes",
        lenient_scope_search=True,
        default_scope="acme.hr",
        default_policy_version="v2",
        globals=GLOBALS,
    ),
)

RESOURCES = 50
"""Resources of one request: Cerbos's own limit, and the fewest round trips."""

REQUESTS = 10
"""Requests to one set of policies; a start of Cerbos costs as much as some of them."""


@dataclass
class Tally:
    """What a run has seen."""

    checks: int = 0
    actions: int = 0
    sets: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[tuple[Case, Difference]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count what another run has seen."""
        self.checks += other.checks
        self.actions += other.actions
        self.sets += other.sets
        self.explained.update(other.explained)
        self.unexplained += other.unexplained

    def __str__(self) -> str:
        by_quirk = ", ".join(f"{name} {count}" for name, count in sorted(self.explained.items()))
        return (
            f"{self.checks} checks ({self.actions} actions, {self.sets} sets of policies) compared, "
            f"{self.explained.total()} differ as listed ({by_quirk or 'none'}), "
            f"{len(self.unexplained)} unexplained"
        )


def compared(seed: int, requests: int = REQUESTS) -> Tally:
    """Compare one set of policies, made from *seed*, on as many requests."""
    random = Random(seed)  # noqa: S311 - nothing secret: the same seed has to make the same policies
    configuration = CONFIGURATIONS[seed % len(CONFIGURATIONS)]
    files = policy_set(random)
    tally = Tally(sets=1)
    with written(files) as directory:
        engine = Engine.from_directory(directory, settings=configuration.settings())
        with asking_cerbos(directory, configuration) as cerbos:
            for _ in range(requests):
                asked = request(random, RESOURCES)
                tally.checks += len(asked["resources"])
                tally.actions += sum(len(entry["actions"]) for entry in asked["resources"])
                for found in differences(engine, asked, ours(engine, asked), cerbos.answers(asked)):
                    _count(tally, Case(files, found.request, configuration), found)
    return tally


def _count(tally: Tally, case: Case, found: Difference) -> None:
    if found.quirks is None:
        tally.unexplained.append((case, found))
    else:
        tally.explained[" + ".join(found.quirks)] += 1


def runs(seeds: Sequence[int]) -> Iterator[Tally]:
    """Compare a set of policies for each of *seeds*."""
    return (compared(seed) for seed in seeds)
