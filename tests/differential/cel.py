"""Expressions by themselves: each the output of a rule, evaluated by our engine and by the real Cerbos."""

from __future__ import annotations

import json
import re
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import Engine
from engine.cel import CompileError, Environment
from engine.expressions import environment
from tests.differential.expressions import OUTPUT_KINDS, expression
from tests.differential.folding import misfolded
from tests.differential.oracle import OracleError, compile_policies
from tests.differential.policies import API
from tests.differential.requests import ODD, TYPICAL, attributes
from tests.differential.sides import Cerbos, Configuration, asking_cerbos, ours, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RULES = 250
"""Expressions in one policy."""

ACTIONS = 50
"""Actions in one resource: a number in an output that JSON does not have costs the answers to all of them."""


class Mismatch(NamedTuple):
    """An expression that is not evaluated, or accepted, as by Cerbos."""

    text: str
    ours: str
    cerbos: str
    resource: Mapping[str, Any]


def texts(seed: int, count: int) -> list[str]:
    """Return different expressions of all kinds."""
    random = Random(seed)  # noqa: S311 - nothing secret: the same seed has to make the same expressions
    found: dict[str, None] = {}
    while len(found) < count:
        found[expression(random, random.choice(OUTPUT_KINDS), random.choice((1, 2, 2, 3)))] = None
    return list(found)


def policy(expressions: Sequence[str]) -> dict[str, Any]:
    """Return a policy with an action and a rule for each expression."""
    rules = [
        {
            "actions": [f"a{index}"],
            "effect": "EFFECT_ALLOW",
            "roles": ["*"],
            "output": {"when": {"ruleActivated": text}},
        }
        for index, text in enumerate(expressions)
    ]
    body = {"resource": "doc", "version": "default", "rules": rules}
    return {"policy.json": {"apiVersion": API, "resourcePolicy": body}}


# -- what is accepted --------------------------------------------------------------------------------------


def refused_by_us(expressions: Sequence[str], checker: Environment) -> dict[str, str]:
    """Return the expressions that do not compile here, with what is wrong."""
    found = {}
    for text in expressions:
        try:
            checker.compile(text)
        except CompileError as error:
            found[text] = str(error)
    return found


def refused_by_cerbos(expressions: Sequence[str]) -> dict[str, str]:
    """Return the expressions that ``cerbos compile`` refuses, with what it says."""
    with written(policy(expressions)) as directory:
        said = compile_policies(directory, "--output=json")
    if said.returncode == 0:
        return {}
    errors = json.loads(said.stdout)["compileErrors"]["errors"]
    return {expressions[_rule(error["position"]["path"])]: error["description"] for error in errors}


def _rule(path: str) -> int:
    found = re.search(r"rules\[(\d+)\]", path)
    assert found is not None, path
    return int(found[1])


# -- what comes out ----------------------------------------------------------------------------------------


def mismatches(expressions: Sequence[str], seed: int) -> Iterator[Mismatch]:
    """Return where values differ, or one side has an error and the other a value."""
    random = Random(seed)  # noqa: S311 - see above
    with written(policy(expressions)) as directory:
        engine = Engine.from_directory(directory)
        with asking_cerbos(directory, Configuration("expressions")) as cerbos:
            for resource in _resources(random):
                yield from _asked(engine, cerbos, expressions, resource)


def _resources(random: Random) -> Iterator[dict[str, Any]]:
    """Return a resource as expressions expect it, two random ones, one as they do not."""
    usual = {name: values[0] for name, values in TYPICAL.items()}
    odd = {name: random.choice(ODD) for name in TYPICAL}
    for index, values in enumerate((usual, attributes(random), attributes(random), odd)):
        yield {"kind": "doc", "id": str(index), "attr": values}


def _asked(
    engine: Engine, cerbos: Cerbos, expressions: Sequence[str], resource: dict[str, Any]
) -> Iterator[Mismatch]:
    actions = [f"a{index}" for index in range(len(expressions))]
    groups = [actions[start : start + ACTIONS] for start in range(0, len(actions), ACTIONS)]
    request = {
        "principal": {"id": "10", "roles": ["user", "a"], "attr": {"any": "a", "other": 1.5, "no": False}},
        "resources": [{"actions": group, "resource": resource} for group in groups],
    }
    for entry, mine in zip(request["resources"], ours(engine, request), strict=True):
        theirs = _outcomes(cerbos, {**request, "resources": [entry]})
        for source, action, value, failed in mine.outputs:
            found = "error" if failed else value
            if action in theirs and theirs[action] != found:
                yield Mismatch(expressions[int(action[1:])], found, theirs[action], resource)
            assert source


def _outcomes(cerbos: Cerbos, request: dict[str, Any]) -> dict[str, str]:
    """Return what Cerbos says, by action; those for which it has no answer are left out."""
    (entry,) = request["resources"]
    (answer,) = cerbos.answers(request)
    if not answer.failure:
        return {action: "error" if failed else value for _, action, value, failed in answer.outputs}
    if len(entry["actions"]) == 1:
        return {}
    middle = len(entry["actions"]) // 2
    halves = (entry["actions"][:middle], entry["actions"][middle:])
    parts = [{**request, "resources": [{**entry, "actions": half}]} for half in halves]
    return {action: found for part in parts for action, found in _outcomes(cerbos, part).items()}


def explained(found: Mismatch) -> bool:
    """Tell whether a mismatch is one that we know of."""
    return (
        misfolded(found.text)
        or _is_order_of_a_map(found)
        or (found.cerbos == "error" and TYPE_IN_A_LOOP.search(found.text) is not None)
    )


TYPE_IN_A_LOOP = re.compile(r"\[\].*type\(.*\bv\d\b")
"""Of a variable over an empty list cel-go says that its type is not defined, if it is asked for types."""


def _is_order_of_a_map(found: Mismatch) -> bool:
    """Tell whether two lists differ in their order alone: Go goes through a map in any order."""
    if "error" in (found.ours, found.cerbos):
        return False
    mine, theirs = json.loads(found.ours), json.loads(found.cerbos)
    return (
        isinstance(mine, list)
        and isinstance(theirs, list)
        and sorted(map(json.dumps, mine)) == sorted(map(json.dumps, theirs))
        and ORDER_OF_A_MAP.search(found.text) is not None
    )


ORDER_OF_A_MAP = re.compile(r"transformList|\.map\(|\.filter\(")


def both(text: str) -> tuple[str, str]:
    """Return what an expression is here and in Cerbos: a value as JSON, or what there is instead of one."""
    resource = {"kind": "doc", "id": "1", "attr": {"list": []}}
    request = {
        "principal": {"id": "10", "roles": ["user"]},
        "resources": [{"actions": ["a0"], "resource": resource}],
    }
    mine = theirs = "refused"
    with written(policy([text])) as directory:
        if not refused_by_us([text], environment()):
            ((_, _, value, failed),) = ours(Engine.from_directory(directory), request)[0].outputs
            mine = "error" if failed else value
        if not refused_by_cerbos([text]):
            with asking_cerbos(directory, Configuration("one expression")) as cerbos:
                theirs = _outcomes(cerbos, request).get("a0", "no answer")
    return mine, theirs


class Comparison(NamedTuple):
    """What a run over generated expressions has seen."""

    expressions: int
    """How many both sides accept; each is evaluated for four resources."""

    unlike: frozenset[str]
    """Those that one side refuses."""

    explained: int
    unexplained: list[Mismatch]


def compared(seed: int) -> Comparison:
    """Compare the expressions made from *seed*."""
    made = texts(seed, RULES)
    refused = refused_by_us(made, environment())
    unlike = refused.keys() - refused_by_cerbos(list(refused)).keys()
    accepted = [text for text in made if text not in refused]
    try:
        found = list(mismatches(accepted, seed))
    except OracleError:  # it refuses some of them
        theirs = refused_by_cerbos(accepted)
        unlike |= theirs.keys()
        accepted = [text for text in accepted if text not in theirs]
        found = list(mismatches(accepted, seed))
    unexplained = [one for one in found if not explained(one)]
    return Comparison(len(accepted), frozenset(unlike), len(found) - len(unexplained), unexplained)
