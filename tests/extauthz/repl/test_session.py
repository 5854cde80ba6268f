"""Sessions of the repl: what inputs show, and what they change."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from extauthz.repl.evaluation import InputError
from extauthz.repl.session import DIRECTIVES, Quit, Session

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """\
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  resource: expense
  version: default
  importDerivedRoles: [roles]
  variables: {import: [common], local: {big: R.attr.amount > C.LIMIT, bad: R.attr.zzz}}
  constants: {local: {LIMIT: 1000}}
  rules:
    - actions: [view]
      effect: EFFECT_ALLOW
      roles: [user]
      derivedRoles: [owner]
      condition:
        match: {all: {of: [{expr: R.attr.owner == P.id}, {any: {of: [{expr: V.big}, {expr: V.sales}]}}]}}
      output: {when: {ruleActivated: '"seen by " + P.id', conditionNotMet: '"hidden"'}}
    - {actions: [edit], effect: EFFECT_ALLOW, roles: [admin]}
"""
OTHERS = {
    "common.yaml": """\
apiVersion: api.cerbos.dev/v1
exportVariables: {name: common, definitions: {sales: P.attr.department == "SALES"}}
""",
    "roles.yaml": """\
apiVersion: api.cerbos.dev/v1
derivedRoles:
  name: roles
  definitions: [{name: owner, parentRoles: [user], condition: {match: {expr: R.attr.owner == P.id}}}]
""",
    "principal.yaml": """\
apiVersion: api.cerbos.dev/v1
principalPolicy:
  principal: ann
  version: default
  rules:
    - resource: "*"
      actions: [{action: purge, effect: EFFECT_DENY, condition: {match: {expr: "true"}}}]
""",
    "role.yaml": """\
apiVersion: api.cerbos.dev/v1
rolePolicy:
  role: clerk
  rules: [{resource: expense, allowActions: [view], condition: {match: {expr: "true"}}}]
""",
}


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "expense.yaml").write_text(POLICY)
    for name, text in OTHERS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def shown(session: Session, *inputs: str) -> str:
    """Return what the last input shows."""
    for text in inputs[:-1]:
        session.handle(text)
    console = Console(file=StringIO(), width=200, highlight=False)
    for renderable in session.handle(inputs[-1]):
        console.print(renderable)
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def refused(session: Session, *inputs: str) -> str:
    for text in inputs[:-1]:
        session.handle(text)
    with pytest.raises(InputError) as refusal:
        session.handle(inputs[-1])
    return str(refusal.value)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["1 + 1"], "_ = 2"),
        (["1 + 1", "_ * 5"], "_ = 10"),
        (["  "], ""),
        ([":let x = [1, 2]"], "x = [1, 2]"),
        ([":let x = [1, 2]", "x.map(i, i * 2)"], "_ = [2, 4]"),
        ([":let x = 1", ":let x = 'a'", "x + 'b'"], '_ = "ab"'),
        ([':let P = {"id": "ann", "roles": ["user"]}', "P.id in ['ann'] && 'user' in P.roles"], "_ = true"),
        ([':let R.attr = {"n": 1}', "type(R.attr.n)"], "_ = double"),
        ([":let R.attr.n = 1", "R.attr.n == 1"], "_ = true"),
        ([":let R.attr.a.b = [1, 'x']", "R.attr.a"], '_ = {"b": [1.0, "x"]}'),
        ([":let request.auxData.jwt.sub = 'ann'", "request.aux_data.jwt.sub"], '_ = "ann"'),
        ([':let request = {"principal": {"id": "ann"}}', "P.id"], '_ = "ann"'),
        ([":let P.policy_version = '1'", "P.policyVersion"], '_ = "1"'),
        ([':let G = {"a": 1}', "G.a"], "_ = 1.0"),
        ([":let V.a = true", "V.a && variables.a"], "_ = true"),
        ([":let C.a = 'b'", "constants.a"], '_ = "b"'),
        (
            [":let runtime.effectiveDerivedRoles = ['owner']", "runtime.effectiveDerivedRoles"],
            '_ = ["owner"]',
        ),
        (["P.id"], '_ = ""'),
        (["now() > timestamp('2020-01-01T00:00:00Z')"], "_ = true"),
        ([":type R.attr"], "map(string, dyn)"),
        ([":type 1 < 2"], "bool"),
        ([":rules"], "no loaded policy has a rule with a condition"),
        ([":let x = 1", ":reset", "_"], "_ = null"),
    ],
)
def test_inputs(session: Session, inputs: list[str], expected: str) -> None:
    """Expressions show their values, directives what they did."""
    assert shown(session, *inputs) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 + ", "1 +\n   ^ Syntax error"),
        ('"a" + 1', "\"a\" + 1\n    ^ found no matching overload for '_+_' applied to '(string, int)'"),
        ("bogus", "bogus\n^ undeclared reference to 'bogus'"),
        ("2 + 1 / 0", "2 + 1 / 0\n    ^^^^^ division by zero"),
        ("R.attr.x", "R.attr.x\n^^^^^^^^ no such key: x"),
        (":lte x = 1", "unknown directive `:lte` (did you mean `let`?)"),
        (":let", "`:let` takes a name and a value"),
        (":let x", "`:let` takes a name and a value"),
        (":let 1x = 2", "`1x` cannot be a variable"),
        (":let in = 2", "`in` cannot be a variable"),
        (":let for = 2", "`for` cannot be a variable"),
        (":let now = 2", "`now` cannot be a variable"),
        (":let __class__ = 2", "`__class__` cannot be a variable"),
        (":let x.y = 2", "`x.y` cannot be a variable"),
        (":let R.knd = 'x'", "`request.resource` has no field `knd` (did you mean `kind`?)"),
        (":let P.roles = 'x'", "`request.principal.roles` takes a list of strings"),
        (":let P = 1", "`request.principal` takes a map"),
        (":let R.attr.a = 1/0", "division by zero"),
        (":let R.attr.a = {1: 2}", "unsupported type conversion"),
        (":load", "`:load` takes the path"),
        (":load /nowhere/at/all", "cannot read `/nowhere/at/all`"),
        (":exec", "`:exec` takes the number of a rule"),
        (":exec #0", "there is no rule #0 (none is loaded)"),
        (":explain", "`:explain` takes one or more actions"),
        (":explain view", "`:load` policies first"),
        (":type", "`:type` takes an expression"),
        (":vars now", "`:vars` takes nothing after it"),
    ],
)
def test_inputs_that_cannot_be_used(session: Session, text: str, complaint: str) -> None:
    """What is wrong is said with its place, and nothing changes."""
    session.handle("7")
    assert complaint in refused(session, text)
    assert shown(session, "_") == "_ = 7"


def test_parts_are_set_one_by_one(session: Session) -> None:
    """A part that is set leaves the others; a part of what is no map cannot be set."""
    session.handle(':let R = {"kind": "expense", "attr": {"a": 1}}')
    session.handle(":let R.attr.b = 2")
    assert shown(session, "R") == '_ = {"kind": "expense", "attr": {"a": 1.0, "b": 2.0}}'
    assert "what stands above it is not a map" in refused(session, ":let R.attr.a.c = 1")


def test_vars_shows_everything(session: Session) -> None:
    """Own variables, the special ones, and what the policy at hand defines."""
    text = shown(session, ":let x = 1u", ":let P.id = 'ann'", ":vars")
    assert text.splitlines()[:4] == [
        "_ = null",
        "x = 1u",
        'P (request.principal) = {"id": "ann"}',
        "R (request.resource) = {}",
    ]


def test_a_policy_is_loaded(session: Session, directory: Path) -> None:
    """Its conditional rules get numbers; what it imports and is not loaded yet is named."""
    text = shown(session, f":load {directory / 'expense.yaml'}")
    assert "loaded resource.expense.vdefault" in text
    assert "not loaded yet, but imported: derived_roles.roles, export_variables.common" in text
    assert "#0  resource.expense.vdefault#rule-001" in text
    assert "allow view for user, owner when\n└── all\n    ├── R.attr.owner == P.id" in text
    assert "#1" not in text


def test_all_kinds_of_rules_are_listed(session: Session, directory: Path) -> None:
    """Rules of resource, principal and role policies and derived roles have numbers of their own."""
    session.handle(f":load {directory}")
    text = shown(session, ":rules")
    for says in (
        "allow view for user, owner when",
        "deny purge on * for ann when",
        "leave view on expense to clerk when",
        "give the derived role owner to user when",
    ):
        assert says in text


def test_a_condition_is_executed_part_by_part(session: Session, directory: Path) -> None:
    """Every part is judged, with the variables of the rule's policy; what failed says why."""
    session.handle(f":load {directory}")
    session.handle(":let P.id = 'ann'")
    session.handle(":let R.attr = {'owner': 'ann', 'amount': 2000}")
    number = next(index for index, rule in enumerate(session.loaded.rules) if rule.name == "rule-001")
    lines = shown(session, f":exec #{number}").splitlines()
    assert lines[:6] == [
        "all [true]",
        "├── R.attr.owner == P.id [true]",
        "└── any [true]",
        "    ├── V.big [true]",
        "    └── V.sales [false]",
        "        V.sales",
    ]
    assert lines[-1] == 'output = "seen by ann"'
    assert "V.bad has no value:" in lines
    assert shown(session, "V.big") == "_ = true"
    assert "the variable `bad` has no value:\nR.attr.zzz" in refused(session, "V.bad")
    assert shown(session, ":let V.bad = 3", "V.bad") == "_ = 3.0"


def test_a_decision_is_explained(session: Session, directory: Path) -> None:
    """The loaded policies are asked about P, R and the actions."""
    session.handle(f":load {directory}")
    session.handle(':let P = {"id": "bob", "roles": ["user"]}')
    session.handle(":let R = {'kind': 'expense', 'id': '1', 'attr': {'owner': 'bob', 'amount': 5000}}")
    text = shown(session, ":explain view edit")
    assert "view: ALLOW" in text
    assert "edit: DENY" in text
    assert "R.attr.owner == P.id: true" in text


def test_policies_that_do_not_compile_are_not_explained(session: Session, directory: Path) -> None:
    """What keeps them from compiling is listed."""
    session.handle(f":load {directory / 'expense.yaml'}")
    assert "cannot be found" in refused(session, ":explain view")


def test_a_broken_policy_is_not_loaded(session: Session, tmp_path: Path) -> None:
    """Its faults are listed with their places, and the session is as before."""
    (tmp_path / "broken.yaml").write_text("apiVersion: api.cerbos.dev/v1\nresourcePolicy: {resource: 1}\n")
    for path in (tmp_path, tmp_path / "broken.yaml"):
        assert "broken.yaml:2:" in refused(session, f":load {path}")
    assert session.loaded.policies == {}


@pytest.mark.parametrize("text", [":q", ":quit", ":exit"])
def test_leaving(session: Session, text: str) -> None:
    """Three directives end the session."""
    with pytest.raises(Quit):
        session.handle(text)


@pytest.mark.parametrize("text", [":help", ":h"])
def test_help_names_every_directive(session: Session, text: str) -> None:
    """What can be done is listed, in no more than 110 columns."""
    text = shown(session, text)
    assert all(f":{name}" in text for name in DIRECTIVES)
    assert max(map(len, text.splitlines())) <= 110
