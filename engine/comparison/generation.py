"""Questions made of what the policies speak of, the same ones every time."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from engine.comparison.cases import Case
from engine.comparison.vocabulary import SOMEBODY, vocabulary_of
from engine.model import NO_AUX_DATA, AuxData, CheckInput, Principal, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.comparison.vocabulary import Path, Subject, Vocabulary
    from engine.model import JsonValue
    from engine.rules import RuleTable

LEFT_OUT = 0.1
"""How often an attribute is not there."""
ELSEWHERE = 0.15
"""How often an attribute has a value that stands beside another one."""
IN_A_LIST = 0.1
"""How often an attribute is a list of values."""
THE_SAME = 0.4
"""How often attributes of one name, of the principal and the resource, have one value."""
MOST_ROLES = 3
PLAIN: Sequence[JsonValue] = (True, False, "", "something else", 0.0, 1.0)


def generated(old: RuleTable, new: RuleTable, *, limit: int, seed: int = 0) -> Iterator[Case]:
    """Yield *limit* questions, or none if no policy is about any resource.

    They are as many for each kind of resource, and ask for all the actions that are known of it. The same
    policies and *seed* give the same questions.
    """
    words = vocabulary_of(old, new)
    random = Random(seed)  # noqa: S311 - not a secret
    for number in range(limit if words.subjects else 0):
        subject = words.subjects[number % len(words.subjects)]
        yield Case("generated", f"generated question {number + 1}", _question(words, subject, random))


def _question(words: Vocabulary, subject: Subject, random: Random) -> CheckInput:
    known = list(subject.roles)
    attributes: dict[str, dict[str, JsonValue]] = {"P": {}, "R": {}, "jwt": {}}
    chosen: dict[str, JsonValue] = {}
    for path in subject.values:
        if random.random() >= LEFT_OUT:
            value = _value(subject, path, random)
            if path[-1] in chosen and random.random() < THE_SAME:
                value = chosen[path[-1]]
            chosen[path[-1]] = value
            where, names = (path[0], path[1:]) if path[0] == "jwt" else (path[0], path[2:])
            _put(attributes[where], names, value)
    principal = Principal(
        random.choice(words.principals),
        tuple(random.sample(known, random.randint(1, min(MOST_ROLES, len(known))))),
        attributes["P"],
        scope=subject.scope,
    )
    resource = Resource(
        subject.kind, random.choice(("1", *SOMEBODY)), attributes["R"], subject.version, subject.scope
    )
    aux_data = AuxData(attributes["jwt"]) if attributes["jwt"] else NO_AUX_DATA
    return CheckInput(principal, resource, tuple(subject.actions), aux_data)


def _value(subject: Subject, path: Path, random: Random) -> JsonValue:
    near, far = list(subject.values[path].values()), list(subject.others.values())
    choice = [*near, *PLAIN[:2]] if near else [*PLAIN]
    if far and random.random() < ELSEWHERE:
        choice = [*far, *PLAIN]
    if random.random() < IN_A_LIST:
        return random.sample(choice, random.randint(0, min(3, len(choice))))
    return random.choice(choice)


def _put(attributes: dict[str, JsonValue], names: Sequence[str], value: JsonValue) -> None:
    """Set an attribute, inside of maps where it is read from one."""
    *maps, last = names
    for name in maps:
        inner = attributes.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # it is read as a value elsewhere
        attributes = inner
    if not isinstance(attributes.get(last), dict):
        attributes[last] = value
