"""Runs comparisons: generated policy sets, each asked many generated questions, by several configurations."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from engine import Engine
from tests.differential.compare import Difference, differences
from tests.differential.oracle import OracleError, compile_policies
from tests.differential.policies import policy_set
from tests.differential.requests import request
from tests.differential.shrink import Case, difference
from tests.differential.sides import Configuration, asking_cerbos, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.differential.sides import Files, Request

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

STARTED_AGAIN, ASKED_AGAIN = 16, 8
"""How often Cerbos is started, and asked, before its answer is taken to be the only one that it has."""

WAVERING = "Cerbos wavers"

REQUESTS = 20
"""Requests to one set of policies; to make a set and to start Cerbos costs as much as some of them."""


@dataclass
class Tally:
    """What a run has seen."""

    checks: int = 0
    actions: int = 0
    sets: int = 0
    refused: int = 0
    """Expressions that only Cerbos's checker refuses."""

    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[tuple[Case, Difference]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count what another run has seen."""
        self.checks += other.checks
        self.actions += other.actions
        self.sets += other.sets
        self.refused += other.refused
        self.explained.update(other.explained)
        self.unexplained += other.unexplained

    def __str__(self) -> str:
        by_quirk = ", ".join(f"{name} {count}" for name, count in sorted(self.explained.items()))
        return (
            f"{self.checks} checks ({self.actions} actions, {self.sets} sets of policies) compared, "
            f"{self.explained.total()} differ as listed ({by_quirk or 'none'}), "
            f"{len(self.unexplained)} unexplained"
        )


def accepted(files: Files) -> tuple[Files, int]:
    """Replace the expressions that only Cerbos refuses; its type checker and ours are not the same program.

    Returns the policies, and how many expressions that were.
    """
    with written(files) as directory:
        said = compile_policies(directory, "--output=json")
    errors = json.loads(said.stdout).get("compileErrors", {}).get("errors", []) if said.returncode else []
    for error in errors:
        assert error["error"] == "invalid expression", error
        keys = re.findall(r"\w+", error["position"]["path"])
        files = {**files, error["file"]: _replaced(files[error["file"]], keys)}
    return files, len(errors)


def _replaced(value: Any, keys: Sequence[str]) -> Any:
    if not keys:
        return "true"
    key, *rest = keys
    if isinstance(value, list):
        return [_replaced(item, rest) if index == int(key) else item for index, item in enumerate(value)]
    return {**value, key: _replaced(value[key], rest)}


def compared(seed: int, requests: int = REQUESTS) -> Tally:
    """Compare one set of policies, made from *seed*, on as many requests."""
    random = Random(seed)  # noqa: S311 - nothing secret: the same seed has to make the same policies
    configuration = CONFIGURATIONS[seed % len(CONFIGURATIONS)]
    files = policy_set(random)
    asked = [request(random, RESOURCES) for _ in range(requests)]
    try:
        return tallied(files, configuration, asked)
    except OracleError:
        others, refused = accepted(files)
        if not refused:
            raise
    tally = tallied(others, configuration, asked)
    tally.refused = refused
    return tally


def tallied(files: Files, configuration: Configuration, asked: Sequence[Request]) -> Tally:
    """Ask both sides everything, and count what differs."""
    tally = Tally(sets=1)
    with written(files) as directory:
        engine = Engine.from_directory(directory, settings=configuration.settings())
        with asking_cerbos(directory, configuration) as cerbos:
            for one in asked:
                tally.checks += len(one["resources"])
                tally.actions += sum(len(entry["actions"]) for entry in one["resources"])
                for found in differences(engine, cerbos, one):
                    _count(tally, Case(files, found.request, configuration), found)
    return tally


def _count(tally: Tally, case: Case, found: Difference) -> None:
    if found.quirks is not None:
        tally.explained[" + ".join(found.quirks)] += 1
    elif wavers(case):
        tally.explained[WAVERING] += 1
    else:
        tally.unexplained.append((case, found))


def wavers(case: Case) -> bool:
    """Tell whether Cerbos, started and asked again, also gives an answer that is no unexplained difference.

    It does where the order of a Go map decides: the rows of one rule, the parents of a role.
    """
    return any(difference(case, times=ASKED_AGAIN) is None for _ in range(STARTED_AGAIN))


def runs(seeds: Sequence[int]) -> Iterator[Tally]:
    """Compare a set of policies for each of *seeds*."""
    return (compared(seed) for seed in seeds)
