"""Reduces a difference to a small set of policies and a small request that still differ."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from engine import Engine, PolicyError
from tests.differential.compare import Difference, differences
from tests.differential.expressions import shorter
from tests.differential.oracle import OracleError
from tests.differential.sides import Configuration, Files, Request, asking_cerbos, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_TRIALS = 400
"""Each trial starts a Cerbos, which takes about a third of a second."""


@dataclass(frozen=True)
class Case:
    """Everything that it takes to see a difference again."""

    files: Files
    request: Request
    configuration: Configuration

    def __str__(self) -> str:
        """Show the case as it can be pasted: a YAML document for each policy, the request as JSON."""
        policies = "".join(
            f"--- # {path}\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"
            for path, content in self.files.items()
        )
        request = json.dumps(self.request, ensure_ascii=False)
        return f"{policies}# configuration: {self.configuration}\n# request: {request}\n"


def difference(case: Case, times: int = 1) -> Difference | None:
    """Return the first unexplained difference of a case; ``None`` when, one of *times*, there is none."""
    found: Difference | None = None
    try:
        with written(case.files) as directory:
            engine = Engine.from_directory(directory, settings=case.configuration.settings())
            with asking_cerbos(directory, case.configuration) as cerbos:
                for _ in range(times):
                    found = _unexplained(differences(engine, cerbos, case.request))
                    if found is None:
                        break
    except (PolicyError, OracleError, KeyError):
        return None  # not a case any more
    return found


def _unexplained(found: Iterable[Difference]) -> Difference | None:
    return next((one for one in found if one.quirks is None and not one.cerbos.failure), None)


def shrunk(case: Case, found: Difference) -> tuple[Case, Difference]:
    """Return a smaller case that differs in one of the same fields; *found* is the difference of *case*."""
    trials = 0
    progress = True
    while progress and trials < MOST_TRIALS:
        progress = False
        for candidate in _candidates(case):
            trials += 1
            other = difference(candidate)
            if other is not None and set(other.fields) & set(found.fields):
                case, found, progress = candidate, other, True
                break
            if trials >= MOST_TRIALS:
                break
    return case, found


def _candidates(case: Case) -> Iterator[Case]:
    """Return simpler cases, those with most taken away first."""
    for files in _halves(dict(case.files)):
        yield replace(case, files=files)
    for request in _simpler(case.request):
        yield replace(case, request=request)
    for path, content in case.files.items():
        for simpler in _simpler(content):
            yield replace(case, files={**case.files, path: simpler})


def _halves(files: dict[str, Any]) -> Iterator[dict[str, Any]]:
    paths = list(files)
    size = len(paths) // 2
    while size:
        for start in range(0, len(paths), size):
            dropped = set(paths[start : start + size])
            yield {path: content for path, content in files.items() if path not in dropped}
        size //= 2


def _simpler(value: Any) -> Iterator[Any]:
    """Return the JSON value with one thing less in it, whatever is nearer to the root first."""
    if isinstance(value, dict):
        for key in value:
            yield {name: item for name, item in value.items() if name != key}
        for key, item in value.items():
            yield from ({**value, key: simpler} for simpler in _simpler(item))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield [*value[:index], *value[index + 1 :]]
        for index, item in enumerate(value):
            yield from ([*value[:index], simpler, *value[index + 1 :]] for simpler in _simpler(item))
    elif isinstance(value, str) and "(" in value:
        yield from shorter(value)
