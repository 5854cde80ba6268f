"""Plans of both sides: generated policies and questions, and the comparison of the answers."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import Engine, json_value
from engine.plan import Plan, PlanError, PlanInput
from engine.plan.filter import debug, from_json
from tests import questions as read
from tests.differential import policies, requests
from tests.differential.oracle import Oracle, OracleError, cerbos
from tests.differential.plan_quirks import QUIRKS
from tests.differential.run import CONFIGURATIONS
from tests.differential.sides import written
from tests.engine.plan import worlds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

QUESTIONS = 60
"""Questions to one set of policies."""

EXPRESSIONS = (
    *(
        text
        for text in (*worlds.EXPRESSIONS, *worlds.PRESENCE)
        if not text.lstrip("!").startswith(("V.", "C."))
    ),
    "R.attr.public ? 1 + 2 == 3 : 'a' + 'b' == R.attr.text",
    "P.attr.name in ['abc'] && R.attr.team in P.attr.lists",
    "R.attr.tags.map(t, [t, P.attr.name]) == []",
    "R.attr.map.transformMap(k, v, v == P.attr.limit) == {}",
    "R.attr.map.exists(k, v, k == 'a' && v == P.attr.limit)",
    "P.attr.grades.exists(k, v, k == R.attr.team && v == 'high')",
    "P.attr.teams.all(i, t, i < 2 || t == R.attr.team)",
    "R.attr.tags[P.attr.limit] == 1",
    "[R.attr.team, 1, duration('90m')] == R.attr.any",
    "{'a': R.attr.team}.a == P.attr.name",
    "R.attr.when > timestamp('2024-01-01T00:00:00.5+01:00')",
    "R.attr.amount in [1, 2.5, 3u]",
    "R.attr.text == b'abc' || R.attr.text == 1e21",
    "P.policyVersion == '' && R.policyVersion == 'default'",
    "hierarchy(R.attr.text).ancestorOf(hierarchy('a.b.c'))",
    "R.attr.tags.exists(t, P.attr.teams.exists(s, s == t))",
)


class Side(NamedTuple):
    """What is compared of a plan."""

    filter: str
    scopes: str
    text: str = ""
    """The debug string where there is no condition."""


def in_order(node: Any) -> Any:
    """Return a filter without what says nothing: the order of operands, what ``and`` and ``or`` repeat.

    Cerbos has a row for each action and role of a rule, and takes a rule for several when several match; and
    its maps have no order, so that it does not always know an expression for the same.
    """
    if isinstance(node, list):
        return sorted(map(in_order, node), key=canonical)
    if not isinstance(node, dict) or "value" in node:
        return json_value(node)
    found = {key: in_order(item) for key, item in node.items() if item != []}
    inner = found.get("expression")
    if not isinstance(inner, dict) or inner["operator"] not in {"and", "or"}:
        return found
    operands = list({canonical(operand): operand for operand in _flat(inner)}.values())
    if len(operands) == 1:
        return operands[0]
    return {"expression": {"operator": inner["operator"], "operands": sorted(operands, key=canonical)}}


def _flat(expression: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the operands of a junction, and those of the same junctions in it."""
    for operand in expression["operands"]:
        inner = operand.get("expression")
        if inner is not None and inner["operator"] == expression["operator"]:
            yield from _flat(inner)
        else:
            yield operand


def canonical(value: Any) -> str:
    """Write JSON; the time of the call is another one for each side."""
    text = json.dumps(value, sort_keys=True)
    today = datetime.datetime.now(datetime.UTC).date()
    return re.sub(rf'"{today}T[^"]*"', '"now"', text)


def side(filter_: Mapping[str, Any], scopes: Mapping[str, str], text: str) -> Side:
    plain = "" if "condition" in filter_ else text
    return Side(
        canonical(in_order(filter_)), canonical({key: scope for key, scope in scopes.items() if scope}), plain
    )


def ours(engine: Engine, request: Mapping[str, Any]) -> Side:
    """Ask our engine."""
    who, what = request["principal"], request["resource"]
    question = PlanInput(
        read.principal(who),
        read.resource(what),
        tuple(request["actions"]),
    )
    try:
        plan: Plan = engine.plan(question)
    except PlanError:
        return Side("no plan", "")
    return side(plan.to_json(), plan.matched_scopes, plan.debug)


FAILED = "Resources query plan request failed"


def _plain(message: str) -> str:
    """Return protobuf's complaint about a number that JSON has not, whichever it is."""
    return re.sub(r"invalid (NaN|[+-]Inf) value", "invalid value", message)


def theirs(oracle: Oracle, request: Mapping[str, Any]) -> Side:
    """Ask Cerbos; its debug string has to be what we make of its filter."""
    status, said = oracle.ask("/api/plan/resources", {"requestId": "1", "includeMeta": True, **request})
    if status != 200:
        assert said["message"] == FAILED or "invalid value" in _plain(said["message"]), said
        return Side("no plan", "")
    filter_, meta = said["filter"], said["meta"]
    if "condition" in filter_:
        assert meta["filterDebug"] == debug(from_json(filter_["condition"]))
    return side(filter_, meta.get("matchedScopes", {}), meta["filterDebug"])


@dataclass
class Tally:
    """What a run has seen."""

    plans: int = 0
    conditional: int = 0
    refused: int = 0
    """Cerbos failed, we did not."""

    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[tuple[Any, Any, Side, Side]] = field(default_factory=list)


def compared(seed: int, questions: int = QUESTIONS) -> Tally:
    """Compare the plans of one set of policies, made from *seed*."""
    random = Random(seed)  # noqa: S311 - nothing secret: the same seed has to make the same policies
    configuration = CONFIGURATIONS[seed % len(CONFIGURATIONS)]
    files = policies.policy_set(random)
    _planned(random, files)
    tally = Tally()
    with written(files) as directory:
        engine = Engine.from_directory(directory, settings=configuration.settings())
        try:
            with cerbos(directory, configuration.blocks()) as oracle:
                for _ in range(questions):
                    _compare(tally, engine, oracle, question(random, files), files)
        except OracleError as error:
            if "policy compilation error" not in str(
                error
            ):  # some constants it folds to what it cannot store
                raise
    return tally


def _compare(tally: Tally, engine: Engine, oracle: Oracle, request: dict[str, Any], files: Any) -> None:
    mine, other = ours(engine, request), theirs(oracle, request)
    tally.plans += 1
    tally.conditional += "condition" in other.filter
    if other.filter == "no plan":
        tally.refused += mine != other
    elif mine != other:
        chosen = explanation(engine, request, other)
        if chosen is None:
            tally.unexplained.append((files, request, mine, other))
        else:
            tally.explained[" + ".join(chosen)] += 1


def explanation(engine: Engine, request: Mapping[str, Any], wanted: Side) -> tuple[str, ...] | None:
    """Return the fewest quirks with which we plan as Cerbos does; ``None``: no few of them, nor all."""
    if not _explains(engine, request, wanted, tuple(QUIRKS)):
        return None
    few = itertools.chain.from_iterable(itertools.combinations(QUIRKS, count) for count in (1, 2))
    found = (chosen for chosen in few if _explains(engine, request, wanted, chosen))
    return next(found, tuple(QUIRKS))


def _explains(engine: Engine, request: Mapping[str, Any], wanted: Side, chosen: Sequence[str]) -> bool:
    with contextlib.ExitStack() as stack:
        for name in chosen:
            stack.enter_context(QUIRKS[name]())
        table = engine.table.with_settings(engine.table.settings)
        return ours(Engine(table), request) == wanted


# -- what is asked -----------------------------------------------------------------------------------------


def _planned(random: Random, node: Any) -> None:
    """Put expressions that depend on the resource in the place of most others."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == "expr" and random.random() < 0.7:
            node[key] = random.choice(EXPRESSIONS)
        elif isinstance(value, (dict, list)):
            _planned(random, value)


def question(random: Random, files: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request of ``PlanResources``, mostly about what one of the policies is about."""
    who = requests.principal(random)
    own = {name: value for name, value in worlds.PRINCIPAL.items() if random.random() < 0.85}
    who["attr"] = {**who.get("attr", {}), **own}
    attributes = {**requests.attributes(random), **worlds.attributes(random)}
    known = {name: value for name, value in attributes.items() if random.random() < 0.1}
    resource = {"kind": random.choice(policies.KINDS), "attr": known, **_place(random)}
    bodies = [policy["resourcePolicy"] for policy in files.values() if "resourcePolicy" in policy]
    if bodies and random.random() < 0.85:
        body = random.choice(bodies)
        resource |= {
            "kind": body["resource"],
            "policyVersion": body["version"],
            "scope": body.get("scope", ""),
        }
        who["scope"] = random.choice(("", body.get("scope", "")))
    actions = random.sample(policies.ACTIONS, random.choice((1, 1, 1, 2, 3)))
    return {"principal": who, "resource": resource, "actions": actions}


def _place(random: Random) -> dict[str, str]:
    found: dict[str, str] = requests._place(random)
    return found
